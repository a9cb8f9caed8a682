"""Writes the pictures of the studio; `make screenshots` runs it.

Those that the documents show are in docs/images, the other forms in build/screenshots.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import ADMIN_KEY, DESKTOP, PHONE

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
OTHERS = ROOT / "build" / "screenshots"

DOCUMENTED = {("desktop", "light"), ("phone", "dark")}
"""Forms that the documents show."""

FIRST_LOOK = 1000
"""Height of README's picture."""

COLOURS = 256
"""Colours of a picture: a page has few, and a palette takes a third of the bytes."""

MOST_PIXELS = 2600
"""Height at which a picture is cut; a phone's pages are long."""

WIDTHS = {"desktop": DESKTOP, "phone": PHONE}


def quiet(page: Page) -> None:
    """Waits until all has been asked for and drawn."""
    page.wait_for_load_state("networkidle")
    expect(page.locator("main .loading, main [aria-busy]")).to_have_count(0)


def users(page: Page) -> None:
    """A user with one reason open, beside whom the history marks its causes."""
    row = page.locator(".list .ranked > li").filter(has_text="because of").first
    row.locator(".why summary").press("Enter")  # the focus keeps the marks, a pointer would move


def fresh(page: Page) -> None:
    """A fresh user with three titles in the basket."""
    for place, word in enumerate(("hose", "planter", "puzzle"), 1):
        page.get_by_label("Search titles").fill(word)
        page.locator(".found li", has_text=word).get_by_role("button").first.click()
        expect(page.locator(".basket button")).to_have_count(place)
        quiet(page)


def items(page: Page) -> None:
    """The most popular item, with a user drawn into the map."""
    page.locator(".picker a").first.click()
    expect(page.get_by_role("heading", name="Similar items")).to_be_visible()
    page.get_by_label("Draw a user in").fill("17")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_text(re.compile("Show the .* marked items"))).to_be_visible()


def click(page: Page) -> None:
    """The list of a user before and after a click."""
    page.locator(".list .ranked > li").nth(6).get_by_role("button").click()
    expect(page.get_by_role("heading", name="After the click")).to_be_visible()


def nothing(page: Page) -> None:
    """The page as it opens."""


def operations(page: Page) -> None:
    """The page with the admin key given, after a few answers."""
    for user in range(1, 6):
        page.request.post("/recommend", data={"user_id": str(user), "use_cache": user > 2})
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Use the key").click()
    expect(page.get_by_label("Rules as JSON")).to_be_visible()
    page.get_by_role("button", name="Refresh").click()


SHOWN: dict[str, tuple[str, Callable[[Page], None]]] = {
    "users": ("#/users", users),
    "click": ("#/users", click),
    "fresh": ("#/users?fresh=1", fresh),
    "items": ("#/items", items),
    "data": ("#/data", nothing),
    "quality": ("#/quality", nothing),
    "operations": ("#/operations", operations),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SHOWN)
def test_picture(new_page, name, width, scheme) -> None:
    """A page of the studio, in one width and theme."""
    address, prepare = SHOWN[name]
    page = new_page(WIDTHS[width], scheme)
    page.goto(f"/{address}")
    quiet(page)
    prepare(page)
    quiet(page)
    page.evaluate("scrollTo(0, 0)")
    folder = IMAGES if (width, scheme) in DOCUMENTED else OTHERS
    folder.mkdir(parents=True, exist_ok=True)
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    part = whole.crop((0, 0, whole.width, min(MOST_PIXELS, whole.height)))
    save(part, folder / f"studio-{name}-{width}-{scheme}.png")
    if (name, width, scheme) == ("users", "desktop", "light"):
        save(part.crop((0, 0, part.width, FIRST_LOOK)), IMAGES / "studio.png")


def save(picture: Image.Image, path: Path) -> None:
    """Writes a picture with few colours, of which every hue is kept, a chart's lines too."""
    # The commonest colours alone are the ground's.
    palette = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=4)
    palette.save(path, optimize=True)
