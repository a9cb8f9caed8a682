"""Publishes a release: the bundle, then the lists, then proof that both are there, then one flip of the pointer.

Until the flip nobody reads the new release; a crash at any point leaves the old one serving, and a
second run completes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shortlist.batch import parity
from shortlist.batch.operator_notes import keep_operators_changes
from shortlist.batch.precompute import Precomputed, read_shards
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.workspace import leased, local_run
from shortlist.recsys.errors import CorruptArtefact, LeaseHeld, ReleaseRefused
from shortlist.recsys.models.bundle import load_items
from shortlist.recsys.models.scores import falling_scores
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.artefacts import (
    Artefacts,
    ensure_fits,
    manifest_in,
    open_artefacts,
    verify,
)
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.lease import Lease
from shortlist.recsys.store.records import ItemRecord, ReleasePointer, pack_list, unpack_list
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.redis_client import server_policy
from shortlist.recsys.store.watermark import BEGINNING

BATCH_TIMEOUT_MS = 30_000
"""The batch waits longer for Redis than a request may."""

PAGE = "report.html"
"""The run's report for people, in the work directory and in the bundle."""

VERIFIED_USERS = 1000
"""Lists that are read back; all of them where there are no more."""


def publish(
    bundle: Path,
    lists: Path,
    settings: Settings,
    reporter: ProgressReporter,
    lease: Lease | None = None,
    replaces: object = releases.ANY,
) -> str:
    """Publishes the bundle and the lists; gives the version.

    lease: of the run; None takes one for this publication. replaces: see `releases.flip`.

    Raises:
        ReleaseRefused: a list, or what answers show of the items, is not in Redis as it was
            written; whoever serves has no room for the bundle; or another release has been made to
            serve meanwhile.
        LeaseHeld: another batch is at work.
    """
    manifest = verify(bundle)
    ensure_fits(settings.artefacts, manifest, settings.bundle_max_mb)
    with contextlib.closing(_store(settings)) as store, contextlib.ExitStack() as stack:
        store.ping()
        if lease is None:
            lease = stack.enter_context(leased(settings, local_run(bundle)))
        lease.confirm()
        _refuse_eviction(store)
        releases.check_replaces(_readable_release(store), str(manifest["version"]), replaces)
        keep_operators_changes(store, open_artefacts(settings.artefacts))
        version = _written(store, bundle, lists, settings, reporter, manifest, lease.proof.token)
        try:
            releases.flip(store, version, lease, replaces)
        except ReleaseRefused:
            _retire_refused(store, version, settings.list_ttl_seconds)
            raise
        reporter.say(f"  release {version} is serving")
        if store.is_retiring(version):  # by a batch that was overtaken and did not know of it
            store.restore(version)
        with contextlib.suppress(
            LeaseHeld
        ):  # the release serves; whoever holds the lease by now clears up
            _clear_up(store, settings, reporter, lease)
    return version


def _clear_up(
    store: RedisStore, settings: Settings, reporter: ProgressReporter, lease: Lease
) -> None:
    """Lets what nothing leads to expire. Raises LeaseHeld where another batch has taken over."""
    lease.confirm()
    alive = _alive(store)
    if not alive:
        return
    store.retire_unknown(alive, NEWCOMER_SECONDS)
    retired = retire_superseded(store, settings.list_ttl_seconds, lease.confirm)
    if retired:
        reporter.say(
            f"  what Redis holds of {', '.join(retired)} expires in {settings.list_ttl_seconds} s"
        )


def _readable_release(store: RedisStore) -> ReleasePointer | None:
    """The pointer; None for one that cannot be read, which the flip mends."""
    with contextlib.suppress(CorruptArtefact):
        return store.release()
    return None


def _refuse_eviction(store: RedisStore) -> None:
    """Raises ReleaseRefused where a server that is full would throw out the serving release."""
    policy = server_policy(store)
    if policy is not None and policy.evicts_any_key:
        message = (
            f"Redis has maxmemory-policy {policy.maxmemory_policy} and evicts any key beyond {policy.maxmemory} bytes, the "
            "serving release too: set noeviction, or a volatile policy, which takes live results first"
        )
        raise ReleaseRefused(message)


