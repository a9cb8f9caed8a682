"""Tests that a saved bundle loads unchanged or is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.batch.job import load_fold
from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import MISSING, states_at
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.store import release_files
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.store.records import Negative, UserRecord
from shortlist.recsys.store.release_facts import ReleaseFacts


@pytest.fixture
def directory(published, tmp_path) -> Path:
    """A copy of the release's bundle."""
    return Path(shutil.copytree(published.work / "bundle", tmp_path / "bundle"))


@pytest.fixture(scope="module")
def loaded(published) -> bundle.Bundle:
    return bundle.load(published.work / "bundle")


def is_mapped(array: Any) -> bool:
    """Whether an array is of a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap)


@pytest.mark.parametrize("mapped", [False, True])
def test_loaded_bundle_recommends_as_saved(published, tmp_path, monkeypatch, *, mapped) -> None:
    """Read or mapped, the same states get the same items and the same bits of scores."""
    monkeypatch.setattr("shortlist.recsys.models.arrays.IN_MEMORY", 0 if mapped else 1 << 30)
    from dataclasses import replace

    from shortlist.batch.job import Job
    from shortlist.recsys.models.ranker import Ranker

    dataset = published.dataset
    text = (published.work / "fold-2" / "ranker.txt").read_text()
    job = Job("", None, None, published.work, published.settings, None)  # type: ignore[arg-type]
    model = replace(load_fold(job, 2), ranker=Ranker(text))
    manifest = bundle.save(
        tmp_path / "made", model, text, dataset.catalogue, dataset.vocabulary, {"version": "v"}
    )
    again = bundle.load(tmp_path / "made")
    tables = (
        again.model.towers.items,
        again.model.towers.history,
        again.model.table.neighbours.rows,
    )
    assert all(is_mapped(table) is mapped for table in tables)
    offsets = dataset.events.offsets()
    states = states_at(dataset.events, offsets[:-1], offsets[1:], dataset.attributes)
    before, after = recommend(model, states, 20), recommend(again.model, states, 20)
    for one, other in zip(
        (before.items, before.scores, before.retrieval),
        (after.items, after.scores, after.retrieval),
        strict=True,
    ):
        assert one.tobytes() == other.tobytes()
    assert again.manifest == manifest
    assert again.vocabulary == dataset.vocabulary
    assert (tuple(again.catalogue.ids), tuple(again.catalogue.categories)) == (
        dataset.catalogue.ids,
        dataset.catalogue.categories,
    )


def test_popular_items_come_most_popular_first(published, loaded) -> None:
    """All items, by the number of events, then by row."""
    counts = np.bincount(published.dataset.events.item, minlength=published.dataset.events.n_items)
    assert loaded.popular.tolist() == np.lexsort((np.arange(len(counts)), -counts)).tolist()


def test_no_pickle_in_a_bundle(directory) -> None:
    """Every array loads with pickles forbidden, and no file bears pickle's ending."""
    for path in [*directory.glob("*.npy"), *directory.glob("*.npz")]:
        arrays = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            assert all(arrays[name].dtype != object for name in arrays.files)
            arrays.close()
    assert not [*directory.glob("*.pkl"), *directory.glob("*.pickle"), *directory.glob("*.pt")]


@pytest.mark.parametrize(
    ("field", "value"), [("feature_hash", "0" * 16), ("layout", 999), ("feature_hash", None)]
)
def test_other_features_or_layout_are_refused(directory, field, value) -> None:
    """The message says what it has, what the code has, and what to do."""
    path = directory / release_files.MANIFEST
    manifest = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleMismatch, match="activate an older release"):
        bundle.load(directory)


def test_a_changed_byte_is_noticed(directory) -> None:
    """Before any of the file is read."""
    for name in json.loads((directory / release_files.MANIFEST).read_text())["files"]:
        path = directory / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CorruptArtefact, match=name):
            bundle.load(directory)
        path.write_bytes(whole)
    assert bundle.load(directory).manifest["version"]


def test_missing_file_or_manifest_is_noticed(directory) -> None:
    """A bundle is whole or it is none."""
    (directory / "ranker.txt").unlink()
    with pytest.raises(CorruptArtefact, match="no file"):
        bundle.load(directory)
    (directory / release_files.MANIFEST).unlink()
    with pytest.raises(CorruptArtefact, match="is missing"):
        bundle.load(directory)


