"""Tests that all routes accept and refuse the same values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from shortlist.batch.drain import drain
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys import data, values
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import unpack_event, unpack_user

NOW = 1_800_000_000
KEY = "the-key-of-this-test"
WIDE = "\uff11\uff12\uff13"
TEXTS = [" 7 ", "7.0", "\u30007\t", "7.00 "]
SPELLINGS: list[Any] = [*TEXTS, 7, 7.0]
REFUSED: list[Any] = [
    "6.35E+17",
    " ",
    "\u3000",
    "x" * 257,
    "a\x00b",
    "9007199254740992.0",
    6.352843280556901e17,
    1.5,
    True,
    None,
]


@pytest.fixture
def client(own) -> TestClient:
    """The API over a release of the test's own."""
    settings, store = own
    return TestClient(
        create_app(replace(settings, admin_key=KEY), store, LivePath(settings), lambda: NOW)
    )


def event(**fields: object) -> dict[str, Any]:
    """A sound event, but for the fields given."""
    return {"event_id": "e", "user_id": "eve", "item_id": "7", "timestamp": NOW} | fields


def send(client: TestClient, *events: object) -> dict[str, Any]:
    """What became of events, which must be 200."""
    response = client.post("/v1/events", json={"events": events})
    assert response.status_code == 200, response.text
    return response.json()


def items_of(response: Any) -> list[str]:
    """The ids of a list."""
    payload = response.json()
    return [row["item_id"] for row in payload.get("recommendations", payload.get("items"))]


@pytest.mark.parametrize("spelt", SPELLINGS)
def test_user_id_spellings_in_a_body(client, spelt) -> None:
    """One user in look-up, rank and events."""
    plain = client.post("/recommend", json={"user_id": "7", "k": 5})
    answer = client.post("/recommend", json={"user_id": spelt, "k": 5})
    assert (plain.json()["source"], items_of(answer)) == ("batch", items_of(plain))
    ranked = client.post("/v1/rank", json={"user_id": spelt, "items": ["1", "2", "3"]})
    assert (
        ranked.json()
        == client.post("/v1/rank", json={"user_id": "7", "items": ["1", "2", "3"]}).json()
    )
    assert send(client, event(user_id=spelt), event(user_id="7"))["duplicates"] == 1


@pytest.mark.parametrize("spelt", TEXTS)
def test_user_id_spellings_in_a_path(client, own, spelt) -> None:
    """One user when read and when deleted: the id of the batch is gone."""
    path = f"/v1/users/{quote(spelt)}"
    read = client.get(f"{path}/recommendations?k=5")
    assert (read.json()["user_id"], read.json()["source"]) == ("7", "batch")
    assert client.delete(path).json() == {"user_id": "7", "existed": True}
    assert own[1].is_deleted()("7")


@pytest.mark.parametrize("spelt", SPELLINGS)
def test_item_id_spellings_in_a_body(client, spelt) -> None:
    """One item in a history, among excluded items, in rank and in events."""
    fresh = {"user_id": "fresh", "k": 10}
    plain = client.post("/recommend", json=fresh | {"history": ["7", {"item_id": "8"}]}).json()
    answer = client.post("/recommend", json=fresh | {"history": [spelt, {"item_id": "8"}]}).json()
    assert (plain["unknown_items"], answer["unknown_items"]) == (0, 0)
    assert answer["recommendations"] == plain["recommendations"]
    assert "7" not in items_of(
        client.post("/recommend", json={"user_id": "nobody", "k": 100, "exclude": [spelt]})
    )
    assert items_of(client.post("/v1/rank", json={"history": ["1"], "items": [spelt]})) == ["7"]
    assert send(client, event(item_id=spelt))["accepted"] == 1


@pytest.mark.parametrize("spelt", TEXTS)
def test_item_id_spellings_in_a_path(client, spelt) -> None:
    """One item when read, compared, excluded and blocked, by path or query."""
    path = f"/v1/items/{quote(spelt)}"
    assert client.get(path).json()["item_id"] == "7"
    assert items_of(client.get(f"{path}/similar")) == items_of(client.get("/v1/items/7/similar"))
    listed = client.get("/v1/users/nobody/recommendations", params={"k": 100, "exclude": spelt})
    assert "7" not in items_of(listed)
    headers = {"X-Shortlist-Admin-Key": KEY}
    assert client.post(f"{path}/block", headers=headers).json() == {"item_id": "7", "blocked": True}
    assert client.get("/v1/items/7").json()["available"] is False
    assert client.post(f"{path}/unblock", headers=headers).json() == {
        "item_id": "7",
        "blocked": False,
    }


