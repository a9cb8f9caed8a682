"""Tests negative feedback, types of events, repeats and anonymous callers over HTTP."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mangum import Mangum
from rich.console import Console
from starlette.testclient import TestClient

from shortlist.batch import precompute, publish
from shortlist.batch.drain import drain
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.bundle import load
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.feedback import read
from shortlist.recsys.store.records import UserRecord, unpack_event, unpack_user
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_facts import FIELD, ReleaseFacts, as_fields, pack_facts
from shortlist.recsys.store.release_files import build_manifest
from tests.dumps import Dumped, dumped, put_back

NOW = 1_900_000_000
RULES = EventRules(negative=("return", "dislike"))
TYPED = EventRules({"view": 1.0, "buy": 5.0}, negative=("return",))


@pytest.fixture(scope="module")
def shop_files(published, tmp_path_factory) -> Path:
    """The published release again, as one that offers repeats and knows types of feedback."""
    directory = tmp_path_factory.mktemp("shop")
    shutil.copytree(published.work / "bundle", directory / "bundle")
    manifest = json.loads((directory / "bundle" / "manifest.json").read_text())
    manifest.pop("files")
    facts = ReleaseFacts(RULES, "allow", has_clock_times=True)
    changes = {"version": "shop", "repeats": "allow", FIELD: as_fields(facts)}
    build_manifest(directory / "bundle", **manifest | changes)
    bundle = load(directory / "bundle")
    length = int(manifest["list_length"])
    precompute.write_shards(bundle, published.dataset, directory / "lists", length, lambda *_: None)
    return directory


@pytest.fixture(scope="module")
def shop_keys(published, shop_files) -> Dumped:
    """What its publication leaves in Redis."""
    settings = replace(published.settings, namespace="shop-of-feedback")
    silent = ProgressReporter(Console(file=io.StringIO()))
    publish.publish(shop_files / "bundle", shop_files / "lists", settings, silent)
    return dumped(settings.redis_url, settings.namespace)


@pytest.fixture
def shop(published, shop_keys, namespace) -> Iterator[tuple[TestClient, RedisStore]]:
    """The API over that release, and its store."""
    settings = replace(published.settings, namespace=namespace)
    put_back(settings.redis_url, namespace, shop_keys)
    store = open_store(settings.redis_url, namespace, 500)
    yield TestClient(create_app(settings, store, LivePath(settings), lambda: NOW)), store
    store.close()


@pytest.fixture
def client(own) -> TestClient:
    """The API over a release that never offers what a user had."""
    settings, store = own
    return TestClient(create_app(settings, store, LivePath(settings), lambda: NOW))


@pytest.fixture
def user(published) -> str:
    """A user whom the batch knows."""
    return published.dataset.user_ids[0]


def send(client: TestClient, user: str, *events: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Sends events, one a second, each an item with further fields."""
    made = [
        {"event_id": f"e{at}-{item}", "user_id": user, "item_id": item, "timestamp": NOW + at}
        | more
        for at, (item, more) in enumerate(events)
    ]
    response = client.post("/v1/events", json={"events": made})
    assert response.status_code == 200, response.text
    return response.json()


def ask(client: TestClient, **body: object) -> dict[str, Any]:
    """An answer."""
    response = client.post("/recommend", json={"k": 10, **body})
    assert response.status_code == 200, response.text
    return response.json()


def ids_of(answer: dict[str, Any]) -> list[str]:
    """The recommended ids, in order."""
    return [each["item_id"] for each in answer["recommendations"]]


def record_of(store: RedisStore, user: str) -> UserRecord:
    """The stored record."""
    packed = store.user_record(user)
    assert packed is not None
    return unpack_user(packed)


def test_dislike_counts_at_once(client, own, user) -> None:
    """The next answer is without the item, which is no part of the history."""
    first = ids_of(ask(client, user_id=user))[0]
    before = record_of(own[1], user)
    assert send(client, user, (first, {"weight": -1}))["accepted"] == 1
    after = record_of(own[1], user)
    assert (after.items, after.n_events) == (before.items, before.n_events)
    assert [(each.item, each.time, each.type) for each in after.negatives] == [(first, NOW, None)]
    answer = ask(client, user_id=user)
    assert (answer["source"], first in ids_of(answer)) == ("live", False)


