"""Asks the studio's endpoints about a real release.

The studio stands beside the API as `shortlist serve` puts it there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from shortlist.batch import publish
from shortlist.batch.studio import facts, reach, serving, users
from shortlist.batch.studio.facts import digest_of
from shortlist.batch.studio.forward import forwarder
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.executors import Seats
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.api_keys import parse_api_keys
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.release_files import build_manifest
from tests.exposition import parse
from tests.servers import in_thread

NOW = 2_000_000_000.0
KEY = "an-admin-key-of-the-tests"


def studio_of(settings: Settings, store, host: str = "127.0.0.1", **headers: str) -> TestClient:
    """A client of a server of API and studio, at the address that a browser would use."""
    api = create_app(settings, store, LivePath(settings))
    app = serving.beside(settings, host)(api)
    return TestClient(app, "http://127.0.0.1:8000", headers=headers)


@pytest.fixture
def studio(own) -> TestClient:
    """The studio of the published release."""
    return studio_of(*own)


@pytest.fixture
def ask(studio) -> Callable[..., dict[str, Any]]:
    """Gives an endpoint's JSON."""

    def asked(name: str, **query: object) -> dict[str, Any]:
        answer = studio.get(f"/studio/api/{name}", params=query)
        assert answer.status_code == 200, answer.text
        # NaN and infinities, which Python would take, are no JSON.
        return json.loads(answer.text, parse_constant=pytest.fail)

    return asked


def held_out_of(published) -> dict[str, list[str]]:
    """User -> the items that the report held out, in the facts' order."""
    known = facts.unpack((published.work / "bundle" / facts.FILE).read_bytes())
    catalogue = published.dataset.catalogue
    of = {known.digest(pick): known.held_out(pick) for pick in range(known.n_picks)}
    return {
        user: [catalogue.ids[row] for row, _ in of[digest_of(user)]]
        for user in published.dataset.user_ids
        if digest_of(user) in of
    }


def test_the_overview(ask, published) -> None:
    """What serves, how good and how fresh it is, and what can be filtered by."""
    seen = ask("overview")
    figure = json.loads((published.work / "metrics.json").read_text())["methods"]["two_stage"]
    assert (seen["version"], seen["previous"]) == (published.version, None)
    assert seen["n_items"] == len(published.dataset.catalogue)
    assert seen["headline"]["value"] == figure["ndcg@10"]["value"]
    assert seen["headline"]["n_users"] == figure["n_users"]
    labels = [tile["label"] for tile in seen["tiles"]]
    assert (labels[0], labels[-1]) == ("Is it good?", "How old are the lists?")
    assert {tile["state"] for tile in seen["tiles"]} <= {"good", "warn", "bad", "neutral"}
    assert (seen["has_studio_facts"], seen["has_report"]) == (True, True)
    assert seen["api"] == {"url": None, "forwarded": False}
    assert set(seen["categories"]) == {
        name for names in published.dataset.catalogue.categories for name in names
    }


def test_users_of_each_pick(ask, published) -> None:
    """The heaviest first, the lightest first, the newest, the best and the worst served."""
    events = published.dataset.events
    counts = np.bincount(events.user, minlength=events.n_users)
    heavy, light = (ask("users", pick=pick, limit=5)["users"] for pick in ("heavy", "light"))
    assert [user["n_events"] for user in heavy] == sorted(counts.tolist(), reverse=True)[:5]
    assert [user["n_events"] for user in light] == sorted(counts[counts > 0].tolist())[:5]
    new = ask("users", pick="new", limit=5)["users"]
    firsts = [int(events.time[events.user == user].min()) for user in np.unique(events.user)]
    assert [user["first"] for user in new] == sorted(firsts, reverse=True)[:5]
    worst, best = (ask("users", pick=pick, limit=150)["users"] for pick in ("worst", "best"))
    figures = [user["ndcg"] for user in worst]
    assert figures == sorted(figures)
    assert [user["ndcg"] for user in best] == figures[::-1]
    report = json.loads((published.work / "metrics.json").read_text())["methods"]["two_stage"]
    assert np.mean(figures) == pytest.approx(report["ndcg@10"]["value"], abs=1e-6)
    assert np.mean([u["hit"] for u in worst]) == pytest.approx(report["hit_rate@10"]["value"])