@pytest.mark.parametrize("bad", REFUSED)
def test_invalid_ids_at_every_route(client, bad) -> None:
    """It is a 422, or rejects the one event; the message has the rule."""
    bodies = [
        ("/recommend", {"user_id": bad}),
        ("/recommend", {"user_id": "1", "history": [bad]}),
        ("/recommend", {"user_id": "1", "history": [{"item_id": bad}]}),
        ("/recommend", {"user_id": "1", "exclude": [bad]}),
        ("/v1/rank", {"user_id": "1", "items": [bad]}),
    ]
    for path, body in bodies:
        if body == {"user_id": None}:
            continue  # nobody in particular
        response = client.post(path, json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (
            422,
            "invalid_request",
        ), body
    answer = send(client, event(), event(user_id=bad), event(item_id=bad))
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [
        (1, "invalid_event"),
        (2, "invalid_event"),
    ]
    assert answer["accepted"] == 1
    if isinstance(bad, str):
        for method, path in (
            ("GET", "/v1/users/{}/recommendations"),
            ("DELETE", "/v1/users/{}"),
            ("GET", "/v1/items/{}"),
        ):
            assert client.request(method, path.format(quote(bad))).status_code == 422
        assert client.get("/v1/users/1/recommendations", params={"exclude": bad}).status_code == 422


def test_messages_have_value_rule_remedy(client) -> None:
    """For each kind of value the message has value, rule and remedy."""
    answer = send(
        client,
        event(user_id="6.35E+17"),
        event(weight=1e39),
        event(timestamp="yesterday"),
        event(position=0),
        "not an event",
        event(more=1),
        {"event_id": "x", "user_id": "eve", "timestamp": NOW},
        event(event_id=""),
    )
    assert [r["message"] for r in answer["rejected"]] == [
        f"user_id: '6.35E+17' is refused: {values.FLOAT_RULE}",
        (
            "weight: 1e+39 is refused: "
            "a weight must be a finite number "
            "from -3.4028234663852886e+38 to 3.4028234663852886e+38"
        ),
        (
            "timestamp: 'yesterday' is refused: "
            "a time must be unix seconds, a whole number from 0 to 99999999999, a date, or ISO "
            "8601 text"
        ),
        "position: 0 is refused: a position must be a whole number from 1 to 100",
        "'not an event' is no event: send an object with event_id, user_id, item_id and timestamp",
        "more: an event has no such field: leave it out",
        "item_id: it is missing: every event has event_id, user_id, item_id and timestamp",
        "event_id: '' is refused: it must be text of 1 to 256 characters",
    ]


def test_weight_beyond_the_largest(client, own) -> None:
    """Sent three times: the valid events around it are stored once."""
    good = [event(event_id=f"e{n}", timestamp=NOW + n, weight=5) for n in range(3)]
    bad = event(event_id="b", weight=1e39)
    answers = [send(client, *good[:2], bad, good[2]) for _ in range(3)]
    assert [(answer["accepted"], answer["duplicates"]) for answer in answers] == [
        (3, 0),
        (0, 3),
        (0, 3),
    ]
    assert [(r["index"], r["code"]) for answer in answers for r in answer["rejected"]] == [
        (2, "invalid_event")
    ] * 3
    _, store = own
    streamed = [unpack_event(fields[b"e"]) for _, fields in store.redis.xrange(store.keys.events())]
    assert [stored.event_id for stored in streamed] == ["e0", "e1", "e2"]
    assert unpack_user(store.user_record("eve")).n_events == 3


@pytest.mark.parametrize("path", ["/recommend", "/v1/rank"])
@pytest.mark.parametrize("weight", [1e39, -1e39, "1"])
def test_weights_in_a_history(client, path, weight) -> None:
    """Weights of a history have the same bounds: 422, with the rule."""
    body: dict[str, Any] = {"history": [{"item_id": "7", "weight": weight, "timestamp": 5}]}
    body |= {"user_id": "fresh"} if path == "/recommend" else {"items": ["1"]}
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert values.WEIGHT_RULE in response.json()["error"]["message"]
    body["history"][0]["weight"] = values.MAX_WEIGHT
    assert client.post(path, json=body).status_code == 200


def test_events_with_blank_ids(client, own, tmp_path, tables) -> None:
    """Each is rejected; a user of other digits, and all later ones, are learnt from."""
    answer = send(
        client,
        *(event(event_id=f"e{n}", user_id=" " * n) for n in range(1, 20)),
        event(user_id=WIDE),
    )
    assert (answer["accepted"], {r["code"] for r in answer["rejected"]}) == (1, {"invalid_event"})
    place = str(tmp_path / "events")
    assert drain(EventLog(own[1]), open_event_files(place)).events == 1
    paths = [str(tables / f"{name}.parquet") for name in ("interactions", "items", "users")]
    loaded = data.load(*paths, events=place)
    assert WIDE in loaded.dataset.user_ids
    assert loaded.rejects == {}
