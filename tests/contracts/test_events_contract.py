"""Tests `POST /v1/events`: counted once, effective immediately, used in training."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler import ingest as intake_module
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.ingest import Bounds, EventIngestor
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.event_log import WINDOW_SECONDS, EventLog
from shortlist.recsys.store.feedback import Happened
from shortlist.recsys.store.histories import HISTORY_LENGTH, with_events
from shortlist.recsys.store.records import (
    EventRecord,
    ReleasePointer,
    UserRecord,
    unpack_event,
    unpack_user,
)

NOW = 1_800_000_000
BOUNDS = Bounds(waiting=1000, newcomers=1000, newcomer_seconds=600)


@pytest.fixture
def client(own) -> TestClient:
    """The API over a release of the test's own."""
    settings, store = own
    return TestClient(create_app(settings, store, LivePath(settings), lambda: NOW))


@pytest.fixture
def items(published) -> tuple[str, ...]:
    """The ids of the catalogue."""
    return published.dataset.catalogue.ids


def lacks_nothing(_version: str, item_ids: Sequence[str]) -> list[bool]:
    """A catalogue that has every item."""
    return [True] * len(item_ids)


def event(item: str, number: int = 0, user: str = "eve", **more: object) -> dict[str, Any]:
    """An event as a request has it."""
    return {
        "event_id": f"e{number}",
        "user_id": user,
        "item_id": item,
        "timestamp": NOW + number,
        **more,
    }


def send(client: TestClient, *events: object) -> dict[str, Any]:
    """What became of events, which must be 200."""
    response = client.post("/v1/events", json={"events": events})
    assert response.status_code == 200, response.text
    return response.json()


def ask(client: TestClient, user: str, k: int = 10) -> dict[str, Any]:
    """A recommendation answer."""
    return client.post("/recommend", json={"user_id": user, "k": k}).json()


def ids_of(answer: dict[str, Any]) -> list[str]:
    """The recommended ids, in order."""
    return [r["item_id"] for r in answer["recommendations"]]


def streamed(store) -> list[EventRecord]:
    """Every event in the stream."""
    return [unpack_event(fields[b"e"]) for _, fields in store.redis.xrange(store.keys.events())]


def test_first_event_of_a_new_user(client, items) -> None:
    """The next answer is live in place of popular items, and without the item itself."""
    assert ask(client, "eve")["source"] == "popular"
    assert send(client, event(items[3])) == {"accepted": 1, "duplicates": 0, "rejected": []}
    answer = ask(client, "eve")
    assert (answer["source"], answer["degraded"], len(ids_of(answer))) == ("live", False, 10)
    assert items[3] not in ids_of(answer)


def test_cached_list_after_an_event(client, published) -> None:
    """An item chosen from the cached list is not in the next answer, which is live."""
    user = published.dataset.user_ids[0]
    before = ask(client, user)
    send(client, event(ids_of(before)[0], user=user))
    after = ask(client, user)
    assert (before["source"], after["source"]) == ("batch", "live")
    assert ids_of(before)[0] not in ids_of(after)


def test_event_is_stored_once(client, own, items) -> None:
    """An event sent again, in its request, the next one or the next window, is stored once."""
    _, store = own
    assert send(client, event(items[1]), event(items[1]), event(items[2], 1)) == {
        "accepted": 2,
        "duplicates": 1,
        "rejected": [],
    }
    assert send(client, event(items[1])) == {"accepted": 0, "duplicates": 1, "rejected": []}
    later = EventIngestor(EventLog(store), lacks_nothing, BOUNDS, lambda: NOW + WINDOW_SECONDS)
    version = store.release().current
    assert (
        later.take(
            ReleasePointer(version), {}, [(0, EventRecord("e0", "eve", items[1], NOW))]
        ).duplicates
        == 1
    )
    record = unpack_user(store.user_record("eve"))
    assert (record.items, record.times, record.n_events) == (
        (items[1], items[2]),
        (NOW, NOW + 1),
        2,
    )
    assert [stored.event_id for stored in streamed(store)] == ["e0", "e1"]


def test_event_ids_belong_to_users(client, items) -> None:
    """The same event id of another user is another event."""
    assert send(client, event(items[1]), event(items[1], user="adam"))["accepted"] == 2


def test_bad_events_are_rejected_singly(client, items) -> None:
    """Each has its place, a code, and a message with field and rule; the others are accepted."""
    answer = send(
        client,
        event(items[0]),
        event("no-such-item", 1),
        {"event_id": "x", "user_id": "eve", "timestamp": NOW},
        event(items[0], 3, weight=1e39),
        event(items[0], 4, timestamp="yesterday"),
        "not an event",
        event(items[0], 200_000),
    )
    assert answer["accepted"] == 1
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [
        (1, "unknown_item"),
        (2, "invalid_event"),
        (3, "invalid_event"),
        (4, "invalid_event"),
        (5, "invalid_event"),
        (6, "future_timestamp"),
    ]
    assert [r["message"].split(":")[0].split(".")[0] for r in answer["rejected"][:4]] == [
        "item_id",
        "item_id",
        "weight",
        "timestamp",
    ]