def _written(
    store: RedisStore,
    bundle: Path,
    lists: Path,
    settings: Settings,
    reporter: ProgressReporter,
    manifest: dict[str, Any],
    token: int,
) -> str:
    version = str(manifest["version"])
    with reporter.stage("upload the bundle"):
        artefacts = open_artefacts(settings.artefacts)
        if version not in artefacts.versions():
            artefacts.publish(bundle)
    _note(
        store, manifest
    )  # first, so that deleting a user, and whoever clears up after a crash, knows of the release
    try:
        _write_and_verify(store, artefacts, bundle, lists, reporter, manifest, token)
    except ReleaseRefused:
        _retire_refused(store, version, settings.list_ttl_seconds)
        raise
    return version


def _retire_refused(store: RedisStore, version: str, ttl: int) -> None:
    """Lets what was written expire, unless it is of a release that serves and was being published again."""
    alive = _alive(store)
    if alive and version not in alive:
        store.retire(version, ttl)


def _write_and_verify(
    store: RedisStore,
    artefacts: Artefacts,
    bundle: Path,
    lists: Path,
    reporter: ProgressReporter,
    manifest: dict[str, Any],
    token: int,
) -> None:
    version = str(manifest["version"])
    with reporter.stage("write the lists") as progress:
        _write_items(store, version, bundle)
        is_deleted = store.is_deleted()
        written = store.write_lists(
            version, ((p.user_id, p.packed) for p in _kept(lists, is_deleted))
        )
        watermark = int(manifest.get("watermark", BEGINNING))
        store.merge_users(
            ((p.user_id, p.record) for p in _kept(lists, is_deleted)), watermark, token
        )
        _delete_late(store, lists)
        progress(1.0, f"{written} lists")
    with reporter.stage("verify by reading back") as progress:
        _verify_items(store, version)
        progress(1.0, f"{_verify(store, version, lists, written, is_deleted)} lists")
    with reporter.stage("compare with live answers") as progress:
        progress(1.0, parity.check(artefacts, store, version, _kept(lists, store.is_deleted())))


def retire_superseded(store: RedisStore, ttl: int, confirm: Callable[[], object]) -> list[str]:
    """Lets every release expire that neither serves, nor is a canary, nor would come back by a rollback; gives them.

    Only here keys get a time to live: a server that is full evicts keys that have one, and a
    refresh may be late. Only under
    a lease: the release that another batch is writing would be taken for one that was left behind.
    """
    upkeep = AdminStore(store)
    retired: list[str] = []
    for version in upkeep.versions():
        confirm()  # else another batch may be writing this very release
        alive = _alive(store)
        if not alive or version in alive:
            continue
        if store.retire(version, ttl):
            retired.append(version)
        elif store.popular(version) is None:
            upkeep.forget_release(version)
        if version in _alive(store):  # an operator has promoted it meanwhile
            store.restore(version)
    return retired


def _alive(store: RedisStore) -> tuple[str, ...]:
    """The releases that may serve; none where the pointer is lost or cannot be read, and nothing may be retired."""
    pointer = _readable_release(store)
    return () if pointer is None else pointer.versions


def serving(settings: Settings) -> str | None:
    """The release that serves at this moment, or None."""
    with contextlib.closing(_store(settings)) as store:
        pointer = store.release()
    return None if pointer is None else pointer.current


def is_there(settings: Settings, bundle: Path) -> bool:
    """Whether a release that was published is in Redis still, as far as it is anybody's: one that was superseded need not be."""
    version = str(manifest_in(bundle)["version"])
    with contextlib.closing(_store(settings)) as store:
        pointer = store.release()
        return pointer is not None and (version not in pointer.versions or store.is_whole(version))


def deleted_users(settings: Settings) -> Callable[[str], bool]:
    """Whether a user id is one of those that were deleted, whom nothing may learn from."""
    with contextlib.closing(_store(settings)) as store:
        keep_operators_changes(store, open_artefacts(settings.artefacts))
        return store.is_deleted()


def drained_up_to(settings: Settings) -> int:
    """The position in the stream of events up to which every event lies in the drain's files."""
    with contextlib.closing(_store(settings)) as store:
        return EventLog(store).drained_up_to()