def test_return_takes_back_a_purchase(shop) -> None:
    """Whatever the order in which both arrive, and until the item is bought again."""
    client, store = shop
    for user, events in (("eve", ["buy", "return"]), ("adam", ["return", "buy"])):
        for event_type in events:
            time = NOW if event_type == "buy" else NOW + 1
            fields = {"event_id": event_type, "event_type": event_type, "timestamp": time}
            send(client, user, ("5", fields))
        reading = read(record_of(store, user), RULES)
        assert (reading.events, reading.had, reading.disliked) == ((), {"5"}, {"5"})
        assert record_of(store, user).n_events == 0
        assert "5" not in ids_of(ask(client, user_id=user, k=100))
    send(client, "eve", ("5", {"event_type": "buy", "timestamp": NOW + 2, "event_id": "again"}))
    assert read(record_of(store, "eve"), RULES).disliked == set()
    assert "5" in ids_of(ask(client, user_id="eve", k=100))


@pytest.mark.parametrize("source", ["stale", "popular"])
def test_degraded_answers_without_dislikes(shop, published, user, source) -> None:
    """With repeats, what the user had may be in them; what was disliked is not."""
    client, store = shop
    disliked, bought = published.dataset.catalogue.ids[:2]
    if source == "popular":
        store.redis.delete(store.keys.list("shop", user))
    send(client, user, (disliked, {"event_type": "dislike"}), (bought, {}))
    settings = replace(published.settings, namespace=store.keys.namespace, artefacts="/nowhere")
    broken = TestClient(create_app(settings, store, LivePath(settings), lambda: NOW))
    answer = ask(broken, user_id=user, k=100)
    assert (answer["source"], answer["degraded"]) == (source, True)
    assert disliked not in ids_of(answer)
    assert bought in ids_of(answer)
    never = ask(broken, user_id=user, k=100, allow_repeats=False)
    had = read(record_of(store, user), RULES).had
    assert had.isdisjoint(ids_of(never))


def test_repeats_by_the_request(shop, user) -> None:
    """The list does what the release does; what differs from it is answered live."""
    client, store = shop
    had = read(record_of(store, user), RULES).had
    usual, same = ask(client, user_id=user), ask(client, user_id=user, allow_repeats=True)
    assert (usual["source"], same["source"]) == ("batch", "batch")
    never = ask(client, user_id=user, k=100, allow_repeats=False)
    assert (never["source"], never["degraded"]) == ("live", False)
    assert had.isdisjoint(ids_of(never))
    again = ask(client, user_id=user, k=100, allow_repeats=True, use_cache=False)
    assert had.intersection(ids_of(again))
    by_query = client.get(
        f"/v1/users/{user}/recommendations", params={"k": 100, "allow_repeats": "false"}
    )
    assert ids_of(by_query.json()) == ids_of(never)


def test_live_results_of_both_modes(shop, user) -> None:
    """The cache of live results tells them apart."""
    client, _ = shop
    answers = [
        ids_of(ask(client, user_id=user, k=100, allow_repeats=allow, explain=True))
        for allow in (True, False, True, False)
    ]
    assert answers[0] == answers[2] != answers[1] == answers[3]


@pytest.mark.parametrize("history", [None, ["1"]])
def test_repeats_of_a_release_without(client, user, history) -> None:
    """They are refused with the remedy; asking for none of them changes nothing."""
    response = client.post(
        "/recommend", json={"user_id": user, "allow_repeats": True, "history": history}
    )
    assert response.status_code == 422
    assert "run a batch with SHORTLIST_REPEATS=allow" in response.json()["error"]["message"]
    assert ask(client, user_id=user, allow_repeats=False)["source"] == "batch"


def test_unknown_types_are_rejected(published, own) -> None:
    """Each event by itself, with the types that the release knows."""
    settings, store = own
    client = TestClient(create_app(settings, store, LivePath(settings), lambda: NOW))
    store.write_facts(published.version, pack_facts(ReleaseFacts(TYPED)))
    answer = send(
        client,
        "eve",
        ("1", {"event_type": " buy "}),
        ("2", {"event_type": "sold"}),
        ("3", {}),
        ("4", {"event_type": "return"}),
        ("5", {"event_type": " "}),
    )
    history = [{"item_id": "1", "event_type": "sold"}]
    response = client.post("/recommend", json={"history": history})
    assert response.status_code == 422
    assert "history.0.event_type: 'sold' is unknown" in response.json()["error"]["message"]
    remedy = (
        "the serving release knows view, buy, return: send one of these, or give the type a weight "
        "in the event rules and run a batch"
    )
    assert [(each["index"], each["code"], each["message"]) for each in answer["rejected"]] == [
        (1, "unknown_event_type", f"event_type: 'sold' is unknown, {remedy}"),
        (2, "unknown_event_type", f"event_type: it is missing, {remedy}"),
        (
            4,
            "invalid_event",
            "event_type: '' is refused: it must be text of 1 to 256 characters",
        ),
    ]
    assert record_of(store, "eve").types == ("buy",)
    streamed = [unpack_event(fields[b"e"]) for _, fields in store.redis.xrange(store.keys.events())]
    assert [each.event_type for each in streamed] == ["buy", "return"]


