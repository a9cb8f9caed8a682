"""What the store promises, on a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys.errors import StoreUnavailable
from recsys.store import RedisStore, open_store
from recsys.wire import ItemRecord, ReleasePointer, UserRecord, pack_list, unpack_user

RELEASE = "20260101T000000Z-abcdef01"


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 1000)
    yield opened
    opened.close()


def a_list(n_items: int = 100) -> bytes:
    """A packed list of n items."""
    return pack_list(1, 1, 1, 500, b"\x01\x02\x03\x00" * n_items, b"\x01\x3c" * n_items, b"\x02\x3c" * n_items)


def test_a_new_store_knows_nothing(store) -> None:
    """None for what is not there, never an error."""
    assert store.release() is None
    assert store.read_user(RELEASE, "1") == (None, None)
    assert (store.user_record("1"), store.popular(RELEASE), store.row_of(RELEASE, "a")) == (None, None, None)
    assert (store.items(RELEASE, [1, 2]), store.items(RELEASE, []), store.blocked()) == ([None, None], [], frozenset())


def test_the_pointer_flips(store) -> None:
    """The last one set is the one read."""
    store.set_release(ReleasePointer("a"))
    store.set_release(ReleasePointer("b", "a"))
    assert store.release() == ReleasePointer("b", "a")


def test_lists_are_read_back_and_expire(store) -> None:
    """Each user's bytes as written, in pipelines of any length, with a time to live."""
    lists = [(f"user {n}", a_list(n % 7)) for n in range(1201)]
    assert store.write_lists(RELEASE, lists, 600) == 1201
    assert store.lists(RELEASE, [user for user, _ in lists]) == [packed for _, packed in lists]
    assert 0 < store.redis.ttl(store.keys.list(RELEASE, "user 3")) <= 600
    assert store.read_user("another release", "user 3") == (None, None)


def test_a_user_record_with_more_events_is_not_overwritten(store) -> None:
    """What happened while the batch ran is not lost."""
    store.write_users([("1", UserRecord(("a", "b"), (1, 2), (None, None), 2))])
    assert store.write_users([("1", UserRecord(("a",), (1,), (None,), 1)), ("2", UserRecord())]) == 1
    assert unpack_user(store.user_record("1")).items == ("a", "b")
    assert store.read_user(RELEASE, "1") == (None, 2)


def test_items_are_found_by_row_and_by_id(store) -> None:
    """A record for each known row, None for the others; a row for each known id."""
    items = [ItemRecord("x", "X", ("c",)), ItemRecord("y", "Y")]
    store.write_items(RELEASE, enumerate(items), 600)
    assert store.items(RELEASE, [1, 5, 0]) == [items[1], None, items[0]]
    assert (store.row_of(RELEASE, "y"), store.row_of(RELEASE, "z")) == (1, None)


def test_a_live_result_is_kept_under_all_that_shaped_it(store) -> None:
    """Another release, user or digest finds nothing."""
    store.write_live(RELEASE, "1", "digest", b"bytes", 60)
    assert store.live(RELEASE, "1", "digest") == b"bytes"
    assert {store.live("r", "1", "digest"), store.live(RELEASE, "2", "digest"), store.live(RELEASE, "1", "d")} == {None}


def test_one_of_many_computes_a_live_result(store) -> None:
    """The first one claims it, another result of the same user does not wait for it, and writing it gives it free."""
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000) == (None, True)
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000) == (None, False)
    assert store.live_or_claim(RELEASE, "1", "other", 60_000) == (None, True)
    store.write_live(RELEASE, "1", "digest", b"bytes", 60)
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000)[0] == b"bytes"


def test_every_key_starts_with_the_namespace(store, valkey_url) -> None:
    """A shared server's other keys are left alone."""
    before = set(store.redis.scan_iter("*"))
    store.set_release(ReleasePointer("a"))
    store.write_lists(RELEASE, [("1", a_list())], 60)
    store.write_users([("1", UserRecord())])
    store.write_items(RELEASE, [(0, ItemRecord("x", "X"))], 60)
    store.write_popular(RELEASE, a_list(), 60)
    store.write_live(RELEASE, "1", "d", b"", 60)
    new = set(store.redis.scan_iter("*")) - before
    assert len(new) == 7
    assert all(key.decode().startswith(f"{store.keys.namespace}:") for key in new)


def test_a_users_keys_share_a_cluster_slot(store) -> None:
    """List, record and live results carry the same hash tag."""
    keys = store.keys
    for key in (keys.list("v", "a b"), keys.user("a b"), keys.live("v", "a b"), keys.claim("a b")):
        assert key[key.index("{") : key.index("}") + 1] == "{a b}"


def test_a_list_of_a_hundred_items_takes_at_most_1200_bytes_of_redis(store) -> None:
    """All that a user's list costs: key, value, expiry and the server's own bookkeeping."""
    base = store.redis.info("memory")["used_memory"]
    n = 2000
    store.write_lists(RELEASE, ((f"{user}", a_list()) for user in range(n)), 600)
    assert (store.redis.info("memory")["used_memory"] - base) / n <= 1200


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nonexistent/valkey.sock"])
def test_a_server_that_is_not_there_is_unavailable(url) -> None:
    """One error for every way in which a server can be away, with the remedy."""
    with pytest.raises(StoreUnavailable, match="check REDIS_URL"):
        open_store(url, "test", 200).read_user(RELEASE, "1")
