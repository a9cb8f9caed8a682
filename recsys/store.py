"""The lists, user records and the release pointer in Redis: every key in one place, every command bounded in time.

Works on one node, a replicated primary and a cluster: no command spans two users' keys, and a user's keys share a hash tag,
so they lie in one slot and are read in one round trip.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ParamSpec, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from recsys.errors import CorruptArtefact, InvalidSettings, StoreUnavailable
from recsys.wire import (
    ItemRecord,
    ReleasePointer,
    UserRecord,
    pack_item,
    pack_pointer,
    pack_user,
    unpack_item,
    unpack_pointer,
    unpack_user,
)

P = ParamSpec("P")
R = TypeVar("R")

PIPELINE = 500
"""Commands sent to Redis in one go."""

_FLIP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == 'new' then
  local token = (tonumber(redis.call('GET', KEYS[2])) or 0) + 1
  redis.call('SET', KEYS[2], string.format('%d', token))
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

_FLIP_UNDER_LEASE = """
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -2 end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

_KEEP_NEWER = """
local known = redis.call('HGET', KEYS[1], 'n')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'n', ARGV[1], 'h', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """What shows that a batch holds the lease: its entry in Redis, and its fencing token."""

    holder: bytes
    token: int


@dataclass(frozen=True, slots=True)
class FlipIf:
    """On what condition the pointer is set.

    expected: the stored bytes that it replaces, None for none; lease: held by the batch that flips, its token the newest;
    new_token: draws the next fencing token, so that no batch that runs at this moment may flip the pointer afterwards.
    """

    expected: bytes | None
    lease: LeaseProof | None = None
    new_token: bool = False


class Flip(enum.Enum):
    """How a change of the pointer ended."""

    DONE = 1
    CHANGED = 0
    """The pointer was no longer the expected one."""
    LEASE_LOST = -1
    OVERTAKEN = -2
    """Somebody has drawn a newer fencing token."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace; {…} is a cluster hash tag."""

    namespace: str

    def release(self) -> str:
        """Msgpack {current, previous, canary?: {version, percent}}."""
        return f"{self.namespace}:release"

    def lease(self) -> str:
        """Who runs a batch at this moment; lives for a minute. In the pointer's slot, as the tag is the pointer's key."""
        return f"{{{self.release()}}}:lease"

    def fence(self) -> str:
        """The newest fencing token, a whole number; in the pointer's slot."""
        return f"{{{self.release()}}}:fence"

    def list(self, version: str, user: str) -> str:
        """A packed ShortlistRecord."""
        return f"{self.namespace}:{version}:list:{{{user}}}"

    def items(self, version: str) -> str:
        """A hash: item row -> packed ItemRecord."""
        return f"{self.namespace}:{version}:items"

    def rows(self, version: str) -> str:
        """A hash: item id -> item row."""
        return f"{self.namespace}:{version}:rows"

    def popular(self, version: str) -> str:
        """A packed ShortlistRecord of the most popular items."""
        return f"{self.namespace}:{version}:popular"

    def user(self, user: str) -> str:
        """A hash: n, the number of events ever; h, the packed UserRecord; e0, e1, the marks of events sent lately."""
        return f"{self.namespace}:user:{{{user}}}"

    def live(self, version: str, user: str) -> str:
        """A hash: digest of what shaped it -> a cached live result."""
        return f"{self.namespace}:live:{version}:{{{user}}}"

    def claim(self, user: str) -> str:
        """The digest of the live result that some process computes at this moment."""
        return f"{self.namespace}:claim:{{{user}}}"

    def blocked(self) -> str:
        """A set of item ids never to be shown."""
        return f"{self.namespace}:blocked"

    def events(self) -> str:
        """The stream of accepted events, each a packed EventRecord."""
        return f"{self.namespace}:events"

    def releases(self) -> str:
        """A hash: version of a release whose lists were written -> msgpack [created_at, ndcg@10]."""
        return f"{self.namespace}:releases"

    def deleted(self) -> str:
        """A hash: digest of a deleted user's id -> unix seconds."""
        return f"{self.namespace}:deleted"

    def skew(self, version: str) -> str:
        """A hash: `stratum:feature:cell` of the training -> sampled rows of live answers in it; `aside` -> the others."""
        return f"{self.namespace}:{version}:skew"

    def impressions(self, day: str) -> str:
        """A hash: `source:length:version` -> recommendation answers of that day (UTC, YYYY-MM-DD), by number of their items."""
        return f"{self.namespace}:impressions:{day}"

    def digest(self, user: str) -> str:
        """What stands for a deleted user, whose id is kept nowhere."""
        return hashlib.sha256(f"{self.namespace}:{user}".encode()).hexdigest()


