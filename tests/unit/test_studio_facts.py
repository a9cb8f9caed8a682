"""Keeps a release's facts in one file, and refuses a file that it did not write."""

from __future__ import annotations

import zlib
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from shortlist.batch.studio import facts as facts_module
from shortlist.batch.studio.facts import ARRAYS, StudioFacts, digest_of, pack, unpack
from shortlist.recsys.errors import CorruptArtefact


def small() -> StudioFacts:
    """Two items, and one user of whom one item was held out."""
    arrays = {
        "day": [86_400],
        "day_type": [0],
        "day_n": [3],
        "item_n": [2, 1],
        "item_first": [1, -1],
        "item_last": [1, -1],
        "item_xy": [0.5, -1, 0, 0],
        "month": [0],
        "curve_offsets": [0, 1, 1],
        "curve_month": [0],
        "curve_n": [2],
        "pick_digest": np.frombuffer(digest_of("7"), np.uint8),
        "pick_n": [3],
        "pick_first": [86_400],
        "pick_last": [86_401],
        "pick_ndcg": [0.25],
        "held_offsets": [0, 1],
        "held_item": [1],
        "held_rank": [2],
        "listed": [0, 1, *[-1] * 8],
    }
    plain = {"types": ["event"], "sampled": False}
    return StudioFacts({n: np.array(arrays[n], ARRAYS[n]) for n in ARRAYS}, plain)


def test_facts_come_back() -> None:
    """As they were packed."""
    back = unpack(pack(small()))
    assert back is not None
    assert back.plain == {"types": ["event"], "sampled": False}
    assert (back.n_items, back.n_picks, back.digest(0)) == (2, 1, digest_of("7"))
    assert back.held_out(0) == [(1, 2)]
    assert back.listed(0) == [0, 1]
    assert [back.curve(row) for row in (0, 1)] == [[(0, 2)], []]


def test_another_layout_is_none(monkeypatch) -> None:
    """A file of a later version counts as absent."""
    monkeypatch.setattr(facts_module, "LAYOUT", 99)
    body = pack(small())
    monkeypatch.undo()
    assert unpack(body) is None


def broken(name: str, values: list[float]) -> bytes:
    """Facts with one array changed."""
    arrays = dict(small().arrays) | {name: np.array(values, ARRAYS[name])}
    return pack(replace(small(), arrays=arrays))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not compressed",
        zlib.compress(b"\xc1"),
        zlib.compress(msgpack.packb([1])),
        zlib.compress(msgpack.packb({"layout": 1, "plain": {}, "arrays": {}})),
        pack(small())[:-20],
        broken("day_n", [1, 2]),
        broken("item_xy", [0]),
        broken("curve_offsets", [0, 5, 1]),
        broken("curve_month", [7]),
        broken("held_item", [2]),
        broken("held_offsets", [1, 1]),
        broken("listed", [-2] * 10),
        broken("day_type", [1]),
    ],
)
def test_broken_facts_are_refused(body) -> None:
    """Whatever is not as `pack` writes it, or names rows beyond its arrays."""
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        unpack(body)


def test_facts_that_unpack_endlessly(monkeypatch) -> None:
    """A short file with a large content is refused before it fills the memory."""
    monkeypatch.setattr(facts_module, "MOST_UNPACKED", 1000)
    with pytest.raises(CorruptArtefact, match="more than 1000 bytes"):
        unpack(zlib.compress(bytes(10_000)))
