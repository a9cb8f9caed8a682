"""Tests shards of computed lists, and the users' records.

Shards are whole, computed once and of one version. Records hold the user's history.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shortlist.batch import precompute
from shortlist.batch.precompute import (
    missing_shards,
    read_shards,
    user_record,
    workers_of,
    write_shards,
    write_shards_by,
)
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.bundle import load as load_bundle
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, Dataset
from shortlist.recsys.models.interactions import Events, states_at
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.store.records import UserRecord, unpack_list

LENGTH = 20


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 64 users."""
    monkeypatch.setattr(precompute, "SHARD_USERS", 64)


@pytest.fixture
def bundle(published) -> Bundle:
    """The bundle of the published release."""
    return load_bundle(published.work / "bundle")


class Progress:
    """Keeps the messages."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.notes: list[str] = []

    def __call__(self, share: float, note: str) -> None:
        """Takes one step."""
        self.shares.append(share)
        self.notes.append(note)


def test_all_shards_of_an_empty_directory(tmp_path: Path, small_shards: None) -> None:
    """Shards follow each other without a gap, and the last holds what is left."""
    assert missing_shards(tmp_path / "new", "v1", 150) == [
        range(64),
        range(64, 128),
        range(128, 150),
    ]
    assert missing_shards(tmp_path / "new", "v1", 0) == []


def test_missing_shards(tmp_path: Path, small_shards: None) -> None:
    """Existing shards are not computed again; drafts do not count; other versions' shards go."""
    for name in (
        "v1-000000064.msgpack",
        "v1-000000000.draft",
        "v0-000000000.msgpack",
        "v10-000000128.msgpack",
    ):
        (tmp_path / name).write_bytes(b"")
    assert missing_shards(tmp_path, "v1", 150) == [range(64), range(128, 150)]
    assert [path.name for path in tmp_path.glob("*.msgpack")] == ["v1-000000064.msgpack"]


def test_lists_are_the_pipelines(
    bundle: Bundle, published, tmp_path: Path, small_shards: None
) -> None:
    """Every user has the list that the pipeline gives, in the users' order, whatever the shard."""
    progress, dataset = Progress(), published.dataset
    write_shards(bundle, dataset, tmp_path, LENGTH, progress)
    users = list(read_shards(tmp_path, bundle.manifest["version"]))
    assert [one.user_id for one in users] == list(dataset.user_ids)
    offsets = dataset.events.offsets()
    expected = recommend(
        bundle.model,
        states_at(dataset.events, offsets[:-1], offsets[1:], dataset.attributes),
        LENGTH,
    )
    for user, one in enumerate(users):
        record = unpack_list(one.packed)
        rows = expected.items[user][expected.items[user] >= 0]
        assert record.rows == tuple(rows)
        assert record.scores == tuple(
            expected.scores[user, : len(rows)].astype(np.float16).tolist()
        )
        assert record.n_events == one.record.n_events == offsets[user + 1] - offsets[user]
        assert (record.created_at, record.as_of) == (
            bundle.manifest["created_at"],
            dataset.events.time.max(),
        )
    assert progress.shares == [64 / dataset.events.n_users, 128 / dataset.events.n_users, 1.0]


def test_resumed(bundle: Bundle, published, tmp_path: Path, small_shards: None) -> None:
    """An interrupted run computes the missing shards, and ends with the same bytes."""
    write_shards(bundle, published.dataset, tmp_path, LENGTH, Progress())
    shards = sorted(tmp_path.glob("*.msgpack"))
    whole = [shard.read_bytes() for shard in shards]
    shards[1].rename(shards[1].with_name(f".{shards[1].name}.0.draft"))
    kept = [shard.stat().st_mtime_ns for shard in (shards[0], shards[2])]
    progress = Progress()
    write_shards(bundle, published.dataset, tmp_path, LENGTH, progress)
    assert len(progress.shares) == 1
    assert [shard.stat().st_mtime_ns for shard in (shards[0], shards[2])] == kept
    assert [shard.read_bytes() for shard in shards] == whole
    assert list(tmp_path.glob(".*")) == []


