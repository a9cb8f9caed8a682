"""Connects a store to Redis, and translates redis-py's errors.

The client is opened at its first command, shared by threads, and opened again where it broke. Every
failure becomes one error, StoreUnavailable, which names the operation and the words of the server
or the network, and never a key: a key holds a user's id, and messages end in logs and in answers.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from shortlist.recsys.errors import BrokenRelease, InvalidSettings, StoreUnavailable
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.redis_url import RedisAddress, parse_redis_url

P = ParamSpec("P")
R = TypeVar("R")

MAX_WAIT_SECONDS = 60.0
"""Seconds that a thread without a deadline waits for another one that opens the client."""

_ANNOTATION = "of pipeline caused error: "
"""redis-py's words between a pipeline's command, with its keys, and the error itself."""

_WORDS = re.compile(r"[A-Za-z]+(?:[ -][A-Za-z]+){0,11}")
"""The first words of a server's message: after any other character it may quote a key."""

_REMEDIES = {
    "OOM": "raise the server's maxmemory",
    "NOPERM": "see the user's access string",
    "MOVED": "the server is part of a cluster, so add ?cluster=true to REDIS_URL",
    "WRONGTYPE": "a key of SHORTLIST_NAMESPACE is another program's",
}


class RedisLink:
    """A client of Redis with its call policy.

    Any thread may use it. The client may be a cluster's.
    """

    def __init__(self, connect: Callable[[], Any], policy: CallPolicy | None = None) -> None:
        """connect: makes a client of redis-py."""
        self._connect = connect
        self.policy = policy or CallPolicy()
        self._client: Any = None
        self._opening = threading.Lock()

    @property
    def redis(self) -> Any:  # noqa: ANN401 - redis.Redis or redis.RedisCluster
        """The client, connected at its first use.

        Raises:
            StoreUnavailable: no command may be sent now.
        """
        self.policy.check()
        client = self._client
        return self._opened() if client is None else client

    def _opened(self) -> Any:  # noqa: ANN401 - as above
        patience = max(0.0, min(MAX_WAIT_SECONDS, self.policy.time_left()))
        if not self._opening.acquire(timeout=patience):
            raise StoreUnavailable(
                "Redis did not answer another request in time, which opens the connection: "
                "try again"
            )
        try:
            if self._client is None:
                self.policy.check()  # another thread may have failed meanwhile
                self._client = self._connect()
            return self._client
        finally:
            self._opening.release()

    def close(self) -> None:
        """Gives the connections back."""
        from shortlist.recsys.store.redis_pool import drop_connections

        client, self._client = self._client, None
        if client is not None:
            drop_connections(client)  # a cluster's client leaves them open
            client.close()

    def drop(self) -> None:
        """Drops all connections and a cluster's topology.

        Connections in use go when they come back.
        """
        from shortlist.recsys.store.redis_pool import drop_connections

        client = self._client
        if client is None:
            return
        if hasattr(client, "nodes_manager"):
            self._client = None  # only a new client asks the configured name first
        drop_connections(client)

    def unavailable(self, operation: str, error: Exception) -> StoreUnavailable:
        """Notes a failed operation; gives its error.

        The error holds no more than words of the server or the network.
        """
        from redis.exceptions import AuthenticationError, DataError, ResponseError

        if isinstance(error, (ResponseError, AuthenticationError)):
            self.policy.answered()
            code, words = _refusal(error)
            remedy = _REMEDIES.get(code, "see the server's log")
            return StoreUnavailable(f"Redis refused `{operation}` ({code} {words}): {remedy}")
        if _has_changed_roles(error):
            self.drop()
        elif self.policy.time_left() > 0 and not isinstance(error, DataError):
            # Without time left, or with arguments that redis-py refuses, no server is at fault.
            self.policy.failed()
            self.drop()
        return StoreUnavailable(
            f"Redis did not answer `{operation}` ({_cause(error)}): "
            "check REDIS_URL, the server and the network"
        )

    def _replies(self, *commands: tuple[str, ...]) -> list[Any]:
        """Raw replies to commands on one user's keys; the key comes second in each."""
        from shortlist.recsys.store.redis_replies import replies_to

        return replies_to(self.redis, commands)


