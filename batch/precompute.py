"""Computes every user's list in shards: each a file, written whole or not at all, and not computed twice.

A shard depends on the bundle and its users alone, so that it can be computed anywhere and again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgpack
import numpy as np

from shortlist.batch import dataset_file
from shortlist.recsys.atomic_file import remove_drafts, replacing
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.bundle import load as load_bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import MISSING, UserStates, states_at
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, recommend
from shortlist.recsys.models.scores import half_bytes
from shortlist.recsys.settings import Engine
from shortlist.recsys.store.artefacts import verify
from shortlist.recsys.store.records import UserRecord, pack_list
from shortlist.recsys.store.watermark import BEGINNING

SHARD_USERS = 2048

Progress = Callable[[float, str], None]
Task = tuple[str, range, int]
"""The work directory, the user rows, the length of the lists."""


@dataclass(frozen=True, slots=True)
class Precomputed:
    """What is published of one user: the packed list, and the record of their history."""

    user_id: str
    packed: bytes
    record: UserRecord


def write_shards(
    bundle: Bundle, dataset: Dataset, directory: Path, length: int, progress: Progress
) -> None:
    """Writes the shards that `directory` lacks of this bundle's lists of `length` items, in this process."""
    version, n_users = str(bundle.manifest["version"]), dataset.events.n_users
    for users in missing_shards(directory, version, n_users):
        write_shard(bundle, dataset, directory, users, length)
        progress(users.stop / n_users, f"{users.stop} of {n_users} users")


def write_shards_by(
    engine: Engine, workers: int, work: Path, length: int, progress: Progress
) -> None:
    """The same by several processes of this machine, or on Ray, from what lies in the work directory.

    On a Ray cluster the work directory must be one that every node sees.
    """
    version, n_users = (
        str(verify(work / "bundle")["version"]),
        dataset_file.load(work).events.n_users,
    )
    tasks = [
        (str(work.resolve()), users, length)
        for users in missing_shards(work / "lists", version, n_users)
    ]
    for done, _ in enumerate(_ENGINES[engine](tasks, workers), 1):
        progress(done / len(tasks), f"{done} of {len(tasks)} shards")


def missing_shards(directory: Path, version: str, n_users: int) -> list[range]:
    """The user rows of the shards that `directory` lacks; shards of other versions are removed."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.msgpack"):
        if not stale.name.startswith(f"{version}-"):
            stale.unlink()
    remove_drafts(directory)
    shards = (
        range(start, min(start + SHARD_USERS, n_users)) for start in range(0, n_users, SHARD_USERS)
    )
    return [users for users in shards if not _shard_path(directory, version, users).exists()]


def write_shard(
    bundle: Bundle, dataset: Dataset, directory: Path, users: range, length: int
) -> None:
    """Writes the lists of these user rows, whole or not at all."""
    path = _shard_path(directory, str(bundle.manifest["version"]), users)
    with replacing(path) as draft, draft.open("wb") as file:
        for start in range(users.start, users.stop, USERS_AT_ONCE):
            _write_users(
                file, bundle, dataset, range(start, min(start + USERS_AT_ONCE, users.stop)), length
            )


def _shard_path(directory: Path, version: str, users: range) -> Path:
    return directory / f"{version}-{users.start:09d}.msgpack"


def _run_task(work: str, users: range, length: int) -> int:
    bundle, dataset = _loaded(work)
    write_shard(bundle, dataset, Path(work) / "lists", users, length)
    return len(users)


@cache
def _loaded(work: str) -> tuple[Bundle, Dataset]:
    return load_bundle(Path(work) / "bundle"), dataset_file.load(Path(work))


def _by_processes(tasks: list[Task], workers: int) -> Iterator[int]:
    """Spawned, not forked: a fork after an OpenMP region hangs."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from (
            done.result()
            for done in as_completed([pool.submit(_run_task, *task) for task in tasks])
        )


def _by_ray(tasks: list[Task], workers: int) -> Iterator[int]:
    """On the cluster that RAY_ADDRESS names, or on `workers` local workers."""
    try:
        import ray
    except ImportError as error:
        raise InvalidSettings(
            "SHORTLIST_ENGINE=ray, but Ray is not installed: install the `scale` extra"
        ) from error
    ray.init(
        **({} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}), ignore_reinit_error=True
    )
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


def read_shards(directory: Path) -> Iterator[Precomputed]:
    """Every user of the shards in `directory`, in order."""
    for path in sorted(directory.glob("*.msgpack")):
        with path.open("rb") as file:
            for user_id, packed, told in msgpack.Unpacker(file, use_list=False):
                yield Precomputed(user_id, packed, UserRecord(*told))


def _write_users(
    file: BinaryIO, bundle: Bundle, dataset: Dataset, users: range, length: int
) -> None:
    events = dataset.events
    offsets = events.offsets()[users.start : users.stop + 1]
    states = states_at(
        events, offsets[:-1], offsets[1:], dataset.attributes[users.start : users.stop]
    )
    found = recommend(bundle.model, states, length)
    created_at, as_of = int(bundle.manifest["created_at"]), int(bundle.manifest["as_of"])
    watermark = int(bundle.manifest.get("watermark", BEGINNING))
    for at, user in enumerate(users):
        kept = found.items[at] != MISSING
        packed = pack_list(
            created_at,
            as_of,
            int(states.n_events[at]),
            int(found.n_candidates[at]),
            found.items[at, kept].astype("<i4").tobytes(),
            half_bytes(found.scores[at, kept]),
            half_bytes(found.retrieval[at, kept]),
            watermark,
        )
        record = user_record(dataset, states, at, user)
        told = [
            record.items,
            record.times,
            record.weights,
            record.n_events,
            record.seen,
            record.attributes,
        ]
        file.write(msgpack.packb([dataset.user_ids[user], packed, told]))


def user_record(dataset: Dataset, states: UserStates, at: int, user: int) -> UserRecord:
    """The record of the user at position `at` of `states`, who is row `user` of the data set."""
    ids = dataset.catalogue.ids
    present = states.items[at] != MISSING
    rows = states.items[at, present]
    earlier = np.setdiff1d(states.seen(at), rows)
    weights = states.weights[at, present]
    return UserRecord(
        items=tuple(ids[row] for row in rows),
        times=tuple(states.times[at, present].tolist()),
        weights=tuple(None if np.isnan(w) else float(w) for w in weights),
        n_events=int(states.n_events[at]),
        seen=tuple(ids[row] for row in earlier),
        attributes=dataset.vocabulary.decode(dataset.attributes[user]),
    )