def test_state_of_ids(loaded) -> None:
    """Unknown items are counted and left out; earlier items are seen without being history."""
    ids = loaded.catalogue.ids
    items, seen = (ids[3], "nowhere", ids[5]), (ids[0], "gone")
    record = UserRecord(items, (1, 2, 3), (4.0, 1.0, None), 9, seen)
    state, unknown = bundle.state_of(loaded, record)
    assert unknown == 1
    assert state.items[0, -3:].tolist() == [MISSING, 3, 5]
    assert state.times[0, -2:].tolist() == [1, 3]
    np.testing.assert_array_equal(state.weights[0, -2:], np.array([4.0, np.nan], np.float32))
    assert (state.seen(0).tolist(), state.n_events.tolist()) == ([0, 3, 5], [9])
    assert (state.attributes == MISSING).all()


def test_moments_of_lists(loaded) -> None:
    """The request's by the clock, else the end of the data; of an order the next number."""
    ids = loaded.catalogue.ids
    record = UserRecord((ids[3], ids[5], ids[4]), (10, 12, 20), (None,) * 3, 3)

    def now(manifest: dict[str, int], moment: float | None) -> int:
        known = replace(loaded, manifest=loaded.manifest | manifest)
        return int(bundle.state_of(known, record, moment)[0].now[0])

    clock = {"as_of": 1_700_000_000, "created_at": 1_700_000_500}
    assert now(clock, 1_700_000_900.5) == 1_700_000_900
    assert now(clock, None) == 1_700_000_000
    assert now(clock | {"as_of": 1_900_000_000}, None) == 1_700_000_500
    order = {"as_of": 9000, "created_at": 1_700_000_500}
    assert now(order, 1_700_000_900.5) == now(order, None) == 20 + (20 - 10) // 2


def test_state_of_nothing_is_empty(loaded) -> None:
    """Somebody new, of whom the request says nothing, is recommended something."""
    state, unknown = bundle.state_of(loaded, UserRecord())
    assert (unknown, len(state), (state.items == MISSING).all()) == (0, 1, True)
    assert (recommend(loaded.model, state, 10).items != MISSING).all()


def test_state_of_many_ids_keeps_latest(loaded) -> None:
    """The window holds the last HISTORY_LENGTH, and all of them are seen."""
    ids = loaded.catalogue.ids
    n = HISTORY_LENGTH + 7
    record = UserRecord(tuple(ids[:n]), tuple(range(n)), (None,) * n, n)
    state, _ = bundle.state_of(loaded, record)
    assert state.items[0].tolist() == list(range(7, n))
    assert state.seen(0).tolist() == list(range(n))


@pytest.mark.parametrize(
    ("as_of", "now", "expected"),
    [
        (1_700_000_000, 1_800_000_000.5, 1_800_000_000),
        (1_700_000_000, None, 1_700_000_000),
        (1_700_000_000, 5.0, 1_600_000_000),
        (5_000, 1_800_000_000, 1_600_000_001),
    ],
    ids=["request", "end of the data", "slow clock", "sequence numbers"],
)
def test_state_of_a_moment(loaded, as_of, now, expected) -> None:
    """Of the request where times are a clock's, and never before the user's last event.

    Of sequence numbers it is the next one.
    """
    manifest = loaded.manifest | {"as_of": as_of, "created_at": 1_750_000_000}
    record = UserRecord((loaded.catalogue.ids[0],), (1_600_000_000,), (None,), 1)
    state, _ = bundle.state_of(replace(loaded, manifest=manifest), record, now)
    assert state.now.tolist() == [expected]


def test_state_of_feedback(loaded) -> None:
    """What was taken back is had and no history; feedback keeps its item away."""
    rules = EventRules({"view": 1.0, "buy": 5.0}, negative=("return",))
    ids = loaded.catalogue.ids
    record = UserRecord(
        (ids[3], ids[4], ids[5]),
        (1, 2, 3),
        (None,) * 3,
        2,
        types=("view", "buy", "buy"),
        negatives=(Negative(ids[4], 4, 0), Negative("gone", 5, 0)),
        disliked=(ids[6],),
    )
    state, unknown = bundle.state_of(replace(loaded, facts=ReleaseFacts(rules)), record)
    assert (unknown, state.n_events.tolist()) == (0, [2])
    assert (state.items[0, -3:].tolist(), state.kinds[0, -2:].tolist()) == ([MISSING, 3, 5], [1, 0])
    assert (state.seen(0).tolist(), state.disliked(0).tolist()) == ([4, 5, 6], [4, 6])


def test_items_load_alone(published, loaded) -> None:
    """Publishing reads the catalogue and the popular rows without the models."""
    items, popular = bundle.load_items(published.work / "bundle")
    assert items == loaded.catalogue
    assert popular.tolist() == loaded.popular.tolist()