def connector(url: str, timeout_ms: int, policy: CallPolicy) -> Callable[[], Any]:
    """A function that opens the client at `url`.

    Raises:
        InvalidSettings: the URL breaks a rule, or names a file that is not there.
    """
    address = parse_redis_url(url)
    _check_files(address)
    # Imported here, not at the first command: a Lambda's start has time for imports.
    from shortlist.recsys.store.redis_pool import credentials_of, open_client

    credentials = credentials_of(address)
    return functools.partial(open_client, address, credentials, timeout_ms / 1000, policy)


def _check_files(address: RedisAddress) -> None:
    for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"):
        path = address.options.get(name)
        if path is not None and not Path(str(path)).exists():
            raise InvalidSettings(
                f"REDIS_URL has {name}={str(path)!r}, which is not there: "
                "give the path of an existing file"
            )


def translate_redis_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorates a method so that redis-py's errors become StoreUnavailable.

    The method's object is a RedisLink, or has one as its `store`.
    """
    operation = command.__name__

    @functools.wraps(command)
    def translate_redis_errors(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        link = owner if isinstance(owner, RedisLink) else owner.store
        try:
            result = command(*args, **kwargs)
        except BrokenRelease:
            link.policy.answered()
            raise
        except _errors() as error:
            failure = link.unavailable(operation, error)
        else:
            link.policy.answered()
            return result
        raise failure  # outside, so that no traceback shows redis-py's error, which names keys

    return translate_redis_errors


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisClusterException, RedisError

    # RedisClusterException is no subclass of RedisError.
    return RedisError, RedisClusterException, OSError


def _broken() -> tuple[type[Exception], ...]:
    from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - redis-py's own

    return ConnectionError, TimeoutError


def _refusal(error: Exception) -> tuple[str, str]:
    """The code of a server's refusal, and its first words."""
    # redis-py takes some codes off the message.
    text = str(error).rpartition(_ANNOTATION)[2]
    code = getattr(error, "status_code", None) or _CODES.get(type(error).__name__)
    if code is None:
        code, _, rest = text.partition(" ")
        if not code.isupper() or not code.isalpha():
            return "ERR", _words(text)
        text = rest
    return str(code), _words(text)


_CODES = {
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "NoScriptError": "NOSCRIPT",
}
"""Codes by exception, for versions of redis-py without `status_code`."""


def _words(text: str) -> str:
    match = _WORDS.match(text)
    return "" if match is None else match[0]


def _cause(error: BaseException) -> str:
    """The network's message, or an error's first words.

    Any other error, which may quote a command with its keys, is followed by its own cause.
    """
    from redis.exceptions import AuthenticationError

    text = str(error).rpartition(_ANNOTATION)[2]
    # redis-py derives AuthenticationError, a refusal, from its ConnectionError.
    is_refusal = isinstance(error, AuthenticationError)
    of_network = isinstance(error, (*_broken(), OSError)) and not is_refusal
    if of_network or isinstance(error, StoreUnavailable):
        return text
    words = _words(text) or type(error).__name__
    return words if error.__cause__ is None else f"{words}: {_cause(error.__cause__)}"


def _has_changed_roles(error: Exception) -> bool:
    from shortlist.recsys.store.redis_connections import RoleChanged

    return isinstance(error.__cause__, RoleChanged)


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """A server's limit of memory, and its policy."""

    maxmemory: int
    """Bytes; 0 for no limit."""
    maxmemory_policy: str
    """As `noeviction`, `volatile-lru` or `allkeys-lru`."""

    @property
    def evicts_any_key(self) -> bool:
        """Whether a full server evicts a release's keys.

        Those have no time to live.
        """
        return self.maxmemory > 0 and self.maxmemory_policy.startswith("allkeys-")


@translate_redis_errors
def server_policy(link: RedisLink) -> ServerPolicy | None:
    """The server's policy when it is full.

    Of a cluster, that of the worst primary. None where the server refuses INFO, as to a user who
    may not call it.

    Raises:
        StoreUnavailable: the server did not answer.
    """
    from redis.exceptions import ResponseError

    client = link.redis
    nodes = {"target_nodes": client.PRIMARIES} if hasattr(client, "nodes_manager") else {}
    try:
        info = client.info("memory", **nodes)
    except ResponseError:
        return None
    # A cluster's client gives {node: info}, or the info itself where there is one primary.
    infos = info.values() if nodes and "maxmemory_policy" not in info else [info]
    policies = [ServerPolicy(int(one["maxmemory"]), str(one["maxmemory_policy"])) for one in infos]
    return max(policies, key=lambda policy: policy.evicts_any_key)
