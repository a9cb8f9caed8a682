"""Leases the batch to one run, with a fencing token.

The lease lives for a minute and is renewed by a thread. Whoever takes it draws the next fencing
token, and so does an operator who flips the pointer by hand. A flip holds only for the newest
token, which Redis itself checks: a batch that was suspended, or cut off from Redis, cannot put its
older release in front of users when it comes back.

After a fail-over to a replica that missed the last writes two batches may hold the lease for a
while. The token still decides which of them may flip.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from shortlist.recsys.errors import LeaseHeld, ReleaseRefused, StoreUnavailable
from shortlist.recsys.store.flip import LeaseProof
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import translate_redis_errors

LEASE_SECONDS = 60.0
"""How long a crashed holder keeps others out, at most."""

RENEWALS = 4
"""Renewals in the life of a lease, so that three may fail before it lapses."""

# A lease without an end, as a restored dump may have it, begins its life when it is first met:
# nobody would renew or end it. KEYS lease, fence; ARGV expected holder, new holder, milliseconds.
_TAKE = """
local holder = redis.call('GET', KEYS[1]) or ''
if holder ~= ARGV[1] then
  if redis.call('TTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
  return {0, holder}
end
local token = (tonumber(redis.call('GET', KEYS[2])) or 0) + 1
redis.call('SET', KEYS[2], string.format('%d', token))
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {token, ''}
"""

# A lease that lapsed while Redis did not answer is taken again, unless the token says that somebody
# else had it meanwhile. PEXPIRE rather than SET, which Redis refuses when its memory is full.
# KEYS lease, fence; ARGV holder, token, milliseconds.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
local token = redis.call('GET', KEYS[2])
if holder or (token and token ~= ARGV[2]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of the lease.

    run: the run's id, under which an interrupted run may take over its own lease; since: unix
    seconds; token: random, so that no two leases are equal.
    """

    run: str
    host: str
    since: int
    token: str


class Leases:
    """The lease of one namespace.

    Every method may raise StoreUnavailable.
    """

    def __init__(self, store: RedisStore, seconds: float = LEASE_SECONDS) -> None:
        """seconds: life of a lease after its last renewal."""
        self.store = store
        self.seconds = seconds
        self._keys = (store.keys.lease(), store.keys.fence())

    @translate_redis_errors
    def take(self, holder: Holder) -> LeaseProof:
        """Takes the lease for `holder`.

        It replaces no holder but an earlier one of the same run.

        Raises:
            LeaseHeld: another run holds it.
        """
        packed = json.dumps(asdict(holder)).encode()
        token, other = self._take(b"", packed)
        # An interrupted run that starts again takes over, without a wait for its own lease.
        if token == 0 and _run_of(other) == holder.run:
            token, other = self._take(other, packed)
        if token == 0:
            raise LeaseHeld(
                f"{_described(other)}; if that one has crashed, its lease lapses within "
                f"{self.seconds:.0f} s"
            )
        return LeaseProof(packed, token)

    def _take(self, expected: bytes, packed: bytes) -> tuple[int, bytes]:
        token, holder = self.store.redis.eval(
            _TAKE, 2, *self._keys, expected, packed, self._milliseconds
        )
        return int(token), bytes(holder)

    @translate_redis_errors
    def renew(self, proof: LeaseProof) -> bool:
        """Prolongs the lease, unless another has had it.

        False where it has, or holds it.
        """
        arguments = (proof.holder, proof.token, self._milliseconds)
        return bool(self.store.redis.eval(_RENEW, 2, *self._keys, *arguments))

    @translate_redis_errors
    def release(self, proof: LeaseProof) -> None:
        """Gives the lease back, if still held."""
        self.store.redis.eval(_RELEASE, 1, self._keys[0], proof.holder)

    @property
    def _milliseconds(self) -> int:
        return round(self.seconds * 1000)


class Lease:
    """A lease in the hands of its holder."""

    def __init__(self, leases: Leases, proof: LeaseProof) -> None:
        self._leases, self.proof = leases, proof
        self._lost = threading.Event()

    def check(self) -> None:
        """Raises LeaseHeld after a renewal found the lease lost.

        Sends no command.
        """
        if self._lost.is_set():
            raise taken_over()

    def confirm(self) -> None:
        """Renews the lease now.

        Raises:
            LeaseHeld: it is lost.
            StoreUnavailable: Redis does not answer.
        """
        self.check()
        if not self._leases.renew(self.proof):
            self._lost.set()
        self.check()

    def renew_until(self, ended: threading.Event) -> None:
        """Renews until `ended` is set, or the lease lost.

        Redis may be away for a while.
        """
        while not ended.wait(self._leases.seconds / RENEWALS):
            with suppress(StoreUnavailable):
                if not self._leases.renew(self.proof):
                    self._lost.set()
                    return


@contextmanager
def held(leases: Leases, run: str) -> Iterator[Lease]:
    """Holds the lease while the body runs.

    run: the run's id. A second process of the same run takes the lease over, and the first one
    finds it lost.

    Raises:
        LeaseHeld: another run holds it.
        StoreUnavailable: Redis does not answer.
    """
    holder = Holder(run, socket.gethostname(), int(time.time()), secrets.token_hex(8))
    lease = Lease(leases, leases.take(holder))
    ended = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(ended,), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(StoreUnavailable):  # it lapses by itself
            leases.release(lease.proof)


def taken_over() -> LeaseHeld:
    """The error for a lost lease."""
    return LeaseHeld(
        "another batch has taken the lease over since this one began: this one stops without a flip"
    )


def overtaken(version: str) -> ReleaseRefused:
    """The error for an outdated fencing token."""
    return ReleaseRefused(
        f"release {version} is not made to serve: another batch or an operator has flipped the "
        "pointer since this batch began; "
        f"`shortlist release promote {version}` serves it all the same"
    )


def _run_of(packed: bytes) -> str | None:
    holder = _read(packed)
    return None if holder is None else holder.run


def _read(packed: bytes) -> Holder | None:
    """The holder; None for an unreadable value.

    The lease is held all the same, and lapses.
    """
    try:
        fields = json.loads(packed)
        return Holder(
            str(fields["run"]), str(fields["host"]), int(fields["since"]), str(fields["token"])
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _described(packed: bytes) -> str:
    holder = _read(packed)
    if holder is None:
        return "another batch holds the lease, and its entry cannot be read"
    try:
        since = f"{datetime.fromtimestamp(holder.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        since = f"unix second {holder.since}"
    return f"another batch holds the lease: run {holder.run!r} on {holder.host!r} since {since}"
