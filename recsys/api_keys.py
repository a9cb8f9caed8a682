"""Parses API keys, and keeps their digests alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

SCOPES = ("read", "events", "delete", "operations", "admin")
"""Permissions of a caller; none of them includes another."""

KEY_LENGTH = 16
"""Characters of a key, at least: 16 random ones cannot be guessed over a network."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]*")


class InvalidApiKey(ValueError):
    """An entry breaks a rule.

    The message has its number, never its text with the key.
    """


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key; name: for logs; digest: SHA-256 of the key."""

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)


def digest_of(key: str) -> bytes:
    """The SHA-256 by which a key is recognised."""
    # surrogatepass: half of a surrogate pair is no valid key, and no reason for an exception.
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def parse_api_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    """The keys of entries `name:scope+scope:key`.

    Raises:
        InvalidApiKey: an entry breaks a rule, or two share a name or a key.
    """
    keys = tuple(_parsed(number, entry.strip()) for number, entry in enumerate(entries, 1))
    names, digests = {key.name for key in keys}, {key.digest for key in keys}
    if len(names) < len(keys) or len(digests) < len(keys):
        raise InvalidApiKey("has two entries with one name, or with one key: give each its own")
    if not keys:
        raise InvalidApiKey("has no entry: give one as name:scope+scope:key, or unset it")
    return keys


def _parsed(number: int, entry: str) -> ApiKey:
    # At most three parts: the key itself may hold colons.
    name, stated_scopes, key = [*entry.split(":", 2), "", ""][:3]
    scopes = frozenset(stated_scopes.split("+"))
    if not _NAME.fullmatch(name):
        rule = "it must be name:scope+scope:key, the name 1 to 64 of A-Z a-z 0-9 . _ -"
        raise InvalidApiKey(f"entry {number} has no name: {rule}")
    if not scopes <= set(SCOPES):
        rule = f"give one or more of {', '.join(SCOPES)}, with + between"
        raise InvalidApiKey(f"entry {number} has an unknown scope: {rule}")
    if len(key) < KEY_LENGTH or not _KEY.fullmatch(key):
        rule = f"must be at least {KEY_LENGTH}, all ASCII, no blanks; try `openssl rand -hex 32`"
        raise InvalidApiKey(f"entry {number} has a key of {len(key)} characters: {rule}")
    return ApiKey(name, scopes, digest_of(key))
