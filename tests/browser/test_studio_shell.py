"""Tests what all pages of the studio share, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import ADMIN_KEY, DESKTOP, PHONE

PAGES = ("users", "items", "data", "quality", "operations")

FAINT = """() => {
  const seen = [];
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) =>
    [r, g, b].map((value, at) => a * value + (1 - a) * below[at]);
  const light = rgb => {
    const [r, g, b] = rgb.map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    const own = parts(getComputedStyle(element).backgroundColor);
    if ((own[3] ?? 1) === 1) return own;
    return over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]);
  };
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3)
      .map(node => node.textContent.trim()).join("");
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest("svg, :disabled, .unseen, noscript, option")) continue;
    const below = ground(element);
    const [one, other] = [light(over(parts(getComputedStyle(element).color), below)), light(below)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) seen.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(seen)];
}"""
"""Texts whose colour has less than 4.5 times the contrast with what is behind them."""

UNNAMED = """() => [...document.querySelectorAll("input, select, button, canvas")]
  .filter(element => element.checkVisibility())
  .filter(element => !(element.labels?.length || element.ariaLabel || element.textContent.trim()
    || element.getAttribute("aria-labelledby")))
  .map(element => element.outerHTML.slice(0, 120))"""
"""Controls without a name."""


def opened(page: Page, name: str) -> Page:
    """The page of this name once it has loaded."""
    page.goto(f"/#/{name}")
    expect(page.locator(f"#pages a[data-page={name}]")).to_have_attribute("aria-current", "page")
    page.wait_for_load_state("networkidle")
    expect(page.locator("main .loading")).to_have_count(0)
    return page


@pytest.mark.parametrize("name", PAGES)
def test_texts_have_contrast(page, name) -> None:
    """In both themes each text has at least 4.5 times the contrast with its ground."""
    opened(page, name)
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate(FAINT) == []
    assert len(grounds) == 2


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [PHONE, 768, DESKTOP])
def test_nothing_is_clipped(new_page, name, width) -> None:
    """No page is wider than its window, and each shows no error."""
    page = opened(new_page(width), name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator(".state.failed")).to_have_count(0)


@pytest.mark.parametrize("name", PAGES)
def test_controls_have_names(page, name) -> None:
    """Each control says to a screen reader what it is."""
    assert opened(page, name).evaluate(UNNAMED) == []


def test_navigation_by_keyboard(page) -> None:
    """The skip link is first; the pages follow, and Enter opens one."""
    opened(page, "users")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the page")
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Items")
    page.keyboard.press("Enter")
    expect(page).to_have_title("Items · Shortlist studio")
    expect(page.locator("#announcer")).to_contain_text(re.compile("page|found"))


def test_theme_is_kept(page) -> None:
    """The button changes the theme, and the choice outlasts a reload."""
    opened(page, "users")
    page.get_by_role("button", name="Change to the dark theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.get_by_role("button", name="Change to the light theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_release_is_above_each_page(page, shop_world) -> None:
    """The serving release and its tiles stand above the pages, and can be closed."""
    opened(page, "users")
    overview = page.get_by_role("region", name="The serving release")
    expect(overview).to_contain_text(shop_world.serving)
    expect(overview.locator(".tile").first).to_be_visible()
    overview.locator("summary").click()
    expect(overview.locator(".tile").first).to_be_hidden()


def test_failed_request_can_be_repeated(page) -> None:
    """Where the server does not answer, words say what to do, and a button tries again."""

    def refuse(route: Route) -> None:
        route.abort()

    page.route("**/studio/api/users*", refuse)
    page.goto("/#/users")
    failed = page.locator("aside .state.failed")
    expect(failed).to_contain_text("The studio's server does not answer")
    page.unroute("**/studio/api/users*", refuse)
    failed.get_by_role("button", name="Try again").click()
    expect(page.locator(".picker a").first).to_be_visible()


def test_unknown_address_shows_users(page) -> None:
    """An address that no page has shows the users."""
    page.goto("/#/no-such-page")
    expect(page).to_have_title("Users · Shortlist studio")


def test_guarded_studio_asks_for_key(page) -> None:
    """A studio that needs the admin key asks for it, and shows all once it has it."""

    def guard(route: Route) -> None:
        if route.request.headers.get("x-shortlist-admin-key") == ADMIN_KEY:
            route.continue_()
            return
        refusal = {"error": {"code": "admin_key_needed", "message": "send the admin key"}}
        route.fulfill(status=403, json=refusal)

    page.route("**/studio/api/**", guard)
    page.goto("/#/users")
    page.get_by_label("Admin key").first.fill(ADMIN_KEY)
    page.get_by_role("button", name="Use it").first.click()
    expect(page.locator(".picker a").first).to_be_visible()
    expect(page.locator("#overview .tile").first).to_be_visible()
    expect(page.get_by_label("Admin key")).to_have_count(0)


def test_api_that_checks_callers(page) -> None:
    """Where the API answers 401, its key is asked for, and sent from then on."""

    def check(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "a-key":
            route.continue_()
            return
        error = {"type": "authentication_error", "code": "unauthorized", "message": "send a key"}
        route.fulfill(status=401, json={"error": error})

    page.route("**/recommend", check)
    page.goto("/#/users")
    page.get_by_label("API key").fill("a-key")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator(".list .ranked > li")).to_have_count(10)


def test_first_steps_without_release(page) -> None:
    """Where nothing serves yet, the page says which commands make a release, and looks again."""

    def refuse(route: Route) -> None:
        error = {"code": "no_release", "message": "no release serves yet"}
        route.fulfill(status=404, json={"error": error})

    page.route("**/studio/api/overview", refuse)
    page.goto("/#/items")
    expect(page.get_by_role("heading", name="No release serves yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text("shortlist batch run --data data.toml")
    page.unroute("**/studio/api/overview", refuse)
    page.get_by_role("button", name="Look again").click()
    expect(page.locator(".picker a").first).to_be_visible()


@pytest.mark.parametrize("width", [PHONE, 768])
def test_explanations_stay_in_window(new_page, width) -> None:
    """An explanation that is shown lies within the window, wherever its name stands."""
    page = opened(new_page(width), "data")
    for place in range(page.locator(".term:visible").count()):
        page.locator(".term:visible").nth(place).focus()
        shown = page.get_by_role("tooltip").filter(visible=True).first.bounding_box()
        assert (shown["x"] >= 0, shown["x"] + shown["width"] <= width) == (True, True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
