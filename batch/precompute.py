"""Computes every user's list, in shards.

A shard is one file, written whole or not at all, and not computed twice. It depends on the bundle
and its users alone, so that it can be computed anywhere and again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgpack
import numpy as np

from shortlist.batch import dataset_file
from shortlist.batch.workers import completed, workers_for
from shortlist.recsys.atomic_file import remove_drafts, replacing
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.bundle import Bundle, asked_at, own_bytes
from shortlist.recsys.models.bundle import load as load_bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Int32,
    Int64,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, Recommended, recommend
from shortlist.recsys.models.scores import half_bytes
from shortlist.recsys.settings import Engine
from shortlist.recsys.store.feedback import Happened
from shortlist.recsys.store.histories import with_feedback
from shortlist.recsys.store.records import (
    UserRecord,
    pack_list,
    pack_user,
    unpack_list,
    unpack_user,
)
from shortlist.recsys.store.release_files import verify
from shortlist.recsys.store.watermark import BEGINNING

SHARD_USERS = 512
"""A second of one core: what an interruption costs, and what one worker takes at a time."""

ReportProgress = Callable[[float, str], None]
"""Takes the share done and a note."""

Task = tuple[str, range, int]
"""The work directory, the user rows, the length of the lists."""


@dataclass(frozen=True, slots=True)
class Precomputed:
    """One user's packed list, and the record of their history."""

    user_id: str
    packed: bytes
    record: UserRecord


def write_shards(
    bundle: Bundle, dataset: Dataset, directory: Path, length: int, progress: ReportProgress
) -> None:
    """Writes the shards that `directory` lacks, in this process.

    length: items of a list.
    """
    version, n_users = str(bundle.manifest["version"]), dataset.events.n_users
    for users in missing_shards(directory, version, n_users):
        write_shard(bundle, dataset, directory, users, length)
        progress(users.stop / n_users, f"{users.stop} of {n_users} users")


def write_shards_by(
    engine: Engine, workers: int, work: Path, length: int, progress: ReportProgress
) -> None:
    """Writes the missing shards by processes or on Ray.

    They read the files in `work`. On a Ray cluster it must be one that every node sees.
    workers: processes, or Ray's workers on this machine.

    Raises:
        InvalidSettings: Ray is not installed, or a process was killed.
    """
    version = str(verify(work / "bundle")["version"])
    n_users = dataset_file.load(work).events.n_users
    missing = missing_shards(work / "lists", version, n_users)
    tasks = [(str(work.resolve()), users, length) for users in missing]
    done = n_users - sum(map(len, missing))
    for written in _ENGINES[engine](tasks, workers):
        done += written
        progress(done / n_users, f"{done} of {n_users} users")


def workers_of(work: Path, wanted: int, n_users: int) -> int:
    """The number of processes that write the shards of `work`; 1 for this process alone.

    wanted: as `workers_for` takes it.
    """
    loaded = dataset_file.size(work) + own_bytes(work / "bundle")
    return workers_for(wanted, n_users, loaded)


def missing_shards(directory: Path, version: str, n_users: int) -> list[range]:
    """The user rows of the shards that `directory` lacks.

    Shards of other versions are removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.msgpack"):
        if not stale.name.startswith(f"{version}-"):
            stale.unlink()
    remove_drafts(directory)
    starts = range(0, n_users, SHARD_USERS)
    shards = [range(start, min(start + SHARD_USERS, n_users)) for start in starts]
    return [users for users in shards if not _shard_path(directory, version, users).exists()]


def write_shard(
    bundle: Bundle, dataset: Dataset, directory: Path, users: range, length: int
) -> None:
    """Writes the lists of these user rows atomically."""
    path = _shard_path(directory, str(bundle.manifest["version"]), users)
    offsets = dataset.events.offsets()
    with replacing(path) as draft, draft.open("wb") as file:
        for start in range(users.start, users.stop, USERS_AT_ONCE):
            chunk = range(start, min(start + USERS_AT_ONCE, users.stop))
            _write_users(file, bundle, dataset, offsets, chunk, length)


def _shard_path(directory: Path, version: str, users: range) -> Path:
    return directory / f"{version}-{users.start:09d}.msgpack"


def _run_task(work: str, users: range, length: int) -> int:
    bundle, dataset = _loaded(work)
    write_shard(bundle, dataset, Path(work) / "lists", users, length)
    return len(users)


@cache  # once a process: loading takes longer than a shard
def _loaded(work: str) -> tuple[Bundle, Dataset]:
    return load_bundle(Path(work) / "bundle"), dataset_file.load(Path(work))


def _by_processes(tasks: list[Task], workers: int) -> Iterator[int]:
    for _, written in completed(_run_task, tasks, workers):
        yield written


def _by_ray(tasks: list[Task], workers: int) -> Iterator[int]:
    """Runs the tasks on the Ray cluster that RAY_ADDRESS names, or on `workers` local workers."""
    try:
        import ray
    except ImportError as error:
        raise InvalidSettings(
            "SHORTLIST_ENGINE=ray, but Ray is not installed: install the `scale` extra"
        ) from error
    size = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}
    ray.init(**size, ignore_reinit_error=True)
    try:
        run = ray.remote(_run_task)
        waiting = [run.remote(*task) for task in tasks]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    finally:
        ray.shutdown()


_ENGINES: dict[Engine, Callable[[list[Task], int], Iterator[int]]] = {
    "local": _by_processes,
    "ray": _by_ray,
}


def read_shards(directory: Path, version: str) -> Iterator[Precomputed]:
    """Every user of a release's shards in `directory`, in order."""
    for path in _shards(directory, version):
        with path.open("rb") as file:
            for user_id, packed, record in msgpack.Unpacker(file, use_list=False):
                yield Precomputed(user_id, packed, unpack_user(record))


