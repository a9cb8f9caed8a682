"""Measures the page of a report in a real browser; skipped where there is none."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from shortlist.recsys.evaluation.names import METHODS
from shortlist.recsys.evaluation.page import render
from tests.chromium import NAMES, chromium
from tests.reports import figure, full

CHROMIUM = chromium()
SCREEN, SCREENS = 900, 6
PROBE = """<script>
addEventListener("load", () => {
  const page = document.documentElement, tiles = document.querySelector(".tiles");
  const beyond = page.scrollWidth - page.clientWidth;
  const said = [page.scrollHeight, beyond, tiles.getBoundingClientRect().bottom];
  top.postMessage(said.map(Math.ceil).join(" "), "*");
});
</script></body>"""
FRAME = """<script>
addEventListener("message", said => document.body.dataset.said = said.data);
</script><iframe src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"install one of {NAMES}")


@pytest.fixture(scope="module")
def page() -> str:
    """The page of a report with every section, every method and a dozen reasons."""
    report = full()
    row, pairs = report["methods"]["two_stage"], report["paired"]["two_stage"]
    report["methods"] |= {name: row for name in METHODS if name not in report["methods"]}
    pairs |= dict.fromkeys(report["methods"].keys() - {"two_stage"}, pairs["popularity"])
    report["data"]["rejects"] = {f"unparsable column {n}": n for n in range(1, 9)}
    kinds = report["segments"]["favourite category"]
    report["segments"]["favourite category"] = [
        kinds[0] | {"segment": f"Category {n}", "methods": dict.fromkeys(METHODS, figure(n / 10))}
        for n in range(9)
    ]
    return render(report)


def measured(page: str, width: int, directory: Path) -> tuple[int, int, int]:
    """Pixels: the page's height, how far it reaches beyond the edge, and where its tiles end.

    It is in a frame of a width, because a browser's window has a least width of its own.
    """
    (directory / "page.html").write_text(page.replace("</body>", PROBE), encoding="utf-8")
    frame = directory / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    done = subprocess.run(
        [*command, f"--user-data-dir={directory / 'profile'}", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = re.search(r'data-said="([\d ]+)"', done.stdout)
    assert said is not None, done.stderr[-500:]
    height, beyond, tiles_end = map(int, said[1].split())
    return height, beyond, tiles_end


def test_page_has_six_screens(page: str, tmp_path: Path) -> None:
    """On a desktop the whole page is six screens at most, and its tiles are on the first."""
    height, beyond, tiles_end = measured(page, 1280, tmp_path)
    assert SCREEN < height <= SCREENS * SCREEN
    assert beyond == 0
    assert tiles_end < SCREEN / 2


def test_phone_scrolls_in_one_direction(page: str, tmp_path: Path) -> None:
    """At 390 pixels nothing but the tables themselves reaches beyond the right edge."""
    _, beyond, tiles_end = measured(page, 390, tmp_path)
    assert beyond == 0
    assert tiles_end < SCREEN


def test_an_unfolded_page_is_longer(page: str, tmp_path: Path) -> None:
    """The measure tells: with everything open the page has more than six screens."""
    height, _, _ = measured(page.replace("<details>", "<details open>"), 1280, tmp_path)
    assert height > SCREENS * SCREEN
