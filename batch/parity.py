"""Checks that stored lists equal live answers.

The check runs before a release serves. Statistics cannot show that two paths agree; answers of both
can. The bundle is fetched as a Lambda fetches it, the user's record and list are those that were
written, and the answer is made from them alone.
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
from shortlist.recsys.store.redis import RedisStore

USERS = 200
"""Users whose lists are compared; all of them where there are no more."""

TOLERANCE = 2.0**-9
"""Relative difference that two scores may have: two neighbouring half-precision numbers."""


def check(
    artefacts: Artefacts,
    store: RedisStore,
    version: str,
    written: Iterable[Precomputed],
    users: int = USERS,
) -> str:
    """Compares stored lists with the live path's answers.

    written: the users who have a list, with their records. Gives a note for the log.

    Raises:
        ReleaseRefused: a user's list is not what the live path answers.
    """
    # By a hash: a second run of the same version compares the same users.
    sample = nsmallest(users, written, key=lambda p: zlib.crc32(f"{version} {p.user_id}".encode()))
    with tempfile.TemporaryDirectory() as directory:
        loaded = bundle.load(artefacts.fetch(version, Path(directory)))
        stored = store.lists(version, [p.user_id for p in sample])
        pairs = enumerate(zip(sample, stored, strict=True), 1)
        differences = [
            _difference(loaded, number, user, packed) for number, (user, packed) in pairs
        ]
    broken = [difference for difference in differences if difference is not None]
    if broken:
        message = (
            f"release {version}: the live path answers {len(broken)} of {len(sample)} users "
            f"otherwise than their list says, the first of them {broken[0]}; the old release goes "
            "on serving: bundle, lists and code do not belong together; run `shortlist batch run` "
            "with an empty work directory"
        )
        raise ReleaseRefused(message)
    return f"{len(sample)} lists are what the live path answers"


def _difference(loaded: Bundle, number: int, user: Precomputed, packed: bytes | None) -> str | None:
    """The first difference between list and live answer.

    None where they agree.
    """
    name = f"user {number} of the sample"  # not the id: a log outlives a user's data
    if packed is None:
        return f"{name}: there is no list"
    written = unpack_list(packed)
    live = live_answer(loaded, user.record, int(loaded.manifest["list_length"]))
    for place, (row, live_row) in enumerate(zip(written.rows, live.rows, strict=False), 1):
        if row != live_row:
            item, live_item = _item_name(loaded, row), _item_name(loaded, live_row)
            return f"{name}: place {place} has {item}, live {live_item}"
    lengths = len(written.rows), written.n_candidates
    live_lengths = len(live.rows), live.n_candidates
    if lengths != live_lengths:
        return f"{name}: {lengths} items and candidates, live {live_lengths}"
    # Around 0 a relative difference says nothing, hence atol.
    if not np.allclose(written.scores, live.scores, rtol=TOLERANCE, atol=1e-6):
        return f"{name}: scores from {written.scores[0]}, live {live.scores[0]}"
    return None


def live_answer(loaded: Bundle, record: UserRecord, k: int) -> ShortlistRecord:
    """The live path's answer, in the form of a list.

    Scores are at full precision, within the range of half precision.
    """
    state, _ = bundle.state_of(loaded, record)
    recommendations = recommend(loaded.model, state, k)
    kept = recommendations.items[0] != MISSING
    return ShortlistRecord(
        int(loaded.manifest["created_at"]),
        int(loaded.manifest["as_of"]),
        record.n_events,
        int(recommendations.n_candidates[0]),
        tuple(recommendations.items[0, kept].tolist()),
        tuple(within_half(recommendations.scores[0, kept]).tolist()),
        tuple(within_half(recommendations.retrieval[0, kept]).tolist()),
    )


def _item_name(loaded: Bundle, row: int) -> str:
    ids = loaded.catalogue.ids
    return repr(ids[row]) if 0 <= row < len(ids) else f"row {row}, which the catalogue lacks"
