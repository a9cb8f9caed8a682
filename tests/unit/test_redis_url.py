"""Tests the reading of REDIS_URL, and its refusals.

A refusal is a sentence that holds no secret.
"""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store
from shortlist.recsys.store.redis_url import RedisAddress, parse_redis_url

SECRET = "s3cr3t"  # noqa: S105 - no one's
UNDERSTOOD = {
    "redis://h": RedisAddress("h"),
    "redis://localhost:6380/3": RedisAddress(port=6380, database=3),
    "redis://h:1/": RedisAddress("h", 1),
    "redis://h?db=2": RedisAddress("h", database=2),
    "redis://h/2?db=2": RedisAddress("h", database=2),
    "redis://10.0.0.7:7000?cluster=true": RedisAddress("10.0.0.7", 7000, cluster=True),
    "redis://h:1/0?cluster=true": RedisAddress("h", 1, cluster=True),
    "redis://h?cluster=false": RedisAddress("h"),
    "redis://[::1]": RedisAddress("::1"),
    "rediss://u:p@[2001:db8::1]:7000": RedisAddress(
        "2001:db8::1",
        7000,
        tls=True,
        username="u",
        password="p",  # noqa: S106
    ),
    "redis://:p@h:1": RedisAddress("h", 1, password="p"),  # noqa: S106
    "redis://u@h": RedisAddress("h", username="u"),
    "redis://u:p%23%2F%40%3F%25@h": RedisAddress("h", username="u", password="p#/@?%"),  # noqa: S106
    "redis://u:a@b:c@h:1": RedisAddress("h", 1, username="u", password="a@b:c"),  # noqa: S106
    "redis://:100%@h": RedisAddress("h", password="100%"),  # noqa: S106
    "redis://:p+q@h": RedisAddress("h", password="p+q"),  # noqa: S106
    "rediss://u@c.example:6379?cluster=true&iam=my-cache": RedisAddress(
        "c.example", tls=True, cluster=True, username="u", iam_cache="my-cache"
    ),
    "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false&client_name=a%20b": RedisAddress(
        "h",
        tls=True,
        options={"ssl_cert_reqs": "none", "ssl_check_hostname": False, "client_name": "a b"},
    ),
    "rediss://h?ssl_ca_certs=/etc/a+b.pem": RedisAddress(
        "h", tls=True, options={"ssl_ca_certs": "/etc/a+b.pem"}
    ),
    "unix:///tmp/a@b%23.sock": RedisAddress(path="/tmp/a@b#.sock"),  # noqa: S108 - a name
    "unix://u:p@/run/valkey.sock?db=1": RedisAddress(
        path="/run/valkey.sock",
        database=1,
        username="u",
        password="p",  # noqa: S106
    ),
}
REFUSED = {
    f"redis://app:{SECRET}#cr/et@host": "percent-encode it as %23",
    f"redis://app:{SECRET}/x@host:6379": "percent-encode '/' as %2F",
    f"redis://app:{SECRET}?x@host": r"percent-encode '\?' as %3F",
    f"redis://app:{SECRET}?x=@host": r"percent-encode '\?' as %3F",
    f"redis://:{SECRET}": "no host",
    f"redis://app:{SECRET}@": "no host",
    f"redis://app:{SECRET}@:6379": "no host",
    f"redis://app:{SECRET}": "port that is no number",
    f"redis://app:{SECRET}@h:{SECRET}": "port that is no number",
    f"redis://app:{SECRET}@h:": "port that is no number",
    f"redis://app:{SECRET}@h:0": "port that is no number",
    f"redis://app:{SECRET}@h:65536": "port that is no number",
    f"redis://app:{SECRET}@h:\uff11\uff12": "port that is no number",
    f"redis://app:{SECRET}@h:1/{SECRET}": "database that is no number",
    f"redis://app:{SECRET}@h/abc": "database that is no number",
    f"redis://app:{SECRET}@h/-1": "database that is no number",
    f"redis://app:{SECRET}@h/1/2": "database that is no number",
    f"redis://app:{SECRET}@h/1?db=2": "two databases",
    f"redis://app:{SECRET}@h?db=x": "'db'.*a number",
    f"redis://app:{SECRET}@h?cluster=True": "'cluster'.*true or false, in lower case",
    f"redis://app:{SECRET}@h?Cluster=true": "option 'Cluster'.*cluster, iam",
    f"redis://app:{SECRET}@h?cluster": "option 'cluster'.*NAME=VALUE",
    f"redis://app:{SECRET}@h?cluster=true&cluster=true": "more than once",
    f"redis://app:{SECRET}@h/1?cluster=true": "database 0 alone",
    f"redis://app:{SECRET}@h?db=1&cluster=true": "database 0 alone",
    f"unix://app:{SECRET}@/s?cluster=true": "no unix socket",
    f"redis://h?password={SECRET}": "USER:PASSWORD@",
    f"redis://h?{SECRET}-=1": "that is no name",
    f"redis://h?socket_timeout=30&x={SECRET}": "option 'socket_timeout'",
    f"redis://app:{SECRET}@h?ssl_ca_certs=/x": "needs rediss://",
    f"rediss://app:{SECRET}@h?ssl_cert_reqs=None": "none, optional, required",
    f"redis://app:{SECRET}@::1": "more than one",
    f"redis://app:{SECRET}@h:1:2": "more than one",
    f"redis://app:{SECRET}@ho st": "blank",
    f"redis://app:{SECRET}@h\n": "control character",
    f"redis://app:{SECRET}\t@h": "control character",
    f"redis://app:{SECRET}@é": "host that is no name",
    f"redis://app:{SECRET}@a..b": "host that is no name",
    f"redis://app:{SECRET}[@h]": "host that is no name",
    f"redis://app:{SECRET}@[h]": "no IPv6 address",
    f"redis://app:{SECRET}@[::1": "broken IPv6",
    f"redis://app:{SECRET}@[::1]6379": "broken IPv6",
    f"redis://app:{SECRET}%FF@h": "not UTF-8",
    f"unix://app:{SECRET}/w@/s": "percent-encode '/'",
    f"unix://relative/{SECRET}": "must be absolute",
    "unix://": "no path",
    f"REDIS://app:{SECRET}@h": "scheme 'REDIS'",
    f"app:{SECRET}@h://x": "scheme 'none'",
    f"rediss://app:{SECRET}@h?iam=c": "without a password",
    f"redis://app@h?iam={SECRET}": "rediss://USER@HOST",
}