def promote(settings: Settings, version: str) -> ReleasePointer:
    """See `releases.promote`, under these settings; a release that was retired is kept from expiring first."""
    artefacts = open_artefacts(settings.artefacts)
    with contextlib.closing(_store(settings)) as store:
        artefacts.manifest(version)
        store.restore(version)
        return releases.promote(store, artefacts, version)


def rollback(settings: Settings) -> ReleasePointer:
    """See `releases.rollback`, under these settings."""
    with contextlib.closing(_store(settings)) as store:
        return releases.rollback(store, open_artefacts(settings.artefacts))


def _store(settings: Settings) -> RedisStore:
    return open_store(settings.redis_url, settings.namespace, BATCH_TIMEOUT_MS)


def _note(store: RedisStore, manifest: dict[str, Any]) -> None:
    ndcg = manifest.get("metrics", {}).get("two_stage", {}).get("ndcg@10", {}).get("value")
    AdminStore(store).note_release(
        ReleaseNote(str(manifest["version"]), int(manifest["created_at"]), ndcg)
    )


def _kept(lists: Path, is_deleted: Callable[[str], bool]) -> Iterator[Precomputed]:
    """Every user of the shards who was not deleted since they were computed."""
    return (user for user in read_shards(lists) if not is_deleted(user.user_id))


def _delete_late(store: RedisStore, lists: Path) -> None:
    """Users who were deleted since their lists were computed: deleted once more, whichever run wrote them, a killed one too."""
    is_deleted = store.is_deleted()
    for user in read_shards(lists):
        if is_deleted(user.user_id):
            AdminStore(store).delete_user(user.user_id, int(time.time()))


def _write_items(store: RedisStore, version: str, bundle: Path) -> None:
    items, by_popularity = load_items(bundle)
    columns = zip(items.ids, items.titles, items.categories, strict=True)
    store.write_items(version, ((row, ItemRecord(*told)) for row, told in enumerate(columns)))
    popular = by_popularity[:1000]
    manifest = verify(bundle)
    falling = falling_scores(len(popular), "<f2").tobytes()
    at = (int(manifest["created_at"]), int(manifest["as_of"]))
    store.write_popular(
        version, pack_list(*at, 0, len(popular), popular.tobytes(), falling, falling)
    )


def _verify_items(store: RedisStore, version: str) -> None:
    """The whole catalogue is there, and the popular items are as they were written."""
    packed = store.popular(version)
    rows = () if packed is None else unpack_list(packed).rows
    shown = [item for item in store.items(version, rows) if item is not None]
    as_written = (
        len(shown) == len(rows) and shown and store.rows_of(version, [shown[0].id])[0] == [rows[0]]
    )
    if not as_written or not store.is_whole(version):
        message = (
            f"release {version}: {len(shown)} of its {len(rows)} popular items read back as written; the old release goes on "
            "serving: check Redis's memory and eviction, and publish again"
        )
        raise ReleaseRefused(message)


def _verify(
    store: RedisStore, version: str, lists: Path, written: int, is_deleted: Callable[[str], bool]
) -> int:
    sample = _sample(_kept(lists, is_deleted), random.Random(version))  # noqa: S311 - a sample, not a secret
    total = sum(1 for _ in _kept(lists, is_deleted))
    if written != total:
        raise ReleaseRefused(
            f"release {version}: {written} of {total} lists were written; the old release goes on serving"
        )
    stored = store.lists(version, [p.user_id for p in sample])
    late = store.is_deleted()
    broken = [
        p
        for p, found in zip(sample, stored, strict=True)
        if found != p.packed and not late(p.user_id)
    ]
    if broken:
        message = (
            f"release {version}: {len(broken)} of {len(sample)} lists read back otherwise than written; the old release "
            "goes on serving: check Redis's memory and eviction, and publish again"
        )
        raise ReleaseRefused(message)
    return len(sample)


def _sample(users: Iterator[Precomputed], rng: random.Random) -> list[Precomputed]:
    """Reservoir sampling (Vitter, 1985): VERIFIED_USERS users, or all."""
    kept: list[Precomputed] = []
    for seen, user in enumerate(users):
        if len(kept) < VERIFIED_USERS:
            kept.append(user)
        elif (at := rng.randrange(seen + 1)) < VERIFIED_USERS:
            kept[at] = user
    return kept
