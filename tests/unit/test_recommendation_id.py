"""Tests recommendation ids: each holds its answer's origin.

No other text is taken for an id.
"""

from __future__ import annotations

import base64
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.lambda_handler.schemas import RecommendAnswer
from shortlist.recsys.store.answer_sources import SOURCES
from shortlist.recsys.store.recommendation_id import Origin, new_id, origin_of


@given(
    st.text(string.ascii_letters + string.digits + "-.:_", min_size=1, max_size=120),
    st.sampled_from(SOURCES),
    st.floats(0, 4e9),
)
def test_release_source_and_day_come_back(version: str, source: str, seconds: float) -> None:
    """From an id that can stand in a URL and in an event."""
    made = new_id(version, source, seconds)
    assert origin_of(made) == Origin(version, source, int(seconds // 86_400))
    assert re.fullmatch(r"[\w-]{1,256}", made, re.ASCII)


def test_no_two_answers_have_the_same() -> None:
    """Not even within the same second."""
    assert len({new_id("v1", "batch", 1e9) for _ in range(1000)}) == 1000


def test_every_source_has_its_number() -> None:
    """The numbers are frozen in ids that events still carry."""
    assert RecommendAnswer.model_json_schema()["properties"]["source"]["enum"] == list(SOURCES)
    assert SOURCES[:5] == ("batch", "live", "session", "popular", "stale")


@pytest.mark.parametrize(
    "foreign",
    [
        "r1",
        "",
        "é",
        "0123456789abcdef0123456789abcdef",
        base64.urlsafe_b64encode(b"\x01\x09" + bytes(10) + b"v1").decode(),
        base64.urlsafe_b64encode(b"\x01\x00" + bytes(10)).decode(),
        base64.urlsafe_b64encode(b"\x01\x00" + bytes(10) + b"\xff\xfe").decode(),
    ],
)
def test_other_ids_have_no_origin(foreign: str) -> None:
    """Other layouts, other sources, no release, or anything that a caller made up."""
    assert origin_of(foreign) is None


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    """It has an origin or it has none."""
    assert origin_of(text) is None or isinstance(origin_of(text), Origin)