def test_users_are_found_by_id(ask, published) -> None:
    """An id, and ids that hold the text; what nobody has finds nobody."""
    user = published.dataset.user_ids[3]
    assert ask("users", q=user)["users"][0]["id"] == user
    assert ask("users", q="nobody has this") == {"users": [], "total": 0, "sampled": False}


def test_one_user(ask, published) -> None:
    """History with titles, what was held out and where it was listed, the stored list."""
    held = held_out_of(published)
    user = next(user for user, items in held.items() if items)
    seen = ask("user", id=user)
    events, catalogue = published.dataset.events, published.dataset.catalogue
    row = published.dataset.user_ids.index(user)
    own = events.item[events.user == row].tolist()
    assert [each["item_id"] for each in seen["history"]] == [catalogue.ids[i] for i in own[-100:]]
    assert seen["history"][0]["title"] == catalogue.titles[own[-100:][0]]
    assert [each["item_id"] for each in seen["held_out"]] == held[user]
    listed = [each["item_id"] for each in seen["holdout_list"]]
    for each in seen["held_out"]:
        assert each["hit"] is (each["item_id"] in listed)
        assert not each["hit"] or listed[each["rank"] - 1] == each["item_id"]
    assert seen["list"]["version"] == published.version
    assert (seen["known"], seen["newer_events"]) == (True, 0)


def click(studio: TestClient, user: str, item: str) -> None:
    """Sends an event of now."""
    event = {"event_id": "e1", "user_id": user, "item_id": item, "timestamp": int(time.time())}
    answer = studio.post("/v1/events", json={"events": [event]})
    assert answer.json()["accepted"] == 1, answer.text


def test_an_event_is_newer_than_the_list(own, studio, ask, published) -> None:
    """A click that came since the list was made stands in the history, and is counted."""
    user, item = published.dataset.user_ids[0], published.dataset.catalogue.ids[0]
    click(studio, user, item)
    seen = ask("user", id=user)
    assert seen["newer_events"] == 1
    assert item in [each["item_id"] for each in seen["history"]]


def test_a_deleted_user_is_nowhere(own, studio, ask, published) -> None:
    """Not by a search, not by a pick, not by the id, although the ids were read before."""
    held = held_out_of(published)
    user = next(user for user, items in held.items() if items)
    everyone = ask("users", pick="worst", limit=500)["users"]  # which reads the ids
    assert user in [each["id"] for each in everyone]
    AdminStore(own[1]).delete_user(user, int(NOW))
    for pick in users.PICKS:
        assert user not in [each["id"] for each in ask("users", pick=pick, limit=500)["users"]]
    assert user not in [each["id"] for each in ask("users", q=user)["users"]]
    seen = ask("user", id=user)
    assert (seen["known"], seen["history"], seen["held_out"], seen["list"]) == (False, [], [], None)


def test_a_record_that_outlived_its_deletion(own, ask, published) -> None:
    """A batch that could not know has written it again: it is not shown all the same."""
    _, store = own
    user = published.dataset.user_ids[0]
    record = store.redis.hgetall(store.keys.user(user))
    AdminStore(store).delete_user(user, int(NOW))
    store.redis.hset(store.keys.user(user), mapping=record)
    assert user not in [each["id"] for each in ask("users", q=user)["users"]]
    assert ask("user", id=user)["known"] is False


def test_no_file_of_a_release_names_users(published) -> None:
    """Facts outlive a user's deletion, so they have no id."""
    known = facts.unpack((published.work / "bundle" / facts.FILE).read_bytes())
    assert not set(_texts(known.plain)) & set(published.dataset.user_ids)
    digests = {known.digest(pick) for pick in range(known.n_picks)}
    with_events = np.unique(published.dataset.events.user).tolist()
    assert digests == {digest_of(published.dataset.user_ids[user]) for user in with_events}


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain values, also names."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def test_a_new_user_is_found(own, studio, ask, published) -> None:
    """Whoever came over HTTP since the ids were read, by their whole id."""
    ask("users")
    click(studio, "newcomer", published.dataset.catalogue.ids[0])
    [found] = ask("users", q="newcomer")["users"]
    assert (found["n_events"], found["ndcg"], found["hit"]) == (1, None, None)


