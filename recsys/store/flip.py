"""Conditions and outcomes of changing the release pointer."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """Proof of a lease: entry and fencing token."""

    holder: bytes
    token: int


@dataclass(frozen=True, slots=True)
class FlipIf:
    """The condition on which the pointer is set.

    expected: the stored bytes that it replaces, None for none; lease: held by the batch that flips,
    its token the newest; new_token: draws the next fencing token, so that no batch that runs at
    this moment may flip the pointer afterwards.
    """

    expected: bytes | None
    lease: LeaseProof | None = None
    new_token: bool = False


class Flip(enum.Enum):
    """The outcome of a change of the pointer.

    The values are the replies of the scripts in `redis`.
    """

    DONE = 1
    CHANGED = 0
    """The pointer was no longer the expected one."""
    LEASE_LOST = -1
    OVERTAKEN = -2
    """A newer fencing token has been drawn."""
