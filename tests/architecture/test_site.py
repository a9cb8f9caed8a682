"""Builds the site of the documents, and follows its links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""What a browser asks for by itself when it shows a page."""

ELSEWHERE = re.compile(r"(?:https?:)?//")
UNREAD_LIST = re.compile(r"^(?:[-*] |\d+\. |\|)", re.MULTILINE)
"""A list or a table that stands in a paragraph as text."""


def built(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a repository's documents."""
    command = [sys.executable, "-m", "shortlist.infra.tools.site"]
    command += ["--root", str(root), "--out", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@dataclass
class Page(HTMLParser):
    """What the tests look at in a page."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = False
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects ids, links, and what is fetched."""
        found = dict(attrs)
        if found.get("id"):
            self.ids.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if found.get(FETCHED.get(tag, "")):
            self.fetched.append(str(found[FETCHED[tag]]))
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        """Ends a paragraph."""
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        """Collects the text of paragraphs."""
        if self._inside:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    out = tmp_path_factory.mktemp("site") / "out"
    done = built(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    """Every page, by its path."""
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_document_is_a_page(site) -> None:
    """Those of docs/ and those of the root, the README as the home."""
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    at_the_root = {path.stem for path in ROOT.glob("*.md")} - {"README"}
    assert {path.stem for path in site.glob("*.html")} == {
        *documents,
        *at_the_root,
        "index",
        "404",
    }


def test_links_of_the_site_lead_somewhere(site, pages) -> None:
    """Each link within the site names a file, and an id of it where it names one."""
    broken = []
    for page in pages.values():
        if page.path.name == "404.html":  # its links are absolute, for any depth
            continue
        for link in [*page.links, *page.fetched]:
            address, anchor = urldefrag(link)
            if ELSEWHERE.match(address) or address.startswith("mailto:"):
                continue
            file = (page.path.parent / unquote(address)).resolve() if address else page.path
            known = pages[file].ids if file in pages else set()
            if not file.is_file() or (anchor and unquote(anchor) not in known):
                broken.append((str(page.path.relative_to(site)), link))
    assert broken == []


def test_the_site_fetches_nothing_elsewhere(site, pages) -> None:
    """No script, style, font or picture of another host: it can be read without a network."""
    fetched = {link for page in pages.values() for link in page.fetched if ELSEWHERE.match(link)}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert fetched | set(re.findall(r"url\([\"']?((?:https?:)?//[^)]*)", styles)) == set()
    assert re.findall(r"@import[^;]*", styles) == []


def test_every_list_is_a_list(site, pages) -> None:
    """GitHub's Markdown and the site's agree: no list or table is left as text."""
    unread = [
        (str(page.path.relative_to(site)), text[:60])
        for page in pages.values()
        for text in page.paragraphs
        if UNREAD_LIST.search(text)
    ]
    assert unread == []


@pytest.mark.parametrize("link", ["nowhere.md", "data.md#nowhere"])
def test_a_broken_link_ends_the_build(tmp_path, link) -> None:
    """The build fails, and says which link of which page."""
    for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY"):
        shutil.copy(ROOT / f"{name}.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "rules.md").open("a") as page:
        page.write(f"\n[broken]({link})\n")
    done = built(tmp_path, tmp_path / "out")
    assert (done.returncode, "'rules.md'" in done.stderr, link in done.stderr) == (1, True, True)
