"""Tests the studio's Users page in a real browser: each control, and what it changes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import ADMIN_KEY, PHONE

ROWS = ".list .ranked > li"


@pytest.fixture
def users(page: Page) -> Page:
    """The page with the heaviest user chosen."""
    page.goto("/#/users")
    expect(page.get_by_role("heading", name=re.compile("^User "))).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(10)
    return page


@pytest.fixture
def fresh(page: Page) -> Page:
    """The page of a fresh user with an empty basket."""
    page.goto("/#/users?fresh=1")
    expect(page.locator(ROWS)).to_have_count(10)
    return page


def test_answers_are_no_impressions(page: Page) -> None:
    """Each request of the page says that no user sees the answer."""
    sent: list[str | None] = []

    def note(request: Request) -> None:
        if request.url.endswith("/recommend"):
            sent.append(request.headers.get("x-shortlist-preview"))

    page.on("request", note)
    page.goto("/#/users")
    expect(page.locator(ROWS)).to_have_count(10)
    assert set(sent) == {"1"}


def titles(rows: Locator) -> list[str]:
    """The titles of ranked rows, in order."""
    return rows.locator(".name > a").all_inner_texts()


def settled(page: Page) -> None:
    """Waits until the list is no longer being asked for."""
    expect(page.locator(".list[aria-busy]")).to_have_count(0)


def adjusted(page: Page) -> Locator:
    """The rows of the adjusted list, which stands at the right of the served one."""
    expect(page.get_by_role("heading", name="Adjusted")).to_be_visible()
    settled(page)
    return page.locator(".list .pair > div").nth(1).locator(".ranked > li")


def open_controls(page: Page) -> Locator:
    """Opens the controls of the list."""
    page.get_by_text("Adjust the list").click()
    return page.locator(".controls")


def slide(control: Locator, value: float) -> None:
    """Moves a slider as a hand would: the page hears of it."""
    control.evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def sent(request: Request) -> dict[str, Any]:
    """The body of a request, as JSON; {} without one."""
    return json.loads(request.post_data or "{}")


def events(count: Locator) -> list[int]:
    """The numbers of events of the users that are listed."""
    return [int(re.match(r"[\d,]+", text)[0].replace(",", "")) for text in count.all_inner_texts()]


def test_heaviest_user_is_opened(users) -> None:
    """The page opens with the heaviest user: history, list, its source and its age."""
    counts = events(users.locator(".picker .note"))
    assert counts[0] == max(counts)
    expect(users.locator(".picker a").first).to_have_attribute("aria-current", "true")
    expect(users.locator(".list")).to_contain_text("source: batch")
    expect(users.locator(".list")).to_contain_text(re.compile(r"written \d+ \w+ ago"))
    assert len(users.locator(".events > li").all()) > 10


@pytest.mark.parametrize("pick", ["light", "new", "worst served", "best served", "random"])
def test_picks_give_users(users, pick) -> None:
    """Each pick gives users, of whom one opens."""
    before = users.locator(".picker a").first.get_attribute("data-user")
    users.locator(".choices label", has_text=re.compile(f"^{pick}$")).click()
    expect(users.locator(".picker a").first).not_to_have_attribute("data-user", before)
    link = users.locator(".picker a").nth(1)
    chosen = link.get_attribute("data-user")
    link.click()
    expect(users.get_by_role("heading", name=f"User {chosen}", exact=True)).to_be_visible()


def test_search_narrows_the_users(users) -> None:
    """The search lists the users whose ids have the text, and Enter opens the exact one."""
    search = users.get_by_label("Search users")
    search.fill("17")
    expect(users.locator(".results")).to_contain_text(re.compile(r"^\d+ of \d+ users"))
    expect(users.locator(".picker a:not([data-user*='17'])")).to_have_count(0)
    expect(users.locator(".picker a").nth(1)).to_be_visible()
    search.press("Enter")
    expect(users.get_by_role("heading", name="User 17", exact=True)).to_be_visible()


def test_unknown_user_gets_words(users) -> None:
    """An id that nobody has is answered with popular items and says so."""
    search = users.get_by_label("Search users")
    search.fill("nobody at all")
    expect(users.locator(".results")).to_contain_text("No user's id contains")
    search.press("Enter")
    expect(users.locator(".user-head")).to_contain_text("Nothing is stored of this id")
    expect(users.locator(".list")).to_contain_text("source: popular")


def test_reasons_point_at_history(users) -> None:
    """An opened reason has causes and features, and its row marks the causes in the history."""
    row = users.locator(ROWS).filter(has_text="because of").first
    row.locator(".why summary").click()
    expect(row).to_contain_text("Items of the history that speak for it")
    expect(row).to_contain_text("What moved the score most")
    row.hover()
    causes = row.locator(".why ul").first.locator("a").all_inner_texts()
    marked = users.locator(".events .cause a")
    expect(marked.first).to_be_visible()
    assert set(marked.all_inner_texts()) <= set(causes)
    assert users.locator("circle.cause").count() > 0
    users.get_by_label("Search users").hover()
    expect(marked).to_have_count(0)


def test_time_line_has_a_table(users) -> None:
    """The table behind the time line has a row for each event."""
    said = users.locator(".user-head .note").inner_text()
    n_events = re.search(r"(\d+) events", said)
    negative = re.search(r"and (\d+) of negative", said)
    users.get_by_text("Show as table").first.click()
    rows = users.locator(".as-table tbody tr")
    expect(rows).to_have_count(int(n_events[1]) + (int(negative[1]) if negative else 0))


def test_click_changes_the_list(users) -> None:
    """A click on a row shows the lists before and after it, and stores nothing."""
    row = users.locator(ROWS).nth(7)
    name = row.locator(".name > a").inner_text()
    row.get_by_role("button", name="See the list after a click").click()
    expect(users.get_by_role("heading", name="After the click")).to_be_visible()
    expect(users.locator(".chooser")).to_contain_text(f"Clicked: {name}")
    expect(users.locator(".change")).to_contain_text("item")
    assert users.locator(".pair .move:not(.same)").count() > 0
    users.reload()
    expect(users.locator(".list")).to_contain_text("source: batch")


def test_returns_without_type_stay_returns(page: Page) -> None:
    """A click is asked with the stored returns as negative, also those that name no type.

    Both lists have the reasons of their own history.
    """

    def untyped(route: Route) -> None:
        answer = route.fetch()
        user = answer.json()
        for event in user["history"]:
            if event["negative"]:
                event |= {"type": None, "weight": None}
        route.fulfill(response=answer, json=user)

    asked: list[dict] = []
    page.route("**/studio/api/user?*", untyped)
    page.on("request", lambda sent: asked.append(sent.post_data_json) if sent.post_data else None)
    page.goto("/#/users?id=213")
    page.locator(ROWS).nth(7).get_by_role("button", name="See the list after a click").click()
    expect(page.get_by_role("heading", name="After the click")).to_be_visible()
    explained = [body.get("history") for body in asked[-4:] if body.get("explain")]
    assert sorted(map(type, explained), key=str) == [type(None), list]
    (history,) = filter(None, explained)
    negative = [event for event in history if event.get("weight") == -1]
    assert len(negative) == 1
    assert "event_type" not in negative[0]


def test_releases_compare_on_a_phone(new_page) -> None:
    """The chooser of the other release fits the screen."""
    page = new_page(PHONE)
    page.goto("/#/users?id=213")
    page.get_by_text("Beside another release").click()
    expect(page.get_by_label("Other release")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_other_kind_of_event(users) -> None:
    """A return of an item takes it out of the list; another item is searched for by its title."""
    users.get_by_text("After a click").click()
    expect(users.locator(".list")).to_contain_text("Choose an item that the user clicks")
    users.get_by_label("Item that is clicked").fill("gloves")
    users.get_by_role("button", name="Click ", exact=False).first.click()
    right = users.locator(".pair > div").nth(1)
    expect(right.locator(".ranked > li")).to_have_count(10)
    name = users.locator(".chooser a").inner_text()
    users.get_by_label("Kind of event").select_option("return")
    settled(users)
    expect(right.locator(".name > a", has_text=re.compile(f"^{re.escape(name)}$"))).to_have_count(0)


def test_cached_beside_live(users) -> None:
    """The stored list stands beside the live answer, and the batch's parity makes them alike."""
    users.get_by_text("Cached beside live").click()
    expect(users.get_by_role("heading", name="Live", exact=True)).to_be_visible()
    expect(users.locator(".pair > div").nth(0)).to_contain_text(
        "the list that the last batch wrote"
    )
    expect(users.locator(".pair > div").nth(1)).to_contain_text("computed at this moment")
    expect(users.locator(".change")).to_have_count(1)


