"""Tests the self-check of published lists against live answers.

It passes on the lists that were published, and refuses lists that differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shortlist.batch import parity
from shortlist.batch.precompute import Precomputed, read_shards
from shortlist.recsys.errors import ReleaseRefused
from shortlist.recsys.models import bundle
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.records import ShortlistRecord, pack_list, unpack_list
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_files import build_manifest


def lists_of(published) -> Iterator[Precomputed]:
    """Every user of the release's shards."""
    return read_shards(published.work / "lists", published.version)


@pytest.fixture
def artefacts(published) -> Artefacts:
    """Where the release was uploaded to."""
    return open_artefacts(published.settings.artefacts)


@pytest.fixture
def store(published) -> Iterator[RedisStore]:
    """The store of the release, whose lists are put back as they were written."""
    opened = open_store(published.settings.redis_url, "published", 1000)
    yield opened
    written = [(p.user_id, p.packed) for p in lists_of(published)]
    opened.write_lists(published.version, written)
    opened.close()


def changed(
    store: RedisStore, published, change: Callable[[ShortlistRecord], ShortlistRecord]
) -> str:
    """Changes the list of one user in the store; gives the user."""
    user = next(lists_of(published)).user_id
    r = change(unpack_list(store.lists(published.version, [user])[0]))
    columns = (np.array(r.rows, "<i4"), np.array(r.scores, "<f2"), np.array(r.retrieval, "<f2"))
    packed = pack_list(
        r.created_at, r.as_of, r.n_events, r.n_candidates, *(column.tobytes() for column in columns)
    )
    store.write_lists(published.version, [(user, packed)])
    return user


def test_a_release_as_published_passes(published, artefacts, store) -> None:
    """Every user's stored list is what the live path answers."""
    n_users = published.dataset.events.n_users
    note = parity.check(artefacts, store, published.version, lists_of(published))
    assert note == f"{n_users} lists are what the live path answers"


def test_a_sample_is_drawn_by_version(published, artefacts, store) -> None:
    """No more users than the limit."""
    note = parity.check(artefacts, store, published.version, lists_of(published), users=7)
    assert note == "7 lists are what the live path answers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, rows=(r.rows[1], r.rows[0], *r.rows[2:])), "place 1 has"),
        (
            lambda r: replace(r, rows=(*r.rows[:-1], 9999)),
            "row 9999, which the catalogue lacks, live",
        ),
        (
            lambda r: replace(
                r, rows=r.rows[:-1], scores=r.scores[:-1], retrieval=r.retrieval[:-1]
            ),
            "items and candidates",
        ),
        (lambda r: replace(r, n_candidates=r.n_candidates + 1), "items and candidates"),
        (lambda r: replace(r, scores=tuple(s * 1.01 for s in r.scores)), "scores from"),
    ],
)
def test_lists_unlike_live_answers_are_refused(
    published, artefacts, store, change, message: str
) -> None:
    """The error names the difference, and no user.

    The cases are swapped items, an unknown one, a short list, other candidates and other scores.
    """
    changed(store, published, change)
    with pytest.raises(
        ReleaseRefused,
        match=rf"1 of .* users.* the first of them user \d+ of the sample: .*{message}",
    ):
        parity.check(artefacts, store, published.version, lists_of(published))


def test_a_missing_list_refuses_the_release(published, artefacts, store) -> None:
    """A list that is not in the store cannot agree."""
    user = next(lists_of(published)).user_id
    store.redis.delete(store.keys.list(published.version, user))
    with pytest.raises(ReleaseRefused, match=r"user \d+ of the sample: there is no list"):
        parity.check(artefacts, store, published.version, lists_of(published))


def test_another_bundle_of_the_version(published, store, tmp_path: Path) -> None:
    """Whole and verified, but its towers are not those that made the lists."""
    copy = tmp_path / "bundle"
    shutil.copytree(published.work / "bundle", copy)
    towers = bundle.load_towers(copy)
    bundle.save_towers(copy, replace(towers, items=towers.items[::-1].copy()))
    fields = bundle.load(published.work / "bundle").manifest
    build_manifest(copy, **{name: value for name, value in fields.items() if name != "files"})
    other = open_artefacts(str(tmp_path / "artefacts"))
    other.publish(copy)
    with pytest.raises(ReleaseRefused, match="do not belong together"):
        parity.check(other, store, published.version, lists_of(published))
