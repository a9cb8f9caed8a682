"""Checks the invariants of a service.

Each check gives its violations as sentences: `..._problem` functions give one sentence, or "" where
all is well; `..._problems` a list.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from shortlist.recsys import data
from shortlist.recsys.errors import ShortlistError, StoreUnavailable
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import UserRecord, unpack_user
from tests.chaos.caller import Reply
from tests.chaos.ledger import Key, Ledger
from tests.chaos.service import Service

REFUSALS = (429, 503)
"""Statuses that ask to retry later. They come with Retry-After and a reason."""

SERVER_ERROR = 500
NAMED = re.compile(r"\b(user|new)-\d{3}\b")
"""The ids of all users in the campaign."""

PERSONAL_SOURCES = ("batch", "live", "stale")
"""Sources of answers that depend on what is known of the user."""


def reply_problem(reply: Reply) -> str:
    """Checks any answer: no 5xx without a reason, no invalid JSON."""
    if reply.status in REFUSALS:
        error = (reply.body or {}).get("error", {})
        if "retry-after" not in reply.headers or not error.get("code") or not error.get("message"):
            return "a refusal without a reason or without Retry-After"
        return ""
    if reply.status >= SERVER_ERROR:
        return "an unexpected server error"
    if "json" in reply.headers.get("content-type", "") and reply.raw and not _is_json(reply.raw):
        return "a body that is not JSON"
    return ""


def refusal_problem(reply: Reply) -> str:
    """Checks that a refusal names no user: callers write it to their logs."""
    text = reply.raw.decode("utf-8", "replace")
    return "a refusal names a user" if reply.status in REFUSALS and NAMED.search(text) else ""


def log_problems(lines: Sequence[str]) -> list[str]:
    """Checks that the API's log names no user."""
    return [f"the log names a user: {line}" for line in lines if NAMED.search(line)]