def test_items(ask, published) -> None:
    """By popularity, by words of the title, by category."""
    catalogue, events = published.dataset.catalogue, published.dataset.events
    counts = np.bincount(events.item, minlength=len(catalogue))
    seen = ask("items", limit=3)
    assert seen["total"] == len(catalogue)
    assert [item["n_events"] for item in seen["items"]] == sorted(counts.tolist())[::-1][:3]
    assert ask("items", q=catalogue.titles[5])["items"][0]["id"] == catalogue.ids[5]
    category = catalogue.categories[0][0]
    found = ask("items", category=category, limit=500)
    assert {item["id"] for item in found["items"]} == {
        item
        for item, names in zip(catalogue.ids, catalogue.categories, strict=True)
        if category in names
    }


def test_one_item(own, ask, published) -> None:
    """Its events by month, the lists that have it, its place, and what keeps it out."""
    _, store = own
    catalogue, events = published.dataset.catalogue, published.dataset.events
    item = catalogue.ids[0]
    seen = ask("item", id=item)
    n_events = int((events.item == 0).sum())
    assert seen["n_events"] == n_events == sum(month["n"] for month in seen["months"])
    counted = np.load(published.work / "bundle" / reach.FILE)
    assert seen["reach"]["lists"] == counted[:, 0].sum()
    assert [band["n"] for band in seen["reach"]["by_rank"]] == counted[:, 0].tolist()
    assert (len(seen["xy"]), seen["blocked"], seen["rules"]) == (2, False, [])
    admin = AdminStore(store)
    admin.block(item)
    rules = {
        "availability": [{"name": "sold out", "item": item, "available": False}],
        "pin": [{"name": "gift", "item": item, "place": 3}],
        "boost": [{"name": "up", "item": item, "places": 2}],
    }
    admin.write_rules(rules, "a test", int(NOW))
    seen = ask("item", id=item)
    assert seen["blocked"] is True
    assert seen["rules"] == [
        "Rule 'sold out' keeps it out of every list now.",
        "Rule 'gift' pins it to place 3.",
        "Rule 'up' moves it up by 2 places at most.",
    ]


def test_reach_counts_every_list(published) -> None:
    """Each list has its items once."""
    counted = np.load(published.work / "bundle" / reach.FILE)
    n_lists = published.dataset.events.n_users
    assert counted[0].sum() == 10 * n_lists
    assert counted.sum() == published.settings.list_length * n_lists


def test_the_map(ask, published) -> None:
    """Every item has a place; of a category, only its own."""
    seen = ask("map", limit=20_000)
    assert len(seen["points"]) == seen["total"] == len(published.dataset.catalogue)
    assert 0 < seen["explained"] <= 1
    category = published.dataset.catalogue.categories[0][0]
    assert 0 < ask("map", category=category)["total"] < seen["total"]


def test_asked_items_are_on_the_map(ask) -> None:
    """Items that are asked for follow the most popular ones; unknown ids are passed over."""
    every = [point["id"] for point in ask("map", limit=20_000)["points"]]
    asked = ask("map", limit=2, also=[every[-1], "no-such-item", every[0]])
    assert [point["id"] for point in asked["points"]] == [*every[:2], every[-1]]


def test_data(ask, published) -> None:
    """Counts agree with the data."""
    seen, events = ask("data"), published.dataset.events
    assert sum(row["n"] for row in seen["days"]) == len(events)
    assert sum(row["users"] for row in seen["activity"]) == len(np.unique(events.user))
    assert seen["tail"][-1] == {"share_items": 1.0, "share_events": 1.0}
    assert seen["types"] == [{"name": "event", "n": len(events), "weight": 1.0, "role": "target"}]
    assert (seen["rejects"], seen["rejected_share"]) == ([], 0.0)
    assert seen["repeats"]["setting"] == "never"
    assert seen["drift"] == {"flagged": False, "note": "no release was serving", "features": []}


