"""The self-check before a release serves: what was written for a user is what the live path answers from the uploaded bundle.

Statistics cannot tell that two paths agree; asking both can. The bundle is fetched as a Lambda
fetches it, the user's record and list are those that were written, and the answer is made from them
alone.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable
from heapq import nsmallest
from pathlib import Path

import numpy as np

from shortlist.batch.precompute import Precomputed
from shortlist.recsys.errors import ReleaseRefused
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.models.scores import within_half
from shortlist.recsys.store.artefacts import Artefacts
from shortlist.recsys.store.records import ShortlistRecord, UserRecord, unpack_list
from shortlist.recsys.store.redis import Store

USERS = 200
"""Users who are asked about; all of them where there are no more."""

TOLERANCE = 2.0**-9
"""Relative difference that two scores may have: the two half-precision numbers next to each other."""


def check(
    artefacts: Artefacts,
    store: Store,
    version: str,
    written: Iterable[Precomputed],
    users: int = USERS,
) -> str:
    """Compares the stored lists of a sample of users with the live path's answers; gives a note of what was compared.

    written: the users who have a list, with their records; the same of them are drawn each time for
    a version.

    Raises:
        ReleaseRefused: a user's list is not what the live path answers.
    """
    sample = nsmallest(users, written, key=lambda p: zlib.crc32(f"{version} {p.user_id}".encode()))
    with tempfile.TemporaryDirectory() as directory:
        loaded = bundle.load(artefacts.fetch(version, Path(directory)))
        stored = store.lists(version, [p.user_id for p in sample])
        pairs = enumerate(zip(sample, stored, strict=True), 1)
        found = [_difference(loaded, number, user, packed) for number, (user, packed) in pairs]
    broken = [difference for difference in found if difference is not None]
    if broken:
        message = (
            f"release {version}: the live path answers {len(broken)} of {len(sample)} users otherwise than their list says, the "
            f"first of them {broken[0]}; the old release goes on serving: bundle, lists and code do not belong together; run "
            "`shortlist batch run` with an empty work directory"
        )
        raise ReleaseRefused(message)
    return f"{len(sample)} lists are what the live path answers"


def _difference(loaded: Bundle, number: int, user: Precomputed, packed: bytes | None) -> str | None:
    """Where the list and the live answer part; None where they agree. Users are numbers here: a log outlives them."""
    name = f"user {number} of the sample"
    if packed is None:
        return f"{name}: there is no list"
    written = unpack_list(packed)
    live = live_answer(loaded, user.record, int(loaded.manifest["list_length"]))
    for place, pair in enumerate(zip(written.rows, live.rows, strict=False), 1):
        if pair[0] != pair[1]:
            return (
                f"{name}: place {place} has {_name(loaded, pair[0])}, live {_name(loaded, pair[1])}"
            )
    if len(written.rows) != len(live.rows) or written.n_candidates != live.n_candidates:
        lengths = (len(written.rows), written.n_candidates), (len(live.rows), live.n_candidates)
        return f"{name}: {lengths[0]} items and candidates, live {lengths[1]}"
    if not np.allclose(written.scores, live.scores, rtol=TOLERANCE, atol=1e-6):
        return f"{name}: scores from {written.scores[0]}, live {live.scores[0]}"
    return None


def live_answer(loaded: Bundle, record: UserRecord, k: int) -> ShortlistRecord:
    """What the live path answers a user of this record, as a list would hold it; scores at full precision, within its range."""
    told = (
        record.items,
        record.times,
        record.weights,
        record.n_events,
        record.seen,
        record.attributes or {},
    )
    found = recommend(loaded.model, bundle.state_from(loaded, *told)[0], k)
    kept = found.items[0] != MISSING
    scores, retrieval = (
        within_half(column[0, kept]).tolist() for column in (found.scores, found.retrieval)
    )
    at = int(loaded.manifest["created_at"]), int(loaded.manifest["as_of"])
    rows = tuple(found.items[0, kept].tolist())
    return ShortlistRecord(
        *at, record.n_events, int(found.n_candidates[0]), rows, tuple(scores), tuple(retrieval)
    )


def _name(loaded: Bundle, row: int) -> str:
    ids = loaded.catalogue.ids
    return repr(ids[row]) if 0 <= row < len(ids) else f"row {row}, which the catalogue lacks"
