"""Tests hostile JSON values in each field of each body."""

from __future__ import annotations

import pytest

JSON = {"content-type": "application/json"}
ODD = [
    "null",
    "true",
    "0",
    "-0.0",
    "-1",
    "1.5",
    "42.0",
    "1e39",
    "-1e39",
    "3.4028235677973366e38",
    "1e308",
    "1e999",
    "NaN",
    "-Infinity",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551616",
    "1" + "0" * 300,
    "1" + "0" * 5000,
    '""',
    '" "',
    '"\\u3000"',
    '"\\uff11\\uff12\\uff13"',
    '" 42 "',
    '"42.0"',
    '"6.35E+17"',
    '"a\\u0000b"',
    '"a\\nb"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\U0001f600"',
    '"{x} %s }"',
    '"' + "x" * 257 + '"',
    "[]",
    "[[]]",
    "[null]",
    "{}",
    '{"\\ud800": 1}',
    '{"a": {"b": []}}',
    "[" * 40 + "]" * 40,
]
EVENT = (
    '{"event_id": %s, "user_id": %s, "item_id": %s, "timestamp": %s, "weight": %s, '
    '"recommendation_id": %s, "position": %s}'
)
FIELDS = ('"e"', '"odd"', '"1"', "1700000000", "1", '"r"', "1")
BODIES = {
    "/v1/recommend": [
        '{"user_id": %s}',
        '{"user_id": "1", "k": %s}',
        '{"user_id": "1", "exclude": [%s]}',
        '{"user_id": "1", "categories": [%s]}',
        '{"user_id": "1", "history": ["1", %s]}',
        '{"user_id": "1", "history": [{"item_id": %s}]}',
        '{"user_id": "1", "history": [{"item_id": "1", "timestamp": %s}]}',
        (
            '{"user_id": "1", "history": '
            '[{"item_id": "1", "weight": %s}, {"item_id": "2", "weight": 1}]}'
        ),
        '{"user_id": "1", "attributes": {"group": %s}}',
        '{"user_id": "1", "attributes": %s}',
        '{"user_id": "1", "diversity": %s}',
        '{"user_id": "1", "more": %s}',
        "%s",
    ],
    "/v1/rank": [
        '{"user_id": %s, "items": ["1"]}',
        '{"user_id": "1", "items": ["1", %s]}',
        '{"history": ["1", %s], "items": ["1", "2"]}',
        '{"history": [{"item_id": "1", "weight": %s, "timestamp": 3}], "items": ["1", "2"]}',
        '{"history": [{"item_id": "1", "timestamp": %s}], "items": ["1", "2"]}',
        '{"history": ["1"], "attributes": {"group": %s}, "items": ["1"]}',
        '{"history": ["1"], "items": ["1"], "more": %s}',
        '{"history": ["1"], "items": ["1"], "\\ud800": %s}',
        "%s",
    ],
    "/v1/events": [
        '{"events": %s}',
        '{"events": [{}], "more": %s}',
        '{"events": [{"\\ud800": %s}], "\\ud800": 1}',
        "%s",
    ],
}


@pytest.mark.parametrize(
    ("route", "body"), [(route, body) for route, bodies in BODIES.items() for body in bodies]
)
def test_odd_values_are_answered_or_refused(api, route, body) -> None:
    """200 or 422, and never an error of the server's."""
    for odd in ODD:
        response = api.post(route, content=(body % odd).encode(), headers=JSON)
        assert response.status_code in (200, 422), (body, odd[:60], response.text)
        assert response.json(), odd[:60]


@pytest.mark.parametrize("at", range(len(FIELDS)))
def test_an_odd_event_costs_itself(api, at) -> None:
    """Whatever a field holds, the good event after it is accepted, the odd one rejected alone."""
    for number, odd in enumerate(ODD):
        fields = [*FIELDS[:at], odd, *FIELDS[at + 1 :]]
        good = EVENT % (f'"{at}-{number}"', '"good"', '"1"', "1700000000", "1", "null", "null")
        body = f'{{"events": [{EVENT % tuple(fields)}, {odd}, {good}]}}'
        response = api.post("/v1/events", content=body.encode(), headers=JSON)
        assert response.status_code == 200, (odd[:60], response.text)
        answer = response.json()
        codes = {reject["index"]: reject for reject in answer["rejected"]}
        assert 2 not in codes, odd[:60]
        assert codes[1]["code"] == "invalid_event", odd[:60]
        assert answer["accepted"] + answer["duplicates"] + len(codes) == 3
        for reject in codes.values():
            assert len(reject["message"]) < 300
