"""Computes every user's list in shards: each a file, written whole or not at all, and not computed twice.

A shard depends on the bundle and its users alone, so that it can be computed anywhere and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgpack
import numpy as np

from recsys.bundle import Bundle
from recsys.catalogue import Dataset
from recsys.events import MISSING, UserStates, states_at
from recsys.pipeline import CHUNK, recommend
from recsys.wire import UserRecord, pack_list

SHARD_USERS = 2048


@dataclass(frozen=True, slots=True)
class Precomputed:
    """What is published of one user: the packed list, and the record of their history."""

    user_id: str
    packed: bytes
    record: UserRecord


def write_shards(bundle: Bundle, dataset: Dataset, directory: Path, length: int, progress: Callable[[float, str], None]) -> None:
    """Writes the shards that `directory` lacks of this bundle's lists of `length` items."""
    version = str(bundle.manifest["version"])
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.msgpack"):
        if not stale.name.startswith(version):
            stale.unlink()
    n_users = dataset.events.n_users
    for start in range(0, n_users, SHARD_USERS):
        stop = min(start + SHARD_USERS, n_users)
        path = directory / f"{version}-{start:09d}.msgpack"
        if not path.exists():
            draft = path.with_suffix(".draft")
            with draft.open("wb") as file:
                for chunk in range(start, stop, CHUNK):
                    _write_users(file, bundle, dataset, range(chunk, min(chunk + CHUNK, stop)), length)
                    progress(min(chunk + CHUNK, stop) / n_users, f"{min(chunk + CHUNK, stop)} of {n_users} users")
            draft.rename(path)
        progress(stop / n_users, f"{stop} of {n_users} users")


def read_shards(directory: Path) -> Iterator[Precomputed]:
    """Every user of the shards in `directory`, in order."""
    for path in sorted(directory.glob("*.msgpack")):
        with path.open("rb") as file:
            for user_id, packed, told in msgpack.Unpacker(file, use_list=False):
                yield Precomputed(user_id, packed, UserRecord(*told))


def _write_users(file: BinaryIO, bundle: Bundle, dataset: Dataset, users: range, length: int) -> None:
    events = dataset.events
    offsets = events.offsets()[users.start : users.stop + 1]
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes[users.start : users.stop])
    found = recommend(bundle.model, states, length)
    created_at, as_of = int(bundle.manifest["created_at"]), int(bundle.manifest["as_of"])
    for at, user in enumerate(users):
        kept = found.items[at] != MISSING
        packed = pack_list(
            created_at,
            as_of,
            int(states.n_events[at]),
            int(found.n_candidates[at]),
            found.items[at, kept].astype("<i4").tobytes(),
            found.scores[at, kept].astype("<f2").tobytes(),
            found.retrieval[at, kept].astype("<f2").tobytes(),
        )
        record = user_record(dataset, states, at, user)
        told = [record.items, record.times, record.weights, record.n_events, record.seen, record.attributes]
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