def read_lists(directory: Path, version: str) -> Iterator[Int32]:
    """The item rows of every user's list in a release's shards, int32[K], best first."""
    for path in _shards(directory, version):
        with path.open("rb") as file:
            for _, packed, _ in msgpack.Unpacker(file, use_list=False):
                yield np.array(unpack_list(packed).rows, np.int32)


def _shards(directory: Path, version: str) -> list[Path]:
    # Others may be there: an interrupted run's copies come back with those of the attempt before.
    return sorted(directory.glob(f"{version}-*.msgpack"))


def _write_users(
    file: BinaryIO,
    bundle: Bundle,
    dataset: Dataset,
    offsets: Int64,
    users: range,
    length: int,
) -> None:
    """offsets: those of the events, int64[n_users + 1]."""
    events = dataset.events
    offsets = offsets[users.start : users.stop + 1]
    rows = np.arange(users.start, users.stop, dtype=np.int32)
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes[rows], rows)
    states = asked_at(bundle, states)
    recommendations = recommend(bundle.model, states, length)
    for position, user in enumerate(users):
        packed = _packed_list(bundle, recommendations, position, int(states.n_events[position]))
        record = pack_user(user_record(dataset, states, position, user))
        file.write(msgpack.packb([dataset.user_ids[user], packed, record]))


def _packed_list(
    bundle: Bundle, recommendations: Recommended, position: int, n_events: int
) -> bytes:
    kept = recommendations.items[position] != MISSING
    return pack_list(
        int(bundle.manifest["created_at"]),
        int(bundle.manifest["as_of"]),
        n_events,
        int(recommendations.n_candidates[position]),
        recommendations.items[position, kept].astype("<i4").tobytes(),
        half_bytes(recommendations.scores[position, kept]),
        half_bytes(recommendations.retrieval[position, kept]),
        int(bundle.manifest.get("watermark", BEGINNING)),
    )


def user_record(dataset: Dataset, states: UserStates, position: int, user: int) -> UserRecord:
    """The record of one user.

    position: in `states`; user: the row in the data set.
    """
    if len(dataset.events.kinds) > 1 or len(dataset.events.negatives.user):
        return _record_with_feedback(dataset, user)
    ids = dataset.catalogue.ids
    present = states.items[position] != MISSING
    rows = states.items[position, present].tolist()
    # Those in the history are seen anyway.
    earlier = sorted(set(states.seen(position).tolist()).difference(rows))
    weights = states.weights[position, present].tolist()
    return UserRecord(
        items=tuple(ids[row] for row in rows),
        times=tuple(states.times[position, present].tolist()),
        weights=tuple(None if math.isnan(weight) else weight for weight in weights),
        n_events=int(states.n_events[position]),
        seen=tuple(ids[row] for row in earlier),
        attributes=dataset.vocabulary.decode(dataset.attributes[user]),
    )


def _record_with_feedback(dataset: Dataset, user: int) -> UserRecord:
    """The record of the user in a row of the data set, with types and negative feedback."""
    events, negatives, ids = dataset.events, dataset.events.negatives, dataset.catalogue.ids
    rows = _rows_of(user, events.user)
    names = [kind.name or None for kind in events.kinds]
    positives = [
        Happened(ids[item], time, None if math.isnan(weight) else weight, type=names[kind])
        for item, time, weight, kind in zip(
            events.item[rows].tolist(),
            events.time[rows].tolist(),
            events.weight[rows].tolist(),
            events.kind[rows].tolist(),
            strict=True,
        )
    ]
    rows = _rows_of(user, negatives.user)
    pairs = zip(negatives.item[rows].tolist(), negatives.time[rows].tolist(), strict=True)
    feedback = [Happened(ids[item], time, None) for item, time in pairs]
    attributes = dataset.vocabulary.decode(dataset.attributes[user])
    return with_feedback(UserRecord(attributes=attributes), positives, feedback, _rules(events))


def _rows_of(user: int, column: Int32) -> slice:
    """The user's rows in a column of user rows that is sorted."""
    # In the column's own type: numpy would else convert all of it, for each user.
    start, stop = np.searchsorted(column, np.array([user, user + 1], column.dtype)).tolist()
    return slice(start, stop)


def _rules(events: Events) -> EventRules:
    """Rules that give the kinds of these events."""
    if len(events.kinds) == 1:
        return EventRules()
    targets = tuple(kind.name for kind in events.kinds if kind.is_target)
    return EventRules({kind.name: kind.strength for kind in events.kinds}, targets)