@pytest.mark.parametrize("url", UNDERSTOOD)
def test_what_is_understood(url) -> None:
    """Every part, by its own rule."""
    assert parse_redis_url(url) == UNDERSTOOD[url]
    assert Settings.from_env({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_refused(url) -> None:
    """At the start, with the remedy; neither message nor traceback holds the password."""
    for read in (
        parse_redis_url,
        lambda text: Settings.from_env({"REDIS_URL": text}),
        lambda text: open_store(text, "n", 50),
    ):
        with pytest.raises(InvalidSettings, match=f"^REDIS_URL .*{REFUSED[url]}") as refused:
            read(url)
        said = "".join(traceback.format_exception(refused.value))
        assert SECRET not in said
        assert "\n" not in str(refused.value)
        assert refused.value.__context__ is None


@pytest.mark.parametrize("character", [chr(code) for code in range(33, 127)])
def test_any_character_in_a_password(character) -> None:
    """Encoded it is understood; as it is, it is understood or refused, never misread."""
    meant = f"{SECRET}{character}x"
    assert parse_redis_url(f"redis://u:{quote(meant, safe='')}@h:1").password == meant
    if character in "#/?%":
        return  # see what is refused above; a '%' may stand for itself or begin what it encodes
    address = parse_redis_url(f"redis://u:{meant}@h:1")
    assert (address.host, address.port, address.password) == ("h", 1, meant)


def test_missing_file_is_named() -> None:
    """Rather than a connection that fails for want of it."""
    with pytest.raises(InvalidSettings, match=r"ssl_ca_certs='/no/such\.pem', which is not there"):
        open_store("rediss://h?ssl_ca_certs=/no/such.pem", "n", 50)


def test_nothing_shows_the_password() -> None:
    """Not the settings, not the address, not a store's client and pool."""
    url = f"redis://app:{SECRET}@127.0.0.1:1"
    store = open_store(url, "n", 50)
    shown = [
        Settings.from_env({"REDIS_URL": url}),
        parse_redis_url(url),
        store,
        store.redis,
        store.redis.connection_pool,
    ]
    assert [part for part in shown if SECRET in repr(part)] == []
    store.close()