def test_quality(ask, published) -> None:
    """The report as it was written, and a sentence for each name in it."""
    seen = ask("quality")
    report = json.loads((published.work / "metrics.json").read_text())
    assert seen["report"] == report
    assert set(report["methods"]) <= set(seen["methods"])
    assert set(report["importances"]) <= set(seen["features"])
    assert set(report["candidate_recall"]) <= set(seen["sources"])
    assert set(report["left_out"]) <= set(seen["left_out"])
    assert set(report["methods"]["two_stage"]) - {"n_users"} <= set(seen["metrics"])


def test_releases(ask, published) -> None:
    """The published release serves, is whole, and has its gate's words."""
    listed = ask("releases")["releases"]  # other tests publish to the same artefacts
    [seen] = [each for each in listed if each["version"] == published.version]
    assert (seen["version"], seen["serving"], seen["whole"]) == (published.version, True, True)
    assert (seen["previous"], seen["canary"]) == (False, False)
    assert seen["gate"]["passed"] is True
    assert seen["gate"]["words"].startswith("beats popularity")
    assert seen["seconds"] > 0


def test_operations(own, studio, ask, published) -> None:
    """Redis, lists, rules and latencies."""
    _, store = own
    item = published.dataset.catalogue.ids[0]
    AdminStore(store).block(item)
    studio.post("/recommend", json={"user_id": published.dataset.user_ids[0]})
    seen = ask("operations")
    assert seen["pointer"] == {"current": published.version, "previous": None, "canary": None}
    n_users = len(published.dataset.user_ids)
    assert (seen["lists"]["written"], seen["redis"]["users"]) == (n_users, n_users)
    assert seen["redis"]["used_memory"] > seen["redis"]["bytes_a_user"] > 100
    assert seen["blocked"] == [{"id": item, "title": published.dataset.catalogue.titles[0]}]
    assert seen["rules"] == {"version": 0, "n": 0}
    assert seen["limits"]["events_waiting"] == EventLog(store).length() == 0
    timed = {row["what"]: row for row in seen["latencies"]}
    assert timed["the answer to /recommend"]["n"] == 1
    assert timed["the answer to /recommend"]["p50_ms"] > 0


