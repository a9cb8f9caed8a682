"""Publishes releases in one flip, and lets superseded ones expire.

Until the flip nobody reads the new release; a crash at any point leaves the old one serving, and a
second run completes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shortlist.batch import parity
from shortlist.batch.batch_store import batch_store
from shortlist.batch.operator_notes import keep_operators_changes
from shortlist.batch.precompute import Precomputed, read_shards
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.workspace import leased, local_run
from shortlist.recsys.errors import InvalidInput, LeaseHeld, ReleaseRefused, UnreadableRecord
from shortlist.recsys.evaluation.headline import headline_value
from shortlist.recsys.models.bundle import Items, load_items
from shortlist.recsys.models.interactions import Int32
from shortlist.recsys.models.scores import falling_scores
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.artefacts import Artefacts, ensure_fits, open_artefacts
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.lease import Lease
from shortlist.recsys.store.records import ReleasePointer, pack_list, unpack_list
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import server_policy
from shortlist.recsys.store.release_facts import (
    MAX_LABELS,
    ReleaseFacts,
    facts_in,
    pack_facts,
    unpack_facts,
)
from shortlist.recsys.store.release_files import manifest_in, verify
from shortlist.recsys.store.rules import fitting
from shortlist.recsys.store.rules_notes import named_items, vain
from shortlist.recsys.store.rules_reading import changes, rules_of
from shortlist.recsys.store.watermark import BEGINNING
from shortlist.recsys.where import CATEGORIES, AttributeKind, AttributeValue, labels_of

VERIFIED_USERS = 1000
"""Lists that are read back; all of them where there are no more.

