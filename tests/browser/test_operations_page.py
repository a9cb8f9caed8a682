"""Tests the studio's Operations page in a real browser, each change of what is served too."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import ADMIN_KEY

ADMIN = {"X-Shortlist-Admin-Key": ADMIN_KEY}


@pytest.fixture
def operations(page: Page, shop_world) -> Page:
    """The page without a key; whatever a test changes is put back."""
    page.goto("/#/operations")
    expect(section(page, "Releases").locator("tbody tr")).to_have_count(2)
    yield page
    api = page.request
    api.post(f"/v1/releases/{shop_world.serving}/promote", headers=ADMIN)
    api.post(f"/v1/releases/{shop_world.earlier}/canary", headers=ADMIN, data={"percent": 0})
    for item in api.get("/studio/api/operations").json()["blocked"]:
        api.post("/v1/item/unblock", headers=ADMIN, data={"item_id": item["id"]})
    stored = api.get("/v1/admin/rules", headers=ADMIN).json()
    body = {"version": stored["version"], "rules": {}}
    api.put("/v1/admin/rules", headers=ADMIN, data=body)


@pytest.fixture
def operator(operations: Page) -> Page:
    """The page with the admin key."""
    give_key(operations, ADMIN_KEY)
    expect(operations.get_by_label("Rules as JSON")).to_be_visible()
    return operations


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def give_key(page: Page, key: str) -> None:
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Use the key").click()


def answer(page: Page, button: str) -> None:
    """Presses a button of the open dialog, which closes."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_have_count(0)


def tile(page: Page, name: str) -> Locator:
    return section(page, "State").locator(".tile").filter(has=page.locator("dt", has_text=name))


def release(page: Page, version: str) -> Locator:
    return section(page, "Releases").locator("tbody tr").filter(has_text=version)


def served(page: Page) -> dict[str, object]:
    """What the API says of the pointer."""
    found = page.request.get("/v1/releases", headers=ADMIN).json()
    return {name: found[name] for name in ("current", "previous", "canary")}


def test_state_is_told(operations, shop_world) -> None:
    """What serves, the lists, their age, Redis's memory and what a user takes of it."""
    expect(tile(operations, "Serving")).to_contain_text(shop_world.serving)
    expect(tile(operations, "Serving")).to_contain_text(f"before: {shop_world.earlier}")
    expect(tile(operations, "Lists written").locator("strong")).to_have_text("240")
    expect(tile(operations, "Lists written")).to_contain_text("ago")
    expect(tile(operations, "Redis memory")).to_contain_text("MiB")
    expect(tile(operations, "Memory a user")).to_contain_text("240 users")


def test_answers_are_measured(operations) -> None:
    """After an answer its latency is shown, and nothing fell back."""
    operations.request.post("/recommend", data={"user_id": "1", "k": 5})
    section(operations, "State").get_by_role("button", name="Refresh").click()
    answers = section(operations, "Answers")
    answers.get_by_text("Show as table").click()
    rows = answers.locator("tbody tr").filter(has_text="ecommend")
    expect(rows.first.locator("td").nth(2)).to_contain_text("ms")
    expect(answers).to_contain_text("No answer fell back")


def test_refreshes_by_the_clock(operations) -> None:
    """Ticked, the page asks again by itself every ten seconds; after another page it stops."""
    asked = []
    operations.clock.install()
    operations.reload()
    expect(section(operations, "Releases").locator("tbody tr")).to_have_count(2)
    operations.on("request", lambda request: asked.append(request.url))
    operations.get_by_label("Every 10 seconds").check()
    with operations.expect_response("**/studio/api/operations"):
        operations.clock.fast_forward(10_000)
    operations.goto("/#/data")
    expect(operations.get_by_role("heading", name="Data", exact=True)).to_be_visible()
    asked.clear()
    operations.clock.fast_forward(60_000)
    operations.evaluate("0")
    assert [url for url in asked if url.endswith("/operations")] == []


def test_a_wrong_key_is_refused(operations) -> None:
    """The refusal has the remedy, and nothing else opens."""
    give_key(operations, "no-such-key")
    expect(section(operations, "Changes")).to_contain_text("send the right one")
    expect(section(operations, "Business rules")).to_contain_text("shown with the admin key")


def test_no_key_changes_nothing(operations, shop_world) -> None:
    """A button asks for the key first, and puts the focus where it goes."""
    before = served(operations)
    release(operations, shop_world.earlier).get_by_role("button", name="Promote").click()
    expect(operations.get_by_role("dialog")).to_contain_text("The admin key is missing")
    answer(operations, "Understood")
    assert served(operations) == before


def test_a_key_is_forgotten(operator) -> None:
    """Forgetting closes the rules, and a reload forgets too."""
    operator.get_by_role("button", name="Forget the key").click()
    expect(section(operator, "Business rules")).to_contain_text("shown with the admin key")
    give_key(operator, ADMIN_KEY)
    expect(operator.get_by_label("Rules as JSON")).to_be_visible()
    operator.reload()
    expect(section(operator, "Business rules")).to_contain_text("shown with the admin key")
    assert ADMIN_KEY not in operator.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )


def test_promote_and_roll_back(operator, shop_world) -> None:
    """Cancelled, nothing changes; confirmed, the other release serves, and a rollback goes back."""
    earlier, serving = shop_world.earlier, shop_world.serving
    button = release(operator, earlier).get_by_role("button", name="Promote")
    button.click()
    answer(operator, "Cancel")
    assert served(operator)["current"] == serving
    button.click()
    answer(operator, "Promote")
    expect(tile(operator, "Serving").locator("strong")).to_have_text(earlier)
    assert served(operator) == {"current": earlier, "previous": serving, "canary": None}
    operator.get_by_role("button", name="Roll back").click()
    expect(operator.get_by_role("dialog")).to_contain_text(serving)
    answer(operator, "Roll back")
    expect(tile(operator, "Serving").locator("strong")).to_have_text(serving)
    assert served(operator)["current"] == serving
    expect(operator.locator("#overview")).to_contain_text(serving)


def test_a_canary_begins_and_ends(operator, shop_world) -> None:
    """A share of the users is served from the other release until the canary is ended."""
    row = release(operator, shop_world.earlier)
    row.get_by_label(f"Percent of the users for {shop_world.earlier}").fill("12.5")
    row.get_by_role("button", name="Canary").click()
    expect(operator.get_by_role("dialog")).to_contain_text("12.5% of the users")
    answer(operator, "Start")
    expect(tile(operator, "Canary").locator("strong")).to_have_text("12.5% of the users")
    assert served(operator)["canary"] == {"version": shop_world.earlier, "percent": 12.5}
    expect(row).to_contain_text("canary")
    operator.get_by_role("button", name="End the canary").click()
    answer(operator, "End it")
    expect(tile(operator, "Canary").locator("strong")).to_have_text("none")
    assert served(operator)["canary"] is None


def test_block_and_unblock(operator) -> None:
    """A found item is blocked, leaves the list, and comes back."""
    first = operator.request.get("/v1/popular?k=1").json()["items"][0]
    blocked = section(operator, "Blocked items")
    blocked.get_by_label("Find an item to block").fill(first["title"])
    blocked.get_by_role("button", name=f"Block {first['title']}", exact=True).click()
    answer(operator, "Block")
    expect(blocked.locator("tbody tr")).to_contain_text(first["item_id"])
    popular = operator.request.get("/v1/popular?k=1").json()["items"][0]
    assert popular["item_id"] != first["item_id"]
    blocked.get_by_role("button", name="Unblock").click()
    answer(operator, "Unblock")
    expect(blocked).to_contain_text("No item is blocked.")
    popular = operator.request.get("/v1/popular?k=1").json()["items"][0]
    assert popular["item_id"] == first["item_id"]


def test_a_search_finds_nothing(operator) -> None:
    """An unknown title says so."""
    blocked = section(operator, "Blocked items")
    blocked.get_by_label("Find an item to block").fill("zzzz-nothing")
    expect(blocked).to_contain_text("No such item.")


def test_rules_are_replaced(operator) -> None:
    """The dialog says what is added; what is saved is served, and its author named."""
    rules = section(operator, "Business rules")
    text = json.dumps({"limit": [{"name": "brands", "attribute": "categories", "at_most": 2}]})
    operator.get_by_label("Rules as JSON").fill(text)
    operator.get_by_role("button", name="Save the rules").click()
    dialog = operator.get_by_role("dialog")
    expect(dialog).to_contain_text("adds")
    expect(dialog).to_contain_text('"at_most":2')
    answer(operator, "Save")
    expect(rules).to_contain_text("put by an operator")
    # Once the page shows it, it is saved: earlier rules were put by an operator as well.
    expect(tile(operator, "Business rules").locator("strong")).to_have_text("1")
    stored = operator.request.get("/v1/admin/rules", headers=ADMIN).json()
    assert stored["rules"]["limit"][0]["name"] == "brands"


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"pin": [', "This is not JSON"), ('{"pin": [{"place": 3}]}', "item")],
)
def test_wrong_rules_stay_in_the_editor(operator, text, words) -> None:
    """What is refused is said above the button, and the text stays to be corrected."""
    editor = operator.get_by_label("Rules as JSON")
    editor.fill(text)
    operator.get_by_role("button", name="Save the rules").click()
    if "JSON" not in words:
        answer(operator, "Save")
    expect(section(operator, "Business rules").get_by_role("alert")).to_contain_text(words)
    expect(editor).to_have_value(text)


def test_rules_that_changed_meanwhile(operator) -> None:
    """A save after somebody else's is refused; reading again shows theirs."""
    stored = operator.request.get("/v1/admin/rules", headers=ADMIN).json()
    theirs = {"bury": [{"name": "theirs", "category": "Toys"}]}
    body = {"version": stored["version"], "rules": theirs}
    operator.request.put("/v1/admin/rules", headers=ADMIN, data=body)
    operator.get_by_label("Rules as JSON").fill("{}")
    operator.get_by_role("button", name="Save the rules").click()
    answer(operator, "Save")
    rules = section(operator, "Business rules")
    expect(rules.get_by_role("alert")).to_contain_text("is replaced")
    operator.get_by_role("button", name="Read them again").click()
    expect(operator.get_by_label("Rules as JSON")).to_have_value(re.compile("theirs"))


def test_a_server_that_is_away(operations) -> None:
    """Each part says so with the remedy, and trying again brings it back."""

    def away(route: Route) -> None:
        route.abort()

    operations.route("**/studio/api/operations", away)
    refresh = section(operations, "State").get_by_role("button", name="Refresh")
    refresh.click()
    expect(section(operations, "State").get_by_role("alert")).to_contain_text("still runs")
    operations.unroute("**/studio/api/operations")
    section(operations, "State").get_by_role("button", name="Try again").click()
    expect(tile(operations, "Serving")).to_be_visible()
