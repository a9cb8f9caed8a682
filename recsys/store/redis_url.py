"""Parses `REDIS_URL` in full, and keeps it out of messages.

redis-py's own reader gives a default for what it does not understand: `/abc` is database 0,
`?cluster=True` reaches a constructor that has no such argument, and a password with `#` or `/`
becomes part of the host that errors then name. Here each part is understood, or refused in one
sentence which holds no part of the URL that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import NoReturn
from urllib.parse import unquote

from shortlist.recsys.errors import InvalidSettings

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
DEFAULT_PORT = 6379
MAX_DATABASES = 65_536
"""No server has more; a server that has fewer says so when a connection selects one."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}")
_OPTION = re.compile(r"[A-Za-z_]{1,40}")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?")
_CACHE = re.compile(r"[A-Za-z0-9-]{1,40}")
_NUMBER = re.compile(r"[0-9]{1,5}")
# redis-py would strip or send these; none is meant in an address.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_IAM_RULE = (
    "REDIS_URL asks for iam: it must be rediss://USER@HOST:PORT?iam=CACHE, "
    "with a user and without a password"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of Redis, with credentials."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    """Of a unix socket, which then stands for host and port."""
    tls: bool = False
    database: int = 0
    cluster: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    iam_cache: str | None = None
    """The ElastiCache serverless cache to sign in to by the role, without a password."""
    options: dict[str, str | bool] = field(default_factory=dict)
    """Further arguments of redis-py's connection: the client's name, and those of TLS."""


def parse_redis_url(url: str) -> RedisAddress:
    """The address that `url` states.

    `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS,
    `unix://[USER[:PASSWORD]@]/PATH`, with options after `?`: `cluster`, `iam`, `db`, `client_name`
    and the `ssl_` ones of `OPTIONS`.

    Raises:
        InvalidSettings: some part breaks its rule; the message names the part and the rule, and
            never the part's value.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or f"{scheme}://" not in REDIS_SCHEMES:
        named = scheme if separator and _SCHEME.fullmatch(scheme) else "none"
        raise InvalidSettings(
            f"REDIS_URL has scheme {named!r}: must start with one of {', '.join(REDIS_SCHEMES)}"
        )
    if _UNPRINTABLE.search(rest):
        _refuse("has a blank or a control character: percent-encode it, a blank as %20")
    if "#" in rest:
        _refuse("has a '#', which ends a URL: percent-encode it as %23 in the password")
    rest, _, query = rest.partition("?")
    if "@" in query:
        _refuse(
            "has an '@' after its '?': percent-encode '?' as %3F and '@' as %40 in the password"
        )
    options = _options(query, tls=scheme == "rediss")
    stated = _socket(rest) if scheme == "unix" else _server(rest)
    return _checked(stated, options, tls=scheme == "rediss")


def _refuse(rule: str) -> NoReturn:
    raise InvalidSettings(f"REDIS_URL {rule}")


Stated = dict[str, str | int | None]
"""Fields of a RedisAddress before the options are joined to them."""


def _socket(rest: str) -> Stated:
    """Parses unix://, whose credentials end at the first slash.

    The path may hold any character.
    """
    authority, slash, path = rest.partition("/")
    if authority and not authority.endswith("@"):
        _refuse(
            "is no unix://[USER:PASSWORD@]/PATH: the path must be absolute, "
            "percent-encode '/' as %2F in the password"
        )
    if not path:
        _refuse("has no path: give that of the socket, as in unix:///var/run/valkey.sock")
    return {"path": _decoded(slash + path), **_credentials(authority[:-1])}


def _server(rest: str) -> Stated:
    authority, _, path = rest.partition("/")
    if "@" in path:
        _refuse("has an '@' after a '/': percent-encode '/' as %2F and '@' as %40 in the password")
    # The last '@': one in a password that was not encoded belongs to it.
    user_info, _, place = authority.rpartition("@")
    host, port = _place(place)
    return {"host": host, "port": port, "database": _database(path), **_credentials(user_info)}


def _credentials(user_info: str) -> Stated:
    user, _, password = user_info.partition(":")
    return {"username": _decoded(user) or None, "password": _decoded(password) or None}


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        # Refused below, outside: as a cause, this error would show the text, maybe a password.
        problem = "has a percent-encoded character that is not UTF-8: encode 'é' as %C3%A9"
    _refuse(problem)