def test_types_of_a_request_history(shop) -> None:
    """A disliked item of it is neither offered nor a cause."""
    client, _ = shop
    history = ["7", {"item_id": "9", "event_type": "dislike"}, {"item_id": "8", "weight": -2}]
    answer = ask(client, k=100, history=history, explain=True)
    assert (answer["user_id"], answer["source"], answer["unknown_items"]) == (None, "session", 0)
    assert {"8", "9"}.isdisjoint(ids_of(answer))
    causes = {
        cause["item_id"]
        for each in answer["recommendations"]
        for cause in each["reason"]["because"]
    }
    assert causes == {"7"}


def test_live_answers_are_for_now(own, user) -> None:
    """What is due again depends on the time of the request."""
    settings, store = own
    moments: list[float] = []

    class Noting(LivePath):
        def recommend(self, *args: Any, **more: Any) -> Any:
            moments.append(args[5])
            return super().recommend(*args, **more)

    clock = [float(NOW)]
    client = TestClient(create_app(settings, store, Noting(settings), lambda: clock[0]))
    ask(client, user_id=user, explain=True)
    clock[0] += 60
    ask(client, user_id=user, explain=True)  # still kept
    ask(client, history=["1"])
    assert moments == [NOW, NOW + 60]


def test_anonymous_callers(client, own) -> None:
    """They get popular items, or those for the history of the request; nothing is stored."""
    _, store = own
    keys = set(store.redis.keys(f"{store.keys.namespace}:*"))
    popular, named = ask(client), ask(client, user_id="nobody-knows")
    assert (popular["user_id"], popular["source"]) == (None, "popular")
    assert ids_of(popular) == ids_of(named)
    session = ask(client, history=["5", "6"])
    assert (session["user_id"], session["source"]) == (None, "session")
    assert (
        session["recommendations"]
        == ask(client, user_id="x", history=["5", "6"])["recommendations"]
    )
    assert set(store.redis.keys(f"{store.keys.namespace}:*")) == keys


def test_anonymous_caller_in_a_lambda(own) -> None:
    """The same through Mangum and an event of API Gateway."""
    settings, store = own
    app = create_app(settings, store, LivePath(settings), lambda: NOW)
    event = http_event("POST", "/v1/recommend", {"k": 3})
    answer = Mangum(app, lifespan="off")(event, None)
    assert answer["statusCode"] == 200, answer
    body = json.loads(answer["body"])
    assert (body["user_id"], body["source"], len(body["recommendations"])) == (None, "popular", 3)


def test_times_may_be_dates(client, own) -> None:
    """In events and in histories; numbers of another unit are refused, and the unit said."""
    answer = send(
        client,
        "eve",
        ("1", {"timestamp": "2023-11-14 22:15:01+00"}),
        ("2", {"timestamp": "2023-11-14"}),
        ("3", {"timestamp": 1_700_000_000_000}),
    )
    assert answer["rejected"][0]["message"].endswith("milliseconds, divide it by 1000")
    record = record_of(own[1], "eve")
    assert (record.items, record.times) == (("2", "1"), (1_699_920_000, 1_700_000_101))
    history = [{"item_id": "1", "timestamp": "2023-11-14T22:15:01Z"}]
    assert ask(client, history=history)["source"] == "session"


def test_drained_files_have_types(shop, tmp_path) -> None:
    """So that the next training reads them."""
    client, store = shop
    send(client, "eve", ("1", {"event_type": "buy"}), ("1", {"weight": -3}))
    drain(EventLog(store), open_event_files(str(tmp_path)))
    frame = pl.read_parquet(tmp_path / "*.parquet")
    assert frame.select("event_type", "weight").rows() == [("buy", None), (None, -3.0)]