def test_beside_another_release(users, shop_world) -> None:
    """The serving release stands beside the one before, with what moved."""
    users.get_by_text("Beside another release").click()
    expect(users.get_by_label("Other release", exact=True)).to_have_value(shop_world.earlier)
    expect(users.locator(".pair .ranked > li")).to_have_count(20)
    assert users.locator(".pair .move:not(.same)").count() > 0


def test_length_of_the_list(users) -> None:
    """The first slider sets how many items are shown."""
    slide(open_controls(users).get_by_label("Length of the list"), 3)
    expect(users.locator(ROWS)).to_have_count(3)


def test_diversity_mixes_the_list(users) -> None:
    """Full diversity gives another list, which stands beside the served one."""
    served = titles(users.locator(ROWS))
    slide(open_controls(users).get_by_label("Diversity"), 1)
    assert titles(adjusted(users)) != served
    expect(users.locator(".controls output").nth(1)).to_have_text("1.00")


def test_categories_filter_the_list(users) -> None:
    """A chosen category is the only one that is left; the button takes all filters back."""
    controls = open_controls(users)
    controls.get_by_text("Categories").click()
    controls.get_by_label("Toys").check()
    rows = adjusted(users)
    expect(rows.filter(has_text="Toys")).to_have_count(rows.count())
    controls.get_by_role("button", name="Reset all").click()
    expect(users.locator(ROWS)).to_have_count(10)
    expect(users.get_by_role("heading", name="Adjusted")).to_have_count(0)