A loss of 1% of the lists is missed about once in 20,000 publications.
"""


def publish(
    bundle: Path,
    lists: Path,
    settings: Settings,
    reporter: ProgressReporter,
    lease: Lease | None = None,
    replaces: object = releases.ANY,
    rules: Mapping[str, Any] | None = None,
) -> str:
    """Publishes the bundle and the lists; gives the version.

    lease: of the run; None takes one for this publication. replaces: see `releases.flip`. rules:
    business rules to put in place before the flip, as JSON has them; None leaves those in Redis.

    Raises:
        ReleaseRefused: a list, or what answers show of the items, is not in Redis as it was
            written; the API has no room for the bundle; or another release has been made to serve
            meanwhile.
        LeaseHeld: another batch is at work.
        InvalidInput: a rule does not fit the release.
    """
    # Both before anything is written: a release that no Lambda can load must not leave traces.
    manifest = verify(bundle)
    ensure_fits(settings.artefacts, manifest, settings.bundle_max_mb)
    if rules is not None:
        _check_rules(rules, manifest)
    with batch_store(settings) as store, contextlib.ExitStack() as stack:
        store.ping()
        if lease is None:
            lease = stack.enter_context(leased(settings, local_run(bundle)))
        lease.confirm()  # in Redis, not by the clock: training has taken hours
        _refuse_eviction(store)
        releases.check_replaces(_readable_release(store), str(manifest["version"]), replaces)
        keep_operators_changes(store, open_artefacts(settings.artefacts))
        version = _written(store, bundle, lists, settings, reporter, manifest, lease.proof.token)
        try:
            if rules is not None:
                # What would refuse the flip comes first: the old release would have the new rules.
                lease.confirm()
                releases.check_replaces(_readable_release(store), version, replaces)
                _put_rules(store, rules, reporter)
                _note_vain_rules(store, version, rules, reporter)
            releases.flip(store, version, lease, replaces)
        except ReleaseRefused:
            _retire_refused(store, version, settings.list_ttl_seconds)
            raise
        reporter.say(f"  release {version} is serving")
        if store.is_retiring(version):  # by a batch that was overtaken and did not know of it
            store.restore(version)
        # The release serves: a batch that has taken over the lease will clear up.
        with contextlib.suppress(LeaseHeld):
            _clear_up(store, settings, reporter, lease)
    return version


def _check_rules(plain: Mapping[str, Any], manifest: dict[str, Any]) -> None:
    """Raises InvalidInput for a rule about attributes that the release lacks."""
    faults = fitting(rules_of(plain), facts_in(manifest).attributes)[1]
    if faults:
        raise InvalidInput(f"{'; '.join(faults)}: correct the file of rules, or the items table")


def _put_rules(store: RedisStore, plain: Mapping[str, Any], reporter: ProgressReporter) -> None:
    admin = AdminStore(store)
    before = admin.rules()
    if before.plain == plain:
        return
    after = admin.write_rules(plain, "the batch", int(time.time()))
    changed = ", ".join(
        f"{section} +{len(each['added'])} -{len(each['removed'])}"
        for section, each in changes(before.plain, plain).items()
    )
    reporter.say(
        f"  rules: version {after.version} replaces that of {before.by or 'nobody'}: {changed}"
    )


def _note_vain_rules(
    store: RedisStore, version: str, plain: Mapping[str, Any], reporter: ProgressReporter
) -> None:
    """Says which rules change nothing in the release, as the admin routes do."""
    rules, packed = rules_of(plain), store.facts(version)
    named = named_items(rules)
    rows, _ = store.rows_of(version, named)
    unknown = [item for item, row in zip(named, rows, strict=True) if row is None]
    facts = ReleaseFacts() if packed is None else unpack_facts(packed)
    for note in vain(rules, facts, unknown, time.time()):
        reporter.say(f"  rules: {note}")


def _clear_up(
    store: RedisStore, settings: Settings, reporter: ProgressReporter, lease: Lease
) -> None:
    """Lets what nothing leads to expire.

    Raises:
        LeaseHeld: another batch has taken over.
    """
    lease.confirm()
    alive = _alive(store)
    if not alive:
        return
    store.retire_unknown(alive, NEWCOMER_SECONDS)
    retired = retire_superseded(store, settings.list_ttl_seconds, lease.confirm)
    if retired:
        ttl = settings.list_ttl_seconds
        reporter.say(f"  what Redis holds of {', '.join(retired)} expires in {ttl} s")


def _readable_release(store: RedisStore) -> ReleasePointer | None:
    """The pointer; None for one that cannot be read.

    The flip replaces such a pointer.
    """
    with contextlib.suppress(UnreadableRecord):
        return store.release()
    return None


def _refuse_eviction(store: RedisStore) -> None:
    """Refuses a Redis that would evict the serving release."""
    policy = server_policy(store)
    if policy is not None and policy.evicts_any_key:
        message = (
            f"Redis has maxmemory-policy {policy.maxmemory_policy} and evicts any key beyond "
            f"{policy.maxmemory} bytes, the serving release too: set noeviction, or a volatile "
            "policy, which takes live results first"
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
    # Before the lists: deleting a user, and clearing up after a crash, go by the noted releases.
    _note(store, manifest)
    try:
        _write_and_verify(store, artefacts, bundle, lists, reporter, manifest, token)
    except ReleaseRefused:
        _retire_refused(store, version, settings.list_ttl_seconds)
        raise
    return version


def _retire_refused(store: RedisStore, version: str, ttl: int) -> None:
    """Lets what was written expire, unless the release serves and was being published again."""
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
        items, by_popularity = load_items(bundle)
        facts = pack_facts(replace(facts_in(manifest), labels=_labels(items)))
        _write_items(store, manifest, items, by_popularity)
        store.write_facts(version, facts)
        is_deleted = store.is_deleted()
        packed_lists = ((user.user_id, user.packed) for user in _kept(lists, version, is_deleted))
        written = store.write_lists(version, packed_lists)
        watermark = int(manifest.get("watermark", BEGINNING))
        records = ((user.user_id, user.record) for user in _kept(lists, version, is_deleted))
        store.merge_users(records, watermark, token, facts_in(manifest).events)
        _delete_late(store, lists, version)
        progress(1.0, f"{written} lists")
    with reporter.stage("verify by reading back") as progress:
        _verify_items(store, version, facts)
        progress(1.0, f"{_verify(store, version, lists, written, is_deleted)} lists")
    with reporter.stage("compare with live answers") as progress:
        kept = _kept(lists, version, store.is_deleted())
        progress(1.0, parity.check(artefacts, store, version, kept))


def retire_superseded(store: RedisStore, ttl: int, confirm: Callable[[], object]) -> list[str]:
    """Retires every release without a role; gives them.

    Roles are: it serves, is a canary, or would come back by a rollback. Only here keys get a time
    to live: a server that is full evicts keys that have one, and a refresh may be late. Only under
    a lease: the release that another batch is writing would be taken for an abandoned one.
    """
    admin = AdminStore(store)
    retired: list[str] = []
    for version in admin.versions():
        confirm()  # else another batch may be writing this very release
        alive = _alive(store)
        if not alive or version in alive:
            continue
        if store.retire(version, ttl):
            retired.append(version)
        elif store.popular(version) is None:
            admin.forget_release(version)
        if version in _alive(store):  # an operator has promoted it meanwhile
            store.restore(version)
    return retired


def _alive(store: RedisStore) -> tuple[str, ...]:
    """The releases that may serve.

    None where the pointer is lost or cannot be read: then nothing may be retired.
    """
    pointer = _readable_release(store)
    return () if pointer is None else pointer.versions


def serving(settings: Settings) -> str | None:
    """The release that serves at this moment, or None."""
    with batch_store(settings) as store:
        pointer = store.release()
    return None if pointer is None else pointer.current


def is_there(settings: Settings, bundle: Path) -> bool:
    """Whether a release need not be published again.

    It is whole in Redis, or has been superseded since it was published.
    """
    version = str(manifest_in(bundle)["version"])
    with batch_store(settings) as store:
        pointer = store.release()
        if pointer is None:
            return False
        return version not in pointer.versions or store.is_whole(version)


def deleted_users(settings: Settings) -> Callable[[str], bool]:
    """Tells whether a user was deleted.

    Nothing may be learnt from such users.
    """
    with batch_store(settings) as store:
        keep_operators_changes(store, open_artefacts(settings.artefacts))
        return store.is_deleted()


def drained_up_to(settings: Settings) -> int:
    """The stream position up to which files have all events."""
    with batch_store(settings) as store:
        return EventLog(store).drained_up_to()


def promote(settings: Settings, version: str) -> ReleasePointer:
    """Promotes a release, see `releases.promote`."""
    artefacts = open_artefacts(settings.artefacts)
    with batch_store(settings) as store:
        artefacts.manifest(version)
        store.restore(version)  # first, or a retired release might expire while it is promoted
        return releases.promote(store, artefacts, version)


def rollback(settings: Settings) -> ReleasePointer:
    """Goes back to the release before, see `releases.rollback`."""
    with batch_store(settings) as store:
        return releases.rollback(store, open_artefacts(settings.artefacts))


def _note(store: RedisStore, manifest: dict[str, Any]) -> None:
    ndcg = headline_value(manifest.get("metrics", {}))
    AdminStore(store).note_release(
        ReleaseNote(str(manifest["version"]), int(manifest["created_at"]), ndcg)
    )


def _kept(lists: Path, version: str, is_deleted: Callable[[str], bool]) -> Iterator[Precomputed]:
    """The shards' users who have not been deleted since."""
    return (user for user in read_shards(lists, version) if not is_deleted(user.user_id))


