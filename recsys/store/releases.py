"""Flips the release pointer for the batch and for operators.

Two who flip at once never overwrite each other: each change of the pointer names the value that it
replaces. A batch flips under its lease alone. An operator's flip is the newer word: it ends the
right of every batch that runs at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shortlist.recsys.errors import InvalidInput, StoreUnavailable, UnreadableRecord
from shortlist.recsys.store.artefacts import Artefacts
from shortlist.recsys.store.flip import Flip, FlipIf, LeaseProof
from shortlist.recsys.store.lease import Lease, overtaken, taken_over
from shortlist.recsys.store.records import Canary, ReleasePointer, unpack_pointer
from shortlist.recsys.store.redis import RedisStore

ATTEMPTS = 10
"""Changes of the pointer by others that one change outlasts; more are no coincidence."""

Changed = Callable[[ReleasePointer | None], ReleasePointer]
"""Makes the new pointer from the stored one, which is None where none can be read."""

ANY = object()
"""Stands for any serving release."""


def flip(
    store: RedisStore, version: str, lease: Lease | None = None, replaces: object = ANY
) -> ReleasePointer:
    """Makes `version` the serving release.

    lease: of the batch that flips; None for an operator. replaces: the release that served, or
    None, when that batch read its data: where another one serves by now, it has newer data, or an
    operator wants it.

    Raises:
        LeaseHeld: the lease is lost.
        ReleaseRefused: another batch or an operator has flipped since the batch began.
    """

    def changed(old: ReleasePointer | None) -> ReleasePointer:
        if old is not None and old.current == version:
            return old
        check_replaces(old, version, replaces)
        return ReleasePointer(version, None if old is None else old.current)

    if lease is None:
        return change(store, changed, new_token=True)
    # A lease that lapsed while Redis was away is taken again, unless another batch had it.
    lease.confirm()
    return change(store, changed, lease.proof)


def check_replaces(old: ReleasePointer | None, version: str, replaces: object) -> None:
    """Checks whether `version` may replace the serving release.

    See `flip`. Raises ReleaseRefused where it may not.
    """
    if old is None or replaces is ANY:
        return
    if old.current not in {version, replaces}:
        raise overtaken(version)


def change(
    store: RedisStore, changed: Changed, lease: LeaseProof | None = None, *, new_token: bool = False
) -> ReleasePointer:
    """Changes the pointer; gives the new one.

    lease, new_token: see `FlipIf`.
    """
    for _ in range(ATTEMPTS):
        packed = store.packed_release()
        old = _readable(packed)
        pointer = changed(old)
        if pointer == old:  # no flip, so no running batch is overtaken
            return pointer
        match store.set_release(pointer, FlipIf(packed, lease, new_token)):
            case Flip.DONE:
                return pointer
            case Flip.LEASE_LOST:
                raise taken_over()
            case Flip.OVERTAKEN:
                raise overtaken(pointer.current)
            case Flip.CHANGED:
                continue
    raise StoreUnavailable(
        f"the release pointer was changed by others {ATTEMPTS} times in a row: try again"
    )


def _readable(packed: bytes | None) -> ReleasePointer | None:
    try:
        return None if packed is None else unpack_pointer(packed)
    except UnreadableRecord:  # a flip mends it
        return None


def promote(store: RedisStore, artefacts: Artefacts, version: str) -> ReleasePointer:
    """Flips to a release that is whole in the artefacts and in Redis.

    Raises:
        InvalidInput: its lists are no longer in Redis, or are about to expire.
        ReleaseNotFound: it is not among the artefacts.
        CorruptArtefact: its manifest cannot be read.
    """
    artefacts.manifest(version)
    _assert_lasting(store, version, f"shortlist release promote {version}")
    return flip(store, version)


def rollback(store: RedisStore, artefacts: Artefacts) -> ReleasePointer:
    """Flips back to the release before.

    Raises:
        InvalidInput: there is none.
    """
    pointer = store.release()
    if pointer is None or pointer.previous is None:
        raise InvalidInput("there is no release before this one: nothing to roll back to")
    return promote(store, artefacts, pointer.previous)


def canary(store: RedisStore, artefacts: Artefacts, version: str, percent: float) -> ReleasePointer:
    """Serves a share of the users, always the same ones, from `version`; a share of 0 ends it.

    Raises:
        InvalidInput: the release serves already, its lists are no longer in Redis or are about to
            expire, or no release serves.
        ReleaseNotFound: it is not among the artefacts.
        CorruptArtefact: its manifest cannot be read.
    """
    artefacts.manifest(version)

    def changed(pointer: ReleasePointer | None) -> ReleasePointer:
        if pointer is None or pointer.current == version:
            reason = "no release serves"
            if pointer is not None:
                reason = f"release {version} serves everybody already"
            raise InvalidInput(
                f"{reason}: a canary is a release next to the serving one; "
                "see `shortlist release list`"
            )
        return replace(pointer, canary=Canary(version, percent) if percent > 0 else None)

    changed(store.release())  # a wrong version is the first thing to report
    if percent > 0:
        _assert_lasting(store, version, f"shortlist release canary {version} --percent {percent:g}")
    return change(store, changed)


def _assert_lasting(store: RedisStore, version: str, remedy: str) -> None:
    """Checks that a release is whole in Redis, and stays so.

    remedy: the command that keeps a retired one.
    """
    if not store.is_whole(version):
        raise InvalidInput(
            f"release {version} is no longer whole in Redis (its lists expired): "
            "publish it again by a batch run"
        )
    if store.is_retiring(version):
        raise InvalidInput(f"release {version} is retired, its lists expire: keep it by `{remedy}`")