def test_attributes_filter_the_list(users) -> None:
    """A brand, a highest price and the stock narrow the list together."""
    wanted = {"brand": ["Kestrel"], "price": {"lte": 30}, "in_stock": True}
    controls = open_controls(users)
    with users.expect_request(
        lambda request: sent(request).get("where") == wanted and "explain" not in sent(request)
    ):
        controls.get_by_text(re.compile("^brand")).click()
        controls.get_by_label("Kestrel").check()
        controls.get_by_label("price, to").fill("30")
        controls.locator("fieldset", has_text="in_stock").get_by_text("yes").click()
    rows = adjusted(users)
    expect(rows.filter(has_text="Kestrel")).to_have_count(rows.count())


def test_repeats_can_be_refused(users) -> None:
    """Without repeats nothing is offered that the user had."""
    assert users.locator(ROWS).filter(has_text="had before").count() > 0
    open_controls(users).locator("fieldset", has_text="Items that the user had").get_by_text(
        "never"
    ).click()
    expect(adjusted(users).filter(has_text="had before")).to_have_count(0)


def test_basket_changes_the_list(fresh) -> None:
    """Each of three titles in the basket changes the list, as does taking one out."""
    expect(fresh.locator(".list")).to_contain_text("source: popular")
    seen = [titles(fresh.locator(ROWS))]
    for place, word in enumerate(("hose", "puzzle", "café"), 1):
        fresh.get_by_label("Search titles").fill(word)
        fresh.locator(".found li", has_text=word).get_by_role("button").first.click()
        expect(fresh.locator(".basket button")).to_have_count(place)
        expect(fresh.locator(".list")).to_contain_text("source: session")
        expect(fresh.locator(".steps tbody tr td:first-child").last).to_contain_text("+")
        settled(fresh)
        seen.append(titles(fresh.locator(ROWS)))
    assert len({tuple(each) for each in seen}) == 4
    expect(fresh.locator(".change")).to_contain_text("new")
    fresh.get_by_role("button", name=re.compile("^Take ")).first.click()
    expect(fresh.locator(".basket button")).to_have_count(2)
    fresh.get_by_role("button", name="Empty the basket").click()
    expect(fresh.locator(".list")).to_contain_text("source: popular")


