"""Which release serves, flipped by whoever may: the batch, the command line and the API's operators."""

from __future__ import annotations

from recsys.artefacts import Artefacts
from recsys.errors import InvalidInput
from recsys.store import Store
from recsys.wire import ReleasePointer


def flip(store: Store, version: str) -> ReleasePointer:
    """Makes `version` the serving release, and remembers the one before."""
    old = store.release()
    if old is not None and old.current == version:
        return old
    pointer = ReleasePointer(version, None if old is None else old.current)
    store.set_release(pointer)
    return pointer


def promote(store: Store, artefacts: Artefacts, version: str) -> ReleasePointer:
    """Flips to a release that was published before; it must be whole, in the artefacts and in Redis.

    Raises:
        InvalidInput: its lists are no longer in Redis, or are about to expire.
        CorruptArtefact: it is not among the artefacts.
    """
    artefacts.manifest(version)
    if not store.is_whole(version):
        raise InvalidInput(f"release {version} is no longer whole in Redis (its lists expired): publish it again by a batch run")
    if store.is_retiring(version):
        raise InvalidInput(f"release {version} is retired, its lists expire: keep it by `shortlist release promote {version}`")
    return flip(store, version)


def rollback(store: Store, artefacts: Artefacts) -> ReleasePointer:
    """Flips back to the release before.

    Raises:
        InvalidInput: there is none.
    """
    pointer = store.release()
    if pointer is None or pointer.previous is None:
        raise InvalidInput("there is no release before this one: nothing to roll back to")
    return promote(store, artefacts, pointer.previous)