def test_interrupted_shard(
    bundle: Bundle, published, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that broke off in its middle is no shard."""

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(precompute, "recommend", broken)
    with pytest.raises(KeyboardInterrupt):
        write_shards(bundle, published.dataset, tmp_path, LENGTH, Progress())
    assert list(read_shards(tmp_path, bundle.manifest["version"])) == []


def test_several_processes(bundle: Bundle, published, tmp_path: Path, small_shards: None) -> None:
    """Lists that other processes compute are the same, byte for byte."""
    for name in ("bundle", "dataset.npz", "dataset.msgpack"):
        (tmp_path / name).symlink_to(published.work / name)
    progress, n_users = Progress(), published.dataset.events.n_users
    write_shards_by("local", 2, tmp_path, LENGTH, progress)
    write_shards(bundle, published.dataset, tmp_path / "here", LENGTH, Progress())
    assert len(progress.shares) == 3
    assert (progress.shares[-1], progress.notes[-1]) == (1.0, f"{n_users} of {n_users} users")
    elsewhere = list(read_shards(tmp_path / "lists", published.version))
    assert len(elsewhere) == published.dataset.events.n_users
    (tmp_path / "here" / "older-000000000.msgpack").write_bytes(b"of another release")
    assert elsewhere == list(read_shards(tmp_path / "here", bundle.manifest["version"]))


def test_progress_counts_earlier_shards(published, tmp_path: Path, small_shards: None) -> None:
    """What an interrupted run wrote is done: the rest goes on from there."""
    for name in ("bundle", "dataset.npz", "dataset.msgpack"):
        (tmp_path / name).symlink_to(published.work / name)
    write_shards_by("local", 1, tmp_path, LENGTH, Progress())
    min((tmp_path / "lists").iterdir()).unlink()
    progress = Progress()
    write_shards_by("local", 1, tmp_path, LENGTH, progress)
    assert progress.shares == [1.0]


def test_small_data_need_no_process(published) -> None:
    """Starting one takes longer than all the lists, unless the setting asks for it."""
    n_users = published.dataset.events.n_users
    assert [workers_of(published.work, wanted, n_users) for wanted in (0, 1, 3)] == [1, 1, 3]


def _dataset(items: list[int], weights: list[float]) -> Dataset:
    n, n_items = len(items), max(items) + 1
    events = Events(
        np.zeros(n, np.int32),
        np.array(items, np.int32),
        np.arange(n) + 100,
        np.array(weights, np.float32),
        1,
        n_items,
    )
    ids = tuple(f"i{row}" for row in range(n_items))
    catalogue = Catalogue(
        ids,
        ids,
        ((),) * n_items,
        (),
        np.empty((n_items, 0), np.float32),
        np.full(n_items, np.nan, np.float32),
    )
    vocabulary = AttributeVocabulary(
        ("age", "region"), ({"0": 0, "1": 1}, {"north": 2}), ((30.0,), None)
    )
    return Dataset(
        events, catalogue, ("u",), np.array([[1, 2]], np.int32), vocabulary, "fingerprint"
    )


def _record(dataset: Dataset) -> UserRecord:
    events = dataset.events
    return user_record(
        dataset,
        states_at(events, events.offsets()[:-1], events.offsets()[1:], dataset.attributes),
        0,
        0,
    )


def test_record_of_a_short_history() -> None:
    """A record holds events oldest first, weights where given, and the attributes."""
    record = _record(_dataset([2, 0, 1], [5.0, np.nan, 1.5]))
    attributes = {"age": 30.0, "region": "north"}
    assert record == UserRecord(
        ("i2", "i0", "i1"), (100, 101, 102), (5.0, None, 1.5), 3, (), attributes
    )


def test_record_of_a_long_history() -> None:
    """What left the window is still seen, but not recorded twice."""
    n = HISTORY_LENGTH + 3
    record = _record(_dataset([0, 1, 2, *range(3, n - 1), 0], [np.nan] * n))
    assert (len(record.items), record.items[-1], record.n_events) == (HISTORY_LENGTH, "i0", n)
    assert record.seen == ("i1", "i2")