class Store(Protocol):
    """What the API and the batch need of a store. Every method may raise StoreUnavailable."""

    def ping(self) -> None:
        """Answers if the store does."""

    def release(self) -> ReleasePointer | None:
        """Which release serves, or None before the first."""

    def set_release(self, pointer: ReleasePointer, condition: FlipIf | None = None) -> Flip:
        """Flips the pointer, always or on a condition; gives whether it did."""

    def packed_release(self) -> bytes | None:
        """The pointer as it is stored, readable or not."""

    def read_user(self, version: str, user: str) -> tuple[bytes | None, int | None]:
        """In one round trip: the user's packed list in that release, and how many events they have; None where unknown."""

    def user_record(self, user: str) -> bytes | None:
        """The user's packed record."""

    def lists(self, version: str, users: Sequence[str]) -> list[bytes | None]:
        """The packed lists of several users."""

    def write_lists(self, version: str, lists: Iterable[tuple[str, bytes]], ttl: int) -> int:
        """Writes packed lists, to live for ttl seconds; gives their number."""

    def write_users(self, records: Iterable[tuple[str, UserRecord]]) -> int:
        """Writes records, except of users whose stored record knows more events; gives their number."""

    def write_items(self, version: str, items: Iterable[tuple[int, ItemRecord]], ttl: int) -> None:
        """Writes what answers show of items, by item row."""

    def items(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """What answers show of these item rows; None where unknown."""

    def row_of(self, version: str, item_id: str) -> int | None:
        """The item's row in that release; None for an unknown item."""

    def rows_of(self, version: str, item_ids: Sequence[str]) -> list[int | None]:
        """The rows of several items."""

    def write_popular(self, version: str, packed: bytes, ttl: int) -> None:
        """Writes the packed list of popular items."""

    def popular(self, version: str) -> bytes | None:
        """The packed list of popular items."""

    def blocked(self) -> frozenset[str]:
        """The ids of items never to be shown."""

    def is_deleted(self) -> Callable[[str], bool]:
        """Whether a user's id is one of those deleted so far."""

    def live(self, version: str, user: str, digest: str) -> bytes | None:
        """A cached live result."""

    def write_live(self, version: str, user: str, digest: str, packed: bytes, ttl: int) -> None:
        """Caches a live result for at most ttl seconds."""

    def live_or_claim(self, version: str, user: str, digest: str, milliseconds: int) -> tuple[bytes | None, bool]:
        """A cached live result, and whether this caller may compute it; false while another one has claimed it."""


class Guard:
    """Whether a command may be sent: not while Redis rests after it failed to answer, nor with too little time to wait for it.

    One request in `rest_seconds` pays for a server that does not answer, and the others fall back at once. time_left: seconds
    that the caller still has; needed: how many of them a command may take.
    """

    def __init__(
        self,
        rest_seconds: float = 0.0,
        time_left: Callable[[], float] = lambda: math.inf,
        needed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest, self._left, self._needed, self._clock = rest_seconds, time_left, needed, clock
        self._until = -math.inf

    def check(self) -> None:
        """Raises StoreUnavailable where no command may be sent."""
        rests = self._until - self._clock()
        if rests > 0:
            raise StoreUnavailable(f"Redis did not answer a moment ago: it is asked again in {rests:.1f} s")
        left = self._left()
        if left < self._needed:
            message = f"the request has {left:.2f} s left, and Redis may take {self._needed:.2f} s: give the function more time"
            raise StoreUnavailable(message)

    def failed(self) -> None:
        """Notes that Redis did not answer."""
        self._until = self._clock() + self._rest


def open_store(url: str, namespace: str, timeout_ms: int, guard: Guard | None = None) -> RedisStore:
    """The store at `url`; connects at the first command.

    `?cluster=true` for a cluster; `?iam=CACHE` to sign in to that ElastiCache serverless cache as the URL's user, by the role.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    timeout = timeout_ms / 1000
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 1)}
    plain, cluster, iam = _asked(url)
    if iam is not None:
        from recsys.elasticache import IamCredentials

        options["credential_provider"] = IamCredentials(*iam)
    if cluster:
        return RedisStore(lambda: redis.RedisCluster.from_url(plain, **options), namespace, guard)
    return RedisStore(lambda: redis.Redis.from_url(plain, **options), namespace, guard)


def _asked(url: str) -> tuple[str, bool, tuple[str, str] | None]:
    """The URL for redis-py, whether it names a cluster, and the user and cache where one signs in by IAM."""
    parts = urlsplit(url)
    asked = parse_qsl(parts.query)
    cache = next((value for name, value in asked if name == "iam"), None)
    ours = [pair for pair in asked if pair == ("cluster", "true") or pair[0] == "iam"]
    if not ours:
        return url, False, None
    query = urlencode([pair for pair in asked if pair not in ours])
    if cache is None:
        return urlunsplit(parts._replace(query=query)), True, None
    if not parts.username or parts.password or parts.scheme != "rediss":
        message = "REDIS_URL asks for iam: it must be rediss://USER@HOST:PORT?iam=CACHE, with a user and without a password"
        raise InvalidSettings(message)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query=query)), ("cluster", "true") in asked, (parts.username, cache)


def bounded(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a method: every error of redis-py becomes StoreUnavailable."""

    @functools.wraps(command)
    def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except _refusals() as error:
            from redis.exceptions import ResponseError

            if not isinstance(error, ResponseError):
                owner: Any = args[0]  # a RedisStore, or what works on one
                getattr(owner, "store", owner).guard.failed()
            message = f"Redis did not answer `{command.__name__}` ({error}): check REDIS_URL, the server and the network"
            raise StoreUnavailable(message) from error

    return bounded


def _refusals() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisClusterException, RedisError  # the former is not one of the latter

    return RedisError, RedisClusterException, OSError


class RedisStore:
    """The store in Redis or Valkey."""

    def __init__(self, connect: Callable[[], Any], namespace: str, guard: Guard | None = None) -> None:
        self._connect = connect
        self.guard = guard or Guard()
        self._client: Any = None
        self._waiting: list[Any] = []
        self.keys = Keys(namespace)

    @property
    def redis(self) -> Any:  # noqa: ANN401 - redis.Redis or redis.RedisCluster
        """The client, connected at its first use. Raises StoreUnavailable while no command may be sent."""
        self.guard.check()
        if self._client is None:
            self._client = self._connect()
        return self._client

    def close(self) -> None:
        """Gives the connections back."""
        if self._client is not None:
            self._client.close()
            self._client, self._waiting = None, []

    @bounded
    def ping(self) -> None:
        """See `Store`."""
        self.redis.ping()

    @bounded
    def release(self) -> ReleasePointer | None:
        """See `Store`."""
        packed = self.redis.get(self.keys.release())
        return None if packed is None else unpack_pointer(packed)

    @bounded
    def set_release(self, pointer: ReleasePointer, condition: FlipIf | None = None) -> Flip:
        """See `Store`."""
        packed = pack_pointer(pointer)
        if condition is None:
            self.redis.set(self.keys.release(), packed)
            return Flip.DONE
        expected, keys = condition.expected or b"", [self.keys.release(), self.keys.fence()]
        if condition.lease is None:
            token = "new" if condition.new_token else ""
            return Flip(self.redis.eval(_FLIP, 2, *keys, expected, packed, token))
        proof = condition.lease
        keys.append(self.keys.lease())
        return Flip(self.redis.eval(_FLIP_UNDER_LEASE, 3, *keys, expected, packed, proof.holder, proof.token))

    @bounded
    def packed_release(self) -> bytes | None:
        """See `Store`."""
        return self.redis.get(self.keys.release())

    @bounded
    def read_user(self, version: str, user: str) -> tuple[bytes | None, int | None]:
        """See `Store`."""
        packed, n_events = self._replies(("GET", self.keys.list(version, user)), ("HGET", self.keys.user(user), "n"))
        if n_events is not None and not n_events.isdigit():
            raise CorruptArtefact(f"user {user!r} has {n_events[:20]!r} events, which is no number: delete the record")
        return packed, None if n_events is None else int(n_events)

    @bounded
    def user_record(self, user: str) -> bytes | None:
        """See `Store`."""
        return self.redis.hget(self.keys.user(user), "h")

    @bounded
    def some_users(self, limit: int) -> list[UserRecord]:
        """Up to `limit` stored users, in the order of their keys' hashes, which is as good as chance."""
        found: list[UserRecord] = []
        for key in self.redis.scan_iter(match=self.keys.user("*"), count=PIPELINE):
            packed = self.redis.hget(key, "h")
            if packed is not None:
                found.append(unpack_user(packed))
            if len(found) >= limit:
                break
        return found

    @bounded
    def lists(self, version: str, users: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        pipe = self.redis.pipeline(transaction=False)
        for user in users:
            pipe.get(self.keys.list(version, user))
        return list(pipe.execute())

    @bounded
    def write_lists(self, version: str, lists: Iterable[tuple[str, bytes]], ttl: int) -> int:
        """See `Store`."""
        written = 0
        for chunk in _chunks(lists):
            pipe = self.redis.pipeline(transaction=False)
            for user, packed in chunk:
                pipe.set(self.keys.list(version, user), packed, ex=ttl)
            written += len(pipe.execute())
        return written

    @bounded
    def write_users(self, records: Iterable[tuple[str, UserRecord]]) -> int:
        """See `Store`."""
        written = 0
        for chunk in _chunks(records):
            pipe = self.redis.pipeline(transaction=False)
            for user, record in chunk:
                # Not pipe.eval, which redis-py bars in a cluster's pipeline although the key tells the node.
                pipe.execute_command("EVAL", _KEEP_NEWER, 1, self.keys.user(user), record.n_events, pack_user(record))
            written += sum(pipe.execute())
        return written

    @bounded
    def write_items(self, version: str, items: Iterable[tuple[int, ItemRecord]], ttl: int) -> None:
        """See `Store`."""
        for chunk in _chunks(items):
            self.redis.hset(self.keys.items(version), mapping={row: pack_item(item) for row, item in chunk})
            self.redis.hset(self.keys.rows(version), mapping={item.id: row for row, item in chunk})
        self.redis.expire(self.keys.items(version), ttl)
        self.redis.expire(self.keys.rows(version), ttl)

    @bounded
    def items(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """See `Store`."""
        if not rows:
            return []
        found = self.redis.hmget(self.keys.items(version), rows)
        return [None if packed is None else unpack_item(packed) for packed in found]

    @bounded
    def row_of(self, version: str, item_id: str) -> int | None:
        """See `Store`."""
        row = self.redis.hget(self.keys.rows(version), item_id)
        return None if row is None else int(row)

    @bounded
    def rows_of(self, version: str, item_ids: Sequence[str]) -> list[int | None]:
        """See `Store`."""
        if not item_ids:
            return []
        return [None if row is None else int(row) for row in self.redis.hmget(self.keys.rows(version), item_ids)]

    @bounded
    def write_popular(self, version: str, packed: bytes, ttl: int) -> None:
        """See `Store`."""
        self.redis.set(self.keys.popular(version), packed, ex=ttl)

    @bounded
    def popular(self, version: str) -> bytes | None:
        """See `Store`."""
        return self.redis.get(self.keys.popular(version))

    @bounded
    def blocked(self) -> frozenset[str]:
        """See `Store`."""
        return frozenset(member.decode() for member in self.redis.smembers(self.keys.blocked()))

    @bounded
    def is_deleted(self) -> Callable[[str], bool]:
        """See `Store`."""
        digests = {digest.decode() for digest in self.redis.hkeys(self.keys.deleted())}
        return lambda user: self.keys.digest(user) in digests

    @bounded
    def live(self, version: str, user: str, digest: str) -> bytes | None:
        """See `Store`."""
        return self.redis.hget(self.keys.live(version, user), digest)

    @bounded
    def live_or_claim(self, version: str, user: str, digest: str, milliseconds: int) -> tuple[bytes | None, bool]:
        """See `Store`."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.hget(self.keys.live(version, user), digest)
        pipe.set(self.keys.claim(user), digest, nx=True, px=milliseconds, get=True)
        packed, holder = pipe.execute()
        return packed, holder != digest.encode()

    @bounded
    def write_live(self, version: str, user: str, digest: str, packed: bytes, ttl: int) -> None:
        """See `Store`."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.hset(self.keys.live(version, user), digest, packed)
        pipe.expire(self.keys.live(version, user), ttl, nx=True)  # so that nothing in it outlives its time
        pipe.delete(self.keys.claim(user))
        pipe.execute()

    def _replies(self, *commands: tuple[str, ...]) -> list[Any]:
        """Raw replies to commands on one user's keys, in one round trip.

        redis-py's pipeline, and its pool's check of each connection it gives out, take thrice as long as this. A connection
        that broke while it waited is found by its failing, and the commands are sent again over a new one.
        """
        client = self.redis
        pool = getattr(client, "connection_pool", None)
        if pool is None:  # a cluster, whose pipeline knows the node
            pipe = client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute())
        try:
            connection = self._waiting.pop()
        except IndexError:  # another thread may have taken the last one
            connection = pool.get_connection()
        try:
            replies = connection.retry.call_with_retry(
                lambda: _asked_over(connection, commands), lambda _: connection.disconnect()
            )
        except BaseException:
            pool.release(connection)
            raise
        self._waiting.append(connection)
        return replies


def _asked_over(connection: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:  # noqa: ANN401 - redis-py's
    connection.send_packed_command(connection.pack_commands(commands))
    try:
        return [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # which forgets the replies to the other commands
        raise


def _chunks(values: Iterable[R]) -> Iterator[list[R]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, PIPELINE)):
        yield chunk
