"""Copies deletions, blocked items and business rules to the artefacts.

The copy is for a Redis that comes back empty. Redis is where both are read, and a key that it lacks
proves nothing: without a copy the next training would learn of deleted users again, and blocked
items would be back on show. The copy holds digests of users' ids, never the ids.
"""

from __future__ import annotations

import msgpack

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import Artefacts
from shortlist.recsys.store.redis import RedisStore


def keep_operators_changes(store: RedisStore, artefacts: Artefacts) -> None:
    """Restores what Redis lost, and copies what it has.

    Deletions are for good, so those of the copy always hold. An item that the copy blocks and Redis
    does not was unblocked, unless Redis has no release either: then it was emptied.

    Raises:
        CorruptArtefact: the copy cannot be read; nothing is trained from then on that might learn
            of a deleted user.
    """
    admin = AdminStore(store)
    name = f"{store.keys.namespace.replace('/', '_')}.msgpack"
    kept = artefacts.read_note(name)
    if kept is not None:
        deletions, blocked, rules = _unpacked(kept, name)
        admin.add_deletions(deletions)
        if store.release() is None:
            for item in blocked:
                admin.block(item)
            if rules is not None:
                admin.restore_rules(rules)
    own = [sorted(admin.deletions().items()), sorted(store.blocked()), store.packed_rules()]
    current = msgpack.packb(own)
    if current != kept:
        artefacts.write_note(name, current)


def _unpacked(packed: bytes, name: str) -> tuple[dict[bytes, bytes], list[str], bytes | None]:
    try:
        match msgpack.unpackb(packed):
            case [list(deletions), list(blocked), *others] if all(
                isinstance(item, str) for item in blocked
            ):
                # Older writers knew no rules.
                rules = others[0] if others and isinstance(others[0], bytes) else None
                return {bytes(digest): bytes(when) for digest, when in deletions}, blocked, rules
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise CorruptArtefact(
        f"notes/{name} of the artefacts cannot be read: "
        "put back an older version of it, or remove it"
    )
