"""Tests the facts of a release."""

from __future__ import annotations

import msgpack
import pytest

from shortlist.recsys.errors import UnreadableRecord
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.release_facts import (
    FIELD,
    ReleaseFacts,
    as_fields,
    facts_in,
    pack_facts,
    unpack_facts,
)
from shortlist.recsys.where import AttributeKind

FACTS = ReleaseFacts(
    EventRules({"view": 1.0, "buy": 5.0}, ("buy",), ("return",), 0.5),
    "allow",
    has_clock_times=True,
    attributes={"brand": AttributeKind.TEXT, "price": AttributeKind.NUMBER},
    labels={"brand": frozenset({"acme"}), "categories": frozenset({"garden"})},
)


def test_facts_are_read_back() -> None:
    """Packed facts are the same facts."""
    assert unpack_facts(pack_facts(FACTS)) == FACTS


def test_manifest_keeps_all_but_labels() -> None:
    """A release can be published again from its manifest alone."""
    expected = ReleaseFacts(
        FACTS.events, "allow", has_clock_times=True, attributes=FACTS.attributes
    )
    assert facts_in({FIELD: as_fields(FACTS)}) == expected


def test_older_bundles_have_defaults() -> None:
    """A manifest of before there were facts says nothing that would change an answer."""
    assert facts_in({"version": "v1"}) == ReleaseFacts()


def test_newer_facts_are_left_out() -> None:
    """Fields and kinds of attributes that a later version adds do not break this one."""
    fields = as_fields(FACTS) | {"attributes": {"brand": "text", "where": "point"}, "more": 1}
    expected = {"brand": AttributeKind.TEXT}
    assert unpack_facts(msgpack.packb(fields)).attributes == expected


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({1: 2}),
        msgpack.packb({"repeats": 1}),
        msgpack.packb({"has_clock_times": "yes"}),
        msgpack.packb({"attributes": ["brand"]}),
        msgpack.packb({"labels": {"brand": [1]}}),
        msgpack.packb({"events": {"weights": {"view": "1"}}}),
        msgpack.packb({"events": {"weights": {"view": -1}}}),
        msgpack.packb({"events": {"targets": ["buy"]}}),
    ],
)
def test_other_bytes_are_refused(packed: bytes) -> None:
    """What is no record of facts says so, and how to mend it."""
    with pytest.raises(UnreadableRecord, match="publish the release again"):
        unpack_facts(packed)