def _place(place: str) -> tuple[str, int]:
    if place.startswith("["):
        inside, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            _refuse(
                "has a broken IPv6 address: write it as [::1]:6379, "
                "and percent-encode '[' as %5B in the password"
            )
        return _ipv6(inside), _port(rest[1:] if rest else str(DEFAULT_PORT))
    if place.count(":") > 1:
        _refuse(
            "has more than one ':' in its host: write an IPv6 address as [::1]:6379, "
            "percent-encode '@' in the password"
        )
    host, colon, port = place.partition(":")
    if not host:
        _refuse("has no host: write redis://HOST:PORT, and redis://localhost:6379 for this machine")
    if not _HOST.fullmatch(host):
        _refuse(
            "has a host that is no name or address: give letters, digits, '.', '-' and '_', or an "
            "IPv6 address in brackets; percent-encode special characters in the password"
        )
    return host, _port(port if colon else str(DEFAULT_PORT))


def _ipv6(text: str) -> str:
    try:
        IPv6Address(text)
    except AddressValueError:
        problem = "has brackets around what is no IPv6 address: write it as [::1]:6379"
    else:
        return text
    _refuse(problem)


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65_535:  # noqa: PLR2004 - TCP's
        _refuse(
            "has a port that is no number from 1 to 65535; "
            "percent-encode ':' as %3A in the user's name"
        )
    return int(text)


def _database(text: str) -> int:
    if not text:
        return 0
    if not _NUMBER.fullmatch(text) or int(text) >= MAX_DATABASES:
        _refuse(
            "has a database that is no number: write /0 or /1 behind the port; "
            "percent-encode '/' in the password"
        )
    return int(text)


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("is true or false, in lower case")
    return value == "true"


def _cache(value: str) -> str:
    if not _CACHE.fullmatch(value):
        raise ValueError("is the name of a cache: letters, digits and '-'")
    return value


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _verification(value: str) -> str:
    if value not in ("none", "optional", "required"):
        raise ValueError("is one of none, optional, required")
    return value


def _db(value: str) -> str:
    if not _NUMBER.fullmatch(value) or int(value) >= MAX_DATABASES:
        raise ValueError("is a number, 0 or above")
    return value


OPTIONS: dict[str, Callable[[str], str | bool]] = {
    "cluster": _flag,
    "iam": _cache,
    "db": _db,
    "client_name": _text,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _flag,
}
"""The options after `?`.

The timeouts have settings of their own, and redis-py's other options are not for a URL.
"""


def _options(query: str, *, tls: bool) -> dict[str, str | bool]:
    options: dict[str, str | bool] = {}
    for part in query.split("&") if query else ():
        name, separator, value = part.partition("=")
        if name in ("username", "password"):
            _refuse(
                f"has an option {name!r}: write USER:PASSWORD@ before the host, "
                "or before a socket's path"
            )
        if name not in OPTIONS or not separator:
            named = repr(name) if _OPTION.fullmatch(name) else "that is no name"
            _refuse(
                f"has an option {named}: one of {', '.join(OPTIONS)} is known, "
                "as NAME=VALUE with '&' between them"
            )
        if name in options:
            _refuse(f"has the option {name!r} more than once")
        if name.startswith("ssl_") and not tls:
            _refuse(f"has the option {name!r}, which needs rediss://")
        options[name] = _value(name, _decoded(value))
    return options


def _value(name: str, text: str) -> str | bool:
    try:
        return OPTIONS[name](text)
    except ValueError as error:
        rule = str(error)
    _refuse(f"has an option {name!r} that breaks its rule: it {rule}")


def _checked(stated: Stated, options: dict[str, str | bool], *, tls: bool) -> RedisAddress:
    """The address, if its parts fit together."""
    cluster, cache = options.pop("cluster", False), options.pop("iam", None)
    database = int(options.pop("db", stated.get("database") or 0))
    if stated.get("database") and database != stated["database"]:
        _refuse("names two databases, one in its path and one by db: give one")
    if cluster and (database or "path" in stated):
        _refuse(
            "asks for a cluster, which has database 0 alone and no unix socket: "
            "leave out what differs, or cluster=true"
        )
    has_user_alone = stated["username"] is not None and stated["password"] is None
    if cache is not None and not (tls and has_user_alone):
        raise InvalidSettings(_IAM_RULE)
    fields = {
        **stated,
        "tls": tls,
        "database": database,
        "cluster": cluster,
        "iam_cache": cache,
        "options": options,
    }
    return RedisAddress(**fields)  # type: ignore[arg-type]  # each under its own name