def test_two_releases_side_by_side(own, studio, ask, release, published, reporter) -> None:
    """Each as the API would answer: the serving one's list is that of a live answer."""
    settings, store = own
    bundle, lists = release("20990101T000000Z-other")
    publish.publish(bundle, lists, settings, reporter)
    store.set_release(ReleasePointer(published.version))
    user = published.dataset.user_ids[0]
    seen = ask("compare", user=user, k=5, **{"with": "20990101T000000Z-other"})
    body = {"user_id": user, "k": 5, "use_cache": False, "explain": True}
    live = studio.post("/recommend", json=body).json()["recommendations"]
    assert seen["serving"] == live
    assert [each["item_id"] for each in seen["other"]] == [each["item_id"] for each in live]
    assert seen["other"][0]["reason"]["because"]
    remembered = Path(settings.bundle_dir, "shortlist", f"{settings.namespace}.release")
    assert b"other" not in remembered.read_bytes()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("item?id=nothing", 404, "unknown_item"),
        ("users?pick=lucky", 400, "invalid_request"),
        ("users?limit=0", 400, "invalid_request"),
        ("user", 400, "invalid_request"),
        ("map?limit=99999999", 400, "invalid_request"),
        ("compare?user=1&with=nothing", 404, "no_release"),
        ("compare?user=1&with=../x", 404, "no_release"),
        ("nothing", 404, "not_found"),
    ],
)
def test_wrong_questions(studio, path, status, code) -> None:
    """One sentence in the API's shape."""
    answer = studio.get(f"/studio/api/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_a_value_is_not_repeated(studio) -> None:
    """A message names the rule and not the value, which may be a user's id."""
    answer = studio.get("/studio/api/user", params={"id": "secret" * 500})
    assert answer.status_code == 400
    assert "secret" not in answer.text


def test_before_the_first_release(own) -> None:
    """The page is there, and says what to do."""
    settings, store = own
    store.redis.delete(store.keys.release())
    studio = studio_of(settings, store)
    assert studio.get("/").status_code == 200
    error = studio.get("/studio/api/overview").json()["error"]
    assert error["code"] == "no_release"
    assert "shortlist batch run" in error["message"]
    assert studio.get("/studio/api/operations").json()["pointer"] is None
    assert studio.get("/studio/api/releases").status_code == 200


@pytest.fixture
def before_the_studio(own, published, tmp_path: Path) -> TestClient:
    """The studio of a release that an earlier version has made: without any of its files."""
    settings, store = own
    artefacts = tmp_path / "artefacts"
    directory = artefacts / published.version
    shutil.copytree(published.work / "bundle", directory)
    for name in (facts.FILE, facts.REPORT, reach.FILE):
        (directory / name).unlink()
    fields = json.loads((directory / "manifest.json").read_text())
    fields = {name: value for name, value in fields.items() if name not in ("files", "seconds")}
    build_manifest(directory, **fields)
    return studio_of(replace(settings, artefacts=str(artefacts)), store)


def test_a_release_of_before(before_the_studio, published) -> None:
    """What it lacks is null or empty, and everything else works."""

    def ask(name: str, **query: object) -> Any:
        answer = before_the_studio.get(f"/studio/api/{name}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    user, item = published.dataset.user_ids[0], published.dataset.catalogue.ids[0]
    seen = ask("overview")
    assert seen["has_studio_facts"] is False
    assert [tile["label"] for tile in seen["tiles"]] == ["Is it good?", "How old are the lists?"]
    assert len(ask("users", pick="heavy", limit=5)["users"]) == 5
    assert ask("users", pick="worst")["users"] == []
    assert ask("user", id=user)["history"]
    assert ask("user", id=user)["held_out"] == []
    one = ask("item", id=item)
    assert (one["months"], one["reach"], one["xy"]) == (None, None, None)
    assert one["n_events"] > 0
    assert ask("map") == {"points": [], "explained": None, "total": 0}
    data = ask("data")
    assert (data["days"], data["drift"], data["rejected_share"]) == ([], None, None)
    assert ask("quality")["report"] is None
    assert ask("releases")["releases"][0]["seconds"] is None


def test_redis_is_away(own) -> None:
    """The error names it; operations say so in their place."""
    settings, store = own
    away = replace(settings, redis_url="redis://127.0.0.1:1")
    studio = studio_of(away, store)
    answer = studio.get("/studio/api/overview")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_unavailable")
    assert "error" in studio.get("/studio/api/operations").json()["redis"]


def test_pages_load_from_here_alone(studio) -> None:
    """A strict policy, no address of elsewhere, and every file of the page is there."""
    page = studio.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert studio.get("/studio/index.html").text == page.text
    assert studio.head("/").status_code == 200
    assert studio.get("/studio/../app.py").status_code == 404
    assert studio.get("/studio/api/overview").headers["cache-control"] == "no-store"


def test_the_documentation_needs_no_network(studio) -> None:
    """/docs names files of this server alone, and they are there."""
    page = studio.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace('lang="en"', "")
    for name in ("vendor/swagger-ui.css", "vendor/swagger-ui-bundle.js", "docs.js"):
        assert f"/docs/{name}" in page.text
        assert studio.get(f"/docs/{name}").status_code == 200
    assert studio.get("/openapi.json").json()["info"]["title"] == "Shortlist"


def test_the_api_is_as_before(own, studio, published) -> None:
    """Beside the studio, each answer of the API is its own."""
    settings, store = own
    alone = TestClient(create_app(settings, store, LivePath(settings)))
    for path in ("/health", "/openapi.json", "/nothing", "/v1/popular?k=3"):
        mine, its = studio.get(path), alone.get(path)
        assert (mine.status_code, mine.headers.get("etag")) == (
            its.status_code,
            its.headers.get("etag"),
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_pages_of_other_sites_are_refused(studio, headers) -> None:
    """They would read histories by a name that stands for this machine, or send requests."""
    answer = studio.get("/studio/api/users", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "other_origin")


def test_beyond_this_machine(own, published) -> None:
    """Without an admin key there is no studio; with one, all data need it."""
    settings, store = own
    closed = studio_of(settings, store, host="0.0.0.0")  # noqa: S104 - what is tried
    assert closed.get("/").status_code == closed.get("/studio/api/overview").status_code == 404
    assert closed.get("/docs").status_code == 200
    guarded = replace(settings, admin_key=KEY)
    client = studio_of(guarded, store, host="0.0.0.0")  # noqa: S104 - what is tried
    assert client.get("/").status_code == 200
    for sent in ({}, {"X-Shortlist-Admin-Key": "wrong"}, {"X-Shortlist-Admin-Key": "é".encode()}):
        answer = client.get("/studio/api/users", headers=sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_key_needed")
    right = client.get("/studio/api/users", headers={"X-Shortlist-Admin-Key": KEY})
    assert right.status_code == 200


def test_data_are_guarded_where_the_api_is(own) -> None:
    """Callers need a key of the API: then the studio needs the admin key, on this machine too."""
    keys = parse_api_keys(["reader:read:a-key-that-is-long-enough-to-be-one"])
    settings = replace(own[0], admin_key=KEY, api_keys=keys)
    studio = studio_of(settings, own[1])
    assert studio.get("/studio/api/overview").status_code == 403
    seen = studio.get("/studio/api/overview", headers={"X-Shortlist-Admin-Key": KEY})
    assert seen.json()["admin_key_needed"] is True


@pytest.fixture
def deployed(own) -> Iterator[tuple[str, Settings]]:
    """The address of an API that asks its callers for a key."""
    settings, store = own
    keys = parse_api_keys(["studio:read+operations:a-key-that-is-long-enough-to-be-one"])
    metrics = Metrics()
    app = create_app(replace(settings, api_keys=keys), store, LivePath(settings), metrics=metrics)
    with in_thread(app, metrics, Seats()) as port:
        yield f"http://127.0.0.1:{port}", settings


def impressions(studio: TestClient) -> float:
    """How many answers count as shown to users."""
    key = {"X-Api-Key": "a-key-that-is-long-enough-to-be-one"}
    samples = parse(studio.get("/metrics", headers=key).text)[1]
    return sum(n for (name, _), n in samples.items() if name == "shortlist_impressions_total")


def test_a_deployed_api_is_shown(deployed, own, published) -> None:
    """Requests go there with the server's key; the studio's own do not."""
    url, settings = deployed
    made = serving.beside(settings, "127.0.0.1", url)
    app = made(forwarder(url, "a-key-that-is-long-enough-to-be-one"))
    studio = TestClient(app, "http://127.0.0.1:8000")
    body = {"user_id": published.dataset.user_ids[0], "k": 3}
    answer = studio.post("/v1/recommend", json=body)
    assert (answer.status_code, len(answer.json()["recommendations"])) == (200, 3)
    assert impressions(studio) == 1
    studio.post("/v1/recommend", json=body, headers={"X-Shortlist-Preview": "1"})  # as the page
    assert impressions(studio) == 1
    again = studio.get("/v1/popular?k=3")
    known = {"If-None-Match": again.headers["etag"]}
    assert studio.get("/v1/popular?k=3", headers=known).status_code == 304
    seen = studio.get("/studio/api/overview").json()
    assert seen["api"] == {"url": url, "forwarded": True}
    assert studio.get("/studio/api/operations").json()["latencies"]
    refused = studio.post("/v1/recommend", json=body, headers={"Origin": "http://evil.example"})
    assert refused.json()["error"]["code"] == "other_origin"
    without = TestClient(made(forwarder(url, None)), "http://127.0.0.1:8000")
    assert without.post("/v1/recommend", json=body).status_code == 401


def test_a_deployed_api_does_not_answer(own) -> None:
    """One sentence, with the address and without what was asked."""
    app = serving.beside(own[0], "127.0.0.1", "http://127.0.0.1:1")(
        forwarder("http://127.0.0.1:1", None)
    )
    answer = TestClient(app, "http://127.0.0.1:8000").get("/v1/users/secret/recommendations")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "api_unreachable")
    assert "secret" not in answer.text
