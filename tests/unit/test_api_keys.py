"""Tests API keys: scopes, digests, and no key in refusals."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from shortlist.recsys.api_keys import ApiKey, InvalidApiKey, parse_api_keys
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.settings import Settings

KEY, OTHER = "0123456789abcdef", "fedcba9876543210:,"[:-1]


def key_of(name: str, scopes: set[str], secret: str) -> ApiKey:
    """A key as it is kept."""
    return ApiKey(name, frozenset(scopes), hashlib.sha256(secret.encode()).digest())


EXPECTED = (key_of("shop", {"read", "events"}, KEY), key_of("ops", {"admin"}, OTHER))


def test_keys_from_variable_or_file(tmp_path) -> None:
    """With commas between, or one on each line; a key may hold a colon."""
    entries = [f"shop:read+events:{KEY}", f"ops:admin:{OTHER}"]
    file = tmp_path / "keys"
    file.write_text("# who may call\n\n" + "\n".join(entries) + "\n")
    for text in (", ".join(entries), str(file)):
        settings = Settings.from_env({"SHORTLIST_API_KEYS": text})
        assert settings.api_keys == EXPECTED
        assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (f":read:{KEY}", "entry 1 has no name"),
        (f"a b:read:{KEY}", "entry 1 has no name"),
        (
            f"shop:{KEY}",
            (
                "entry 1 has an unknown scope: "
                "give one or more of read, events, delete, operations, admin"
            ),
        ),
        (f"shop::{KEY}", "entry 1 has an unknown scope"),
        (f"shop:read+write:{KEY}", "entry 1 has an unknown scope"),
        ("shop:read:0123456789abcde", "entry 1 has a key of 15 characters: must be at least 16"),
        (f"shop:read:{KEY} {KEY}", "entry 1 has a key of 33 characters"),
        (f"shop:read:{KEY}é", "entry 1 has a key of 17 characters"),
        (f"shop:read:{KEY},shop:read:{OTHER}", "has two entries with one name, or with one key"),
        (f"shop:read:{KEY},ops:admin:{KEY}", "has two entries with one name, or with one key"),
        (f"shop:read:{KEY},", "entry 2 has no name"),
        (KEY, "names no file that can be read, and has no colon"),
        (f"{KEY}\x00", "names no file that can be read, and has no colon"),
    ],
)
def test_bad_entry_is_refused_by_number(entry, rule) -> None:
    """With the rule and the remedy, and nothing of the key."""
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({"SHORTLIST_API_KEYS": entry})
    assert str(caught.value).startswith(f"SHORTLIST_API_KEYS {rule}")
    assert KEY[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_must_hold_a_key(tmp_path) -> None:
    """An empty one would shut everybody out, and a directory is none."""
    empty = tmp_path / "keys"
    empty.write_text("# none\n")
    with pytest.raises(InvalidSettings, match="has no entry"):
        Settings.from_env({"SHORTLIST_API_KEYS": str(empty)})
    with pytest.raises(InvalidSettings, match="names no file"):
        Settings.from_env({"SHORTLIST_API_KEYS": str(tmp_path)})


def test_keys_that_differ_are_not_equal() -> None:
    """A digest is of the whole key."""
    one, other = parse_api_keys([f"a:read:{KEY}"])[0], parse_api_keys([f"a:read:{KEY}0"])[0]
    assert one != other
    assert replace(other, digest=one.digest) == one


def test_there_must_be_an_entry() -> None:
    """Of nothing no key is made."""
    with pytest.raises(InvalidApiKey, match="has no entry"):
        parse_api_keys([])