def _delete_late(store: RedisStore, lists: Path, version: str) -> None:
    """Deletes users again who were deleted meanwhile.

    This run, or a killed one, has just written their lists.
    """
    is_deleted = store.is_deleted()
    for user in read_shards(lists, version):
        if is_deleted(user.user_id):
            AdminStore(store).delete_user(user.user_id, int(time.time()))


def _labels(items: Items) -> dict[str, frozenset[str]]:
    """The labels that items have, of each attribute with few enough; see `ReleaseFacts`."""
    columns: dict[str, Iterable[AttributeValue]] = {CATEGORIES: items.categories}
    for attribute in items.attributes:
        if attribute.is_filtered and attribute.kind in (AttributeKind.TEXT, AttributeKind.LIST):
            columns[attribute.name] = attribute.values
    labels: dict[str, frozenset[str]] = {}
    for name, values in columns.items():
        known: set[str] = set()
        for value in values:
            known.update(labels_of(value))
            if len(known) > MAX_LABELS:
                break
        else:
            labels[name] = frozenset(known)
    return labels


def _write_items(
    store: RedisStore, manifest: dict[str, Any], items: Items, by_popularity: Int32
) -> None:
    version = str(manifest["version"])
    store.write_items(version, enumerate(map(items.record, range(len(items.ids)))))
    popular = by_popularity[:1000]
    falling = falling_scores(len(popular), "<f2").tobytes()
    at = (int(manifest["created_at"]), int(manifest["as_of"]))
    store.write_popular(
        version, pack_list(*at, 0, len(popular), popular.tobytes(), falling, falling)
    )


def _verify_items(store: RedisStore, version: str, facts: bytes) -> None:
    """Checks the catalogue, the popular items and the facts."""
    if store.facts(version) != facts:
        raise ReleaseRefused(
            f"release {version}: its facts read back otherwise than written; the old release goes "
            "on serving: check Redis's memory and eviction, and publish again"
        )
    packed = store.popular(version)
    rows = () if packed is None else unpack_list(packed).rows
    shown = [item for item in store.items(version, rows) if item is not None]
    as_written = (
        len(shown) == len(rows) and shown and store.rows_of(version, [shown[0].id])[0] == [rows[0]]
    )
    if not as_written or not store.is_whole(version):
        message = (
            f"release {version}: {len(shown)} of its {len(rows)} popular items read back as "
            "written; the old release goes on serving: check Redis's memory and eviction, and "
            "publish again"
        )
        raise ReleaseRefused(message)


def _verify(
    store: RedisStore, version: str, lists: Path, written: int, is_deleted: Callable[[str], bool]
) -> int:
    sample = _sample(_kept(lists, version, is_deleted), random.Random(version))  # noqa: S311 - a sample, not a secret
    total = sum(1 for _ in _kept(lists, version, is_deleted))
    if written != total:
        raise ReleaseRefused(
            f"release {version}: {written} of {total} lists were written; "
            "the old release goes on serving"
        )
    stored = store.lists(version, [user.user_id for user in sample])
    was_deleted = store.is_deleted()  # read again, for who was deleted meanwhile
    broken = [
        user
        for user, packed in zip(sample, stored, strict=True)
        if packed != user.packed and not was_deleted(user.user_id)
    ]
    if broken:
        message = (
            f"release {version}: {len(broken)} of {len(sample)} lists read back otherwise than "
            "written; the old release goes on serving: check Redis's memory and eviction, and "
            "publish again"
        )
        raise ReleaseRefused(message)
    return len(sample)


def _sample(users: Iterator[Precomputed], rng: random.Random) -> list[Precomputed]:
    """Draws VERIFIED_USERS users, or all, by reservoir sampling (Vitter, 1985)."""
    kept: list[Precomputed] = []
    for seen, user in enumerate(users):
        if len(kept) < VERIFIED_USERS:
            kept.append(user)
        elif (at := rng.randrange(seen + 1)) < VERIFIED_USERS:
            kept[at] = user
    return kept