def _is_json(raw: bytes) -> bool:
    def refused(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(raw, parse_constant=refused)
    except ValueError:
        return False
    return True


def list_problem(service: Service, version: str, items: Sequence[dict[str, Any]]) -> str:
    """Checks a list: items of its release's catalogue, none twice, ranks in order."""
    world = _world_of(service, version)
    if world is None:
        return f"release {version} was never published"
    if any(world.titles.get(item["item_id"]) != item["title"] for item in items):
        return f"an item that is not of release {version}, whose titles are {world.name}"
    ids = [item["item_id"] for item in items]
    if len(set(ids)) != len(ids):
        return "an item twice"
    ranks = [item["rank"] for item in items]
    return "" if ranks == list(range(1, len(items) + 1)) else "ranks that are no order"


def _world_of(service: Service, version: str) -> Any:
    """The world of a release, by its number of items; None without a manifest."""
    worlds = service.worlds.by_name
    if version not in service.versions:
        try:
            count = service.artefacts().manifest(version)["data"]["n_items"]
        except ShortlistError:
            return None
        names = [name for name, world in worlds.items() if len(world.titles) == count]
        service.versions[version] = names[0]
    return worlds[service.versions[version]]


def source_problem(ledger: Ledger, user: str, answer: dict[str, Any]) -> str:
    """Checks the source of an answer; a worse one must be flagged."""
    source, degraded = answer["source"], answer["degraded"]
    if user in ledger.deleted and source in PERSONAL_SOURCES:
        return "a personal answer for a deleted user"
    if ledger.is_known(user) and source == "popular" and not degraded:
        return "popular items for a known user, without a flag"
    return "a stale answer without a flag" if source == "stale" and not degraded else ""


def release_problems(service: Service, *, must: bool, users: Sequence[str] = ()) -> list[str]:
    """Checks that the pointer leads to a whole release.

    must: a release has been published; users: must have lists.
    """
    try:
        pointer = service.store.release()
        if pointer is None:
            return ["the pointer to the serving release is gone"] if must else []
        version = pointer.current
        whole = service.store.is_whole(version)
        lists = zip(users, service.store.lists(version, users), strict=True)
        lacking = [user for user, packed in lists if packed is None]
    except StoreUnavailable:  # a fault lasts: the check runs again when it is over
        return []
    if version not in service.artefacts().versions():
        return [f"the pointer leads to {version}, which is not among the artefacts"]
    problems = [] if whole else [f"release {version} serves, and is not whole in Redis"]
    if lacking:
        problems.append(f"release {version} serves, and lacks the lists of {lacking}")
    return problems


def event_problems(service: Service, ledger: Ledger) -> list[str]:
    """Checks that each accepted event arrived once.

    After the last batch run it must be in the drained files, in its user's record, and once in the
    next training.
    """
    drained: set[Key] = set()
    for frame in _drained(service):
        drained.update(frame.select("user_id", "event_id").rows())
    lost = sorted(ledger.owed.keys() - drained)
    strange = sorted(drained - ledger.owed.keys() - ledger.perhaps.keys())
    problems = [f"events that were accepted are in no file: {lost}"] if lost else []
    problems += [f"events in the files that nobody was promised: {strange}"] if strange else []
    problems += ["events still wait in the stream"] if EventLog(service.store).length() else []
    counts = _training_counts(service)
    for sent in ledger.owed.values():
        count = counts[sent.user, sent.item, sent.time]
        if count != 1:
            problems.append(f"{sent} is in the next training {count} times")
    return problems + record_problems(service, ledger)


def record_problems(service: Service, ledger: Ledger) -> list[str]:
    """Checks that each accepted event is in its user's record."""
    problems = []
    for sent in ledger.owed.values():
        packed = service.store.user_record(sent.user)
        record = UserRecord() if packed is None else unpack_user(packed)
        events = list(zip(record.items, record.times, strict=True))
        count = events.count((sent.item, sent.time))
        # A record keeps the latest events only; of older ones it keeps the items as seen.
        is_old = count == 0 and sent.item in record.seen
        if count != 1 and not is_old:
            place = f"{sent.item} at {sent.time}"
            problems.append(f"the record of {sent.user} has {place} {count} times")
    return problems


def _drained(service: Service) -> Iterator[pl.DataFrame]:
    files = open_event_files(str(service.events))
    for name in files.names():
        yield pl.read_parquet(io.BytesIO(files.read(name)))


def _training_counts(service: Service) -> Counter[tuple[str, str, int]]:
    """How often a training would now read each (user, item, time)."""
    table = service.directory / "now.parquet"
    service.table.write_parquet(table)
    items = service.worlds.by_name["plain"].items
    loaded = data.load(
        str(table), str(items), events=str(service.events), is_forgotten=service.store.is_deleted()
    ).dataset
    events, ids = loaded.events, loaded.catalogue.ids
    columns = (events.user.tolist(), events.item.tolist(), events.time.tolist())
    return Counter(
        (loaded.user_ids[user], ids[item], when) for user, item, when in zip(*columns, strict=True)
    )


def deletion_problems(service: Service, ledger: Ledger) -> list[str]:
    """Checks that no trace of a deleted user is left after the last batch run.

    None may be in a key, a value or a file, nor in the next training.
    """
    places: list[tuple[str, str]] = []
    for place, content in _stored(service):
        places += [(user, place) for user in ledger.deleted if user.encode() in content]
    for frame in _drained(service):
        places += [(user, "a file of events") for user in ledger.deleted & set(frame["user_id"])]
    learnt = {user for user, _, _ in _training_counts(service)}
    places += [(user, "the next training") for user in ledger.deleted & learnt]
    return [f"{user} was deleted, and is in {place}" for user, place in places]


def key_problems(service: Service, user: str) -> list[str]:
    """Checks that Redis has no key of a deleted user."""
    tag = f"{{{user}}}".encode()
    keys = service.store.redis.scan_iter(f"{service.settings.namespace}:*", count=1000)
    return [f"{user} was deleted, and there is {key!r}" for key in keys if tag in key]


def _stored(service: Service) -> Iterator[tuple[str, bytes]]:
    """The content of each key, and of each file next to the event files."""
    client = service.store.redis
    for key in client.scan_iter(f"{service.settings.namespace}:*", count=1000):
        yield f"the key {key!r}", key + b"\n" + _content(client, key)
    for path in service.events.glob("*"):
        if path.is_file() and path.suffix != ".parquet":
            yield f"the file {path.name}", path.read_bytes()


def _content(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return client.get(key) or b""
        case b"hash":
            return b"\n".join(part for pair in client.hgetall(key).items() for part in pair)
        case b"set":
            return b"\n".join(client.smembers(key))
        case b"stream":
            return b"\n".join(
                value for _, fields in client.xrange(key) for value in fields.values()
            )
    return b""