def test_recommended_item_joins_basket(fresh) -> None:
    """A row's button puts its item into the basket; the kind of event can be changed there."""
    fresh.locator(ROWS).nth(2).get_by_role("button").click()
    expect(fresh.locator(".basket select")).to_have_value("purchase")
    expect(fresh.locator(".list")).to_contain_text("source: session")
    with fresh.expect_request("**/recommend") as asked:
        fresh.locator(".basket select").select_option("view")
    body = sent(asked.value)
    assert [event["event_type"] for event in body["history"]] == ["view"]
    assert body["user_id"] is None


def test_best_served_user_was_hit(users) -> None:
    """The hold-out of the best served user names what was hidden, and marks the hit."""
    users.locator(".choices label", has_text="best served").click()
    first = users.locator(".picker li").first
    expect(first).to_contain_text("hit")
    first.locator("a").click()
    held_out = users.get_by_role("region", name="The hold-out")
    expect(held_out).to_contain_text("hidden")
    expect(held_out.locator(".tag.good").first).to_be_visible()


def test_user_of_odd_id_between_runs(users) -> None:
    """A user of an awkward id who came after the batch is shown, and answered live."""
    odd = "a/b?c#d&e %20<i>"
    event = {"event_id": "odd", "user_id": odd, "item_id": "7", "timestamp": 1_700_000_000}
    body = {"events": [event | {"event_type": "purchase"}]}
    answer = users.request.post("/v1/events", data=body)
    assert answer.json()["rejected"] == []
    users.get_by_label("Search users").fill(odd)
    users.get_by_label("Search users").press("Enter")
    expect(users.get_by_role("heading", name=f"User {odd}", exact=True)).to_be_visible()
    expect(users.locator(".user-head")).to_contain_text("1 event")
    expect(users.locator(".list")).to_contain_text("source: live")


def test_moved_by_rule(users) -> None:
    """An item that a business rule put into its place says so by the rule's name."""
    key = {"x-shortlist-admin-key": ADMIN_KEY}
    rules = {"pin": [{"item": "5", "place": 3, "name": "Friday offer"}]}
    before = users.request.get("/v1/admin/rules", headers=key).json()
    body = {"version": before["version"], "rules": rules}
    put = users.request.put("/v1/admin/rules", headers=key, data=body).json()
    try:
        users.reload()
        row = users.locator(ROWS).nth(2)
        expect(row).to_contain_text("moved by rule: Friday offer")
        expect(row.locator(".name > a")).to_have_attribute("href", "#/items?id=5")
    finally:
        body = {"version": put["version"], "rules": {}}
        assert users.request.put("/v1/admin/rules", headers=key, data=body).ok


def test_way_back(users) -> None:
    """Back from the first user leaves the page rather than opens it again."""
    users.locator("#pages a", has_text="Items").click()
    expect(users).to_have_title("Items · Shortlist studio")
    users.go_back()
    expect(users.get_by_role("heading", name=re.compile("^User "))).to_be_visible()
    users.go_back()
    assert users.url == "about:blank"