@pytest.mark.parametrize(
    "body", [{}, {"events": []}, {"events": [{}] * 501}, {"events": [], "more": 1}, []]
)
def test_malformed_request(client, body) -> None:
    """A request of another structure is a 422 as a whole."""
    assert client.post("/v1/events", json=body).status_code == 422


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "events",
    [
        "[" * 400_000,
        ",".join(["[]"] * 60_000),
        ",".join(["0"] * 60_000) + '"' * 300_001,
        ",".join(['"a"'] * 60_000),
        ",".join(["{}"] * 30_000),
    ],
)
def test_too_many_values(client, events, encoding) -> None:
    """It is a 422 with the rule and the remedy, in every encoding of JSON, and is not parsed."""
    body = f'{{"events": [{events}]}}'.encode(encoding)[: 1 << 20]
    response = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, "invalid_request")
    assert "at most 50000 are read: send at most 500 plain events" in error["message"]


def test_commas_in_ids_are_no_values(client, items) -> None:
    """A full request whose ids are full of commas is accepted."""
    sound = [
        event(items[0], user="eve,[{" * 20) | {"event_id": f'{number}"\\' + ",[{" * 30}
        for number in range(500)
    ]
    answer = send(client, *sound)
    assert answer["accepted"] + len(answer["rejected"]) == 500
    assert not [each for each in answer["rejected"] if each["code"] == "invalid_event"]


def test_stream_has_the_whole_event(client, own, items) -> None:
    """Every field, so that training can use it."""
    send(client, event(items[0], weight=4, recommendation_id="r1"))
    assert streamed(own[1]) == [EventRecord("e0", "eve", items[0], NOW, 4.0, "r1")]


def test_crash_between_stream_and_record(client, own, items, monkeypatch) -> None:
    """The caller gets a 503 and sends again: the record has the event once, the stream twice."""
    _, store = own

    def dies(*_: object) -> list[bool]:
        raise StoreUnavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(intake_module.EventLog, "commit", dies)
        assert client.post("/v1/events", json={"events": [event(items[0])]}).status_code == 503
    assert store.user_record("eve") is None
    assert send(client, event(items[0])) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert [(stored.user_id, stored.event_id) for stored in streamed(store)] == [
        ("eve", "e0"),
        ("eve", "e0"),
    ]
    assert unpack_user(store.user_record("eve")).n_events == 1


def test_concurrent_events_of_one_user(own, items) -> None:
    """A record that changed is read again, and the stream has each event once."""
    _, store = own
    version = store.release().current
    gate = threading.Barrier(4)

    def one(number: int) -> None:
        log = EventLog(store)
        gate.wait()
        EventIngestor(log, lacks_nothing, BOUNDS, lambda: NOW).take(
            ReleasePointer(version),
            {},
            [(0, EventRecord(f"t{number}", "busy", items[number], NOW + number))],
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(unpack_user(store.user_record("busy")).items) == sorted(items[:4])
    assert sorted(stored.event_id for stored in streamed(store)) == ["t0", "t1", "t2", "t3"]


def test_record_that_always_changes(client, items, monkeypatch) -> None:
    """After a few attempts the answer is a 503 with the remedy."""
    monkeypatch.setattr(
        intake_module.EventLog, "commit", lambda _self, changes, *_: [False] * len(changes)
    )
    response = client.post("/v1/events", json={"events": [event(items[0])]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "send the events again" in response.json()["error"]["message"]


def test_weekly_limit_of_a_user(client, items, monkeypatch) -> None:
    """Beyond the bound events are rejected, so that a record cannot grow without end."""
    monkeypatch.setattr(intake_module, "MAX_DEDUP_KEYS", 2)
    answer = send(client, *(event(items[n], n) for n in range(3)))
    assert (answer["accepted"], [r["code"] for r in answer["rejected"]]) == (2, ["too_many_events"])


def test_unreadable_record(client, own, items) -> None:
    """It starts again, and other users' events in the request are stored."""
    _, store = own
    store.redis.hset(
        store.keys.user("eve"), mapping={"h": b"\xc1", "e0": b"\xc1", "e1": b"\x92\x01\x02"}
    )
    assert send(client, event(items[0]), event(items[0], user="adam"))["accepted"] == 2
    assert unpack_user(store.user_record("eve")).n_events == 1


def test_events_are_counted(client, items) -> None:
    """Events are counted by their outcome."""
    send(client, event(items[0]), event(items[0]), event("no-such-item", 1))
    lines = client.get("/metrics").text.splitlines()
    assert 'shortlist_events_total{outcome="accepted"} 1.0' in lines
    assert 'shortlist_events_total{outcome="duplicate"} 1.0' in lines
    assert 'shortlist_events_total{outcome="unknown_item"} 1.0' in lines


def test_record_is_ordered_by_time() -> None:
    """A late event goes where it belongs; one as late as another after it."""
    record = UserRecord(("a", "b"), (10, 20), (None, 1.0), 2, ("z",))
    updated = with_events(record, [Happened("c", 20, 5.0), Happened("d", 15, None)])
    assert updated == UserRecord(
        ("a", "d", "b", "c"), (10, 15, 20, 20), (None, None, 1.0, 5.0), 4, ("z",)
    )


def test_record_keeps_the_latest_events() -> None:
    """A record keeps as many events as the models use; older items stay among the seen ones."""
    assert HISTORY_LENGTH == 100
    updated = with_events(
        UserRecord(), [Happened(f"i{at}", at, None) for at in range(HISTORY_LENGTH + 2)]
    )
    assert (len(updated.items), updated.items[0], updated.seen, updated.n_events) == (
        HISTORY_LENGTH,
        "i2",
        ("i0", "i1"),
        HISTORY_LENGTH + 2,
    )
