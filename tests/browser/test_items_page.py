"""Tests the studio's Items page in a real browser: search, one item, and the map."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.shop import MARKUP

PAINTED = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let place = 3; place < data.length; place += 4) sum += data[place] * (place % 1009);
  return sum;
}"""
"""A number that stands for what a canvas shows; 0 for nothing."""


@pytest.fixture
def items(page: Page) -> Page:
    """The page with its search and its map."""
    page.goto("/#/items")
    expect(page.locator(".picker a").first).to_be_visible()
    expect(page.locator(".map canvas")).to_be_visible()
    return page


@pytest.fixture
def item(items: Page) -> Page:
    """The page of the most popular item."""
    items.locator(".picker a").first.click()
    expect(items.get_by_role("heading", name="Similar items")).to_be_visible()
    return items


def painted(page: Page) -> float:
    """What the map shows, as a number."""
    return page.locator(".map canvas").evaluate(PAINTED)


def changed(page: Page, before: float) -> float:
    """Waits until the map shows something else, and gives its number."""
    page.wait_for_function(
        f"([canvas, before]) => ({PAINTED})(canvas) !== before",
        arg=[page.locator(".map canvas").element_handle(), before],
    )
    return painted(page)


def test_search_by_words(items) -> None:
    """Parts of words in any order find a title, whatever its accents and case."""
    items.get_by_label("Search items").fill("BOWL cafe")
    expect(items.locator(".picker a").first).to_contain_text("Café bowl")
    expect(items.locator(".picker a:not(:has-text('Café bowl'))")).to_have_count(0)
    items.get_by_label("Search items").press("Enter")
    expect(items.locator(".user-head h2")).to_contain_text("Café bowl")


def test_search_without_result(items) -> None:
    """Words that no title has are answered with what to do."""
    items.get_by_label("Search items").fill("zeppelin")
    expect(items.locator(".results")).to_contain_text("No item has “zeppelin”")


def test_category_narrows_the_items(items) -> None:
    """The most popular items of one category are listed."""
    items.get_by_label("Category", exact=True).select_option("Toys")
    expect(items.locator(".picker a:not(:has-text('Toys'))")).to_have_count(0)
    expect(items.locator(".picker a").first).to_be_visible()


def test_title_is_never_markup(items) -> None:
    """A title with markup is shown as it is."""
    items.get_by_label("Search items").fill("img")
    items.locator(".picker a[data-item='1']").click()
    expect(items.locator(".user-head h2")).to_have_text(MARKUP)
    expect(items.locator("main img")).to_have_count(0)


def test_item_has_its_facts(item) -> None:
    """Reach by places, popularity by months and the likest items are there, as tables too."""
    reach = item.get_by_role("region", name="Who is offered it, and at which places")
    reach.get_by_text("Show as table").click()
    listed = int(
        re.sub(
            r"\D", "", item.locator(".tile", has_text="Offered to").locator("strong").inner_text()
        )
    )
    counted = [int(text) for text in reach.locator("tbody td.number").all_inner_texts()]
    assert (sum(counted), listed > 0) == (listed, True)
    months = item.get_by_role("region", name="Popularity over time")
    months.get_by_text("Show as table").click()
    assert len(months.locator("tbody tr").all()) > 3
    expect(item.locator("table", has_text="Likeness").locator("tbody tr")).to_have_count(12)


def test_similar_item_opens(item) -> None:
    """A similar item is a link to its own page."""
    link = item.get_by_role("region", name="Similar items").get_by_role("link").first
    name = link.inner_text()
    link.click()
    expect(item.locator(".user-head h2")).to_have_text(name)


def test_map_marks_the_item(item) -> None:
    """The chosen item and those like it are marked on the map, and named in its table."""
    item.get_by_text(re.compile("Show the 13 marked items")).click()
    marked = item.locator(".map-card tbody tr")
    expect(marked).to_have_count(13)
    expect(marked.filter(has_text="like the chosen item")).to_have_count(12)


def test_user_is_drawn_into_map(items) -> None:
    """A user's history and list are drawn in, and cleared again."""
    before = painted(items)
    assert before > 0
    items.get_by_label("Draw a user in").fill("17")
    items.get_by_role("button", name="Draw", exact=True).click()
    items.get_by_text(re.compile("Show the .* marked items")).click()
    rows = items.locator(".map-card tbody tr")
    expect(rows.filter(has_text="of the list")).to_have_count(10)
    assert rows.filter(has_text="in the user's history").count() > 0
    changed(items, before)
    items.get_by_role("button", name="Clear").click()
    expect(rows).to_have_count(0)
    items.get_by_label("Draw a user in").fill("nobody at all")
    items.get_by_role("button", name="Draw", exact=True).click()
    expect(items.locator(".map-tools")).to_contain_text("Nothing is stored of this id")


def test_map_zooms_and_moves(items) -> None:
    """Buttons and keys zoom and move the map, and bring it back."""
    start = now = painted(items)
    for act in (
        items.get_by_role("button", name="Zoom in").click,
        items.get_by_role("button", name="Zoom out").click,
        lambda: items.locator(".map canvas").press("+"),
        lambda: items.locator(".map canvas").press("ArrowLeft"),
    ):
        act()
        now = changed(items, now)
    items.get_by_role("button", name="Show the whole map").click()
    assert changed(items, now) == start


def test_map_shows_one_category(items) -> None:
    """A category of the legend fades the others, and brings them back."""
    start = painted(items)
    button = items.locator(".map-legend").get_by_role("button", name="Toys")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    alone = changed(items, start)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert changed(items, alone) == start


def test_point_opens_its_item(items) -> None:
    """The pointer names the point below it, and a click opens its item."""
    canvas = items.locator(".map canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for step in range(4000):
        left, top = 24 + (step * 37) % (box["width"] - 48), 24 + (step * 23) % (box["height"] - 48)
        items.mouse.move(box["x"] + left, box["y"] + top)
        if "over" in (canvas.get_attribute("class") or ""):
            break
    name = items.locator(".map-tip strong").inner_text()
    items.mouse.down()
    items.mouse.up()
    expect(items.locator(".user-head h2")).to_have_text(name)
