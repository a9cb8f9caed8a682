"""Serves a small shop with two releases, and opens its studio in a real browser.

`shop_world` is what two runs of the whole batch made: an earlier release, and the serving one,
which knows two weeks more. `studio` is the address of `shortlist serve`. `page` is a page of
Chromium there, which fails its test if a script fails, a file comes from elsewhere, or the
server breaks.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright
from rich.console import Console

from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.tables import of_mapping
from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from tests.browser.shop import write_shop
from tests.chromium import NAMES, chromium
from tests.servers import as_process
from tests.smallest import smallest

ADMIN_KEY = "the-admin-key-of-the-browser-tests"
WEEKS = 2 * 7 * 86_400
SECONDS = 20.0
"""How long a page may take until a test fails; machines of CI are slow."""

DESKTOP, PHONE = 1280, 390
"""Widths in pixels."""

expect.set_options(timeout=1000 * SECONDS)


@dataclass(frozen=True)
class ShopWorld:
    """Two releases and the variables under which a process serves them."""

    environ: dict[str, str]
    settings: Settings
    earlier: str
    serving: str


@dataclass
class Watched:
    """What went wrong on a page."""

    faults: list[str] = field(default_factory=list)

    def watch(self, page: Page, origin: str) -> None:
        """Notes failing scripts, files from elsewhere, and answers of a broken server."""
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("console", self._said)
        page.on("response", lambda response: self._answered(response, origin))

    def _said(self, message) -> None:
        # A refused request is logged too; whether it was right is the test's matter.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _answered(self, response: Response, origin: str) -> None:
        parts = urlsplit(response.url)
        if parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" != origin:
            self.faults.append(f"from elsewhere: {response.url}")
        if response.status >= 500:
            self.faults.append(f"{response.status}: {response.url}")


@pytest.fixture(scope="session")
def shop_redis() -> Iterator[str]:
    """The address of the shop's own Redis, whose memory and users the pages show."""
    with redis_url({}) as url:
        yield url


@pytest.fixture(scope="session")
def shop_world(shop_redis: str, tmp_path_factory: pytest.TempPathFactory) -> ShopWorld:
    """Both releases of the shop."""
    directory = tmp_path_factory.mktemp("shop")
    environ = {
        "REDIS_URL": shop_redis,
        "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
        "SHORTLIST_NAMESPACE": "browser",
        "SHORTLIST_BUNDLE_DIR": str(directory),
        "SHORTLIST_RELEASE_CACHE_SECONDS": "0",
        "SHORTLIST_ADMIN_KEY": ADMIN_KEY,
        "SHORTLIST_REPEATS": "allow",
        "SHORTLIST_LIST_LENGTH": "50",
        "SHORTLIST_GATE": "off",
        "SHORTLIST_THREADS": "1",
        "EMBEDDING_DIM": "16",
        "TOP_K_CANDIDATES": "60",
        "LGBM_N_ESTIMATORS": "30",
    }
    settings = Settings.from_env(environ)
    mapping = write_shop(directory / "tables")
    _run(_before(mapping, directory / "earlier"), directory / "work-earlier", settings)
    _run(mapping, directory / "work", settings)
    earlier, serving = open_artefacts(settings.artefacts).versions()
    return ShopWorld(environ, settings, earlier, serving)


def _before(mapping: Path, directory: Path) -> Path:
    """The same tables without their last two weeks."""
    shutil.copytree(mapping.parent, directory)
    events = directory / "interactions.parquet"
    table = pl.read_parquet(events)
    table.filter(pl.col("timestamp") < pl.col("timestamp").max() - WEEKS).write_parquet(events)
    return directory / mapping.name


def _run(mapping: Path, work: Path, settings: Settings) -> None:
    tables = of_mapping(str(mapping))
    reporter = ProgressReporter(Console(file=io.StringIO()))
    paths = (tables.interactions, tables.items, tables.users)
    rules, params = tables.event_rules, smallest(settings)
    run_job(Job(*paths, work, settings, reporter, config=params, event_rules=rules))


@pytest.fixture(scope="session")
def studio(shop_world: ShopWorld) -> Iterator[str]:
    """The address of `shortlist serve`."""
    with as_process(shop_world.environ) as (_, port):
        yield f"http://127.0.0.1:{port}"


# While Playwright is open, its event loop is this thread's: tests of other files could run none.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it."""
    path = chromium()
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        # Containers have no room for the sandbox and little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser: Browser, studio: str) -> Iterator[Callable[..., Page]]:
    """Makes pages of the studio; width: in pixels; scheme: light or dark."""
    watched, contexts = Watched(), []

    def made(width: int = DESKTOP, scheme: str = "light", height: int = 900) -> Page:
        context = browser.new_context(
            base_url=studio,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        watched.watch(page, studio)
        return page

    yield made
    for context in contexts:
        context.close()
    assert watched.faults == []


@pytest.fixture
def page(new_page) -> Page:
    """A page on a desktop."""
    return new_page()
