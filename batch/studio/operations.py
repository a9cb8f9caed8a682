"""Shows how the service runs: Redis, lists, latencies, rules."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from shortlist.batch.studio.releases import View
from shortlist.recsys.errors import ShortlistError, StoreUnavailable, UnreadableRecord
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import ReleasePointer, unpack_list
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import ServerInfo, server_info

T = TypeVar("T")

SAMPLE = 1000
"""Users whose lists are looked at: of more, figures are a sample's."""

TIMED = {
    "shortlist_request_seconds": ("route", "the answer to {}"),
    "shortlist_recommend_seconds": (None, "inside the handler"),
    "shortlist_retrieval_seconds": (None, "live: candidates"),
    "shortlist_features_seconds": (None, "live: features"),
    "shortlist_ranking_seconds": (None, "live: ranking"),
    "shortlist_store_seconds": ("command", "Redis: {}"),
}
"""Histograms that are shown: their label, and their name for people."""

DEGRADED = "shortlist_degraded"
"""The counter of fallbacks, as the parser names it."""

P50, P99 = 0.5, 0.99


def operations(
    settings: Settings,
    store: RedisStore,
    users: Callable[[], Sequence[str]],
    view: View | None,
    pointer: ReleasePointer | None,
    metrics: str,
    now: float,
) -> dict[str, Any]:
    """All of it; users: reads the ids of the users; metrics: in Prometheus's text; now: seconds."""
    answer = {
        "pointer": _pointer(pointer),
        "latencies": latencies(metrics),
        "degradations": degradations(metrics),
        "lists": {"written": None, "oldest_age_s": None},
        "rules": None,
        "blocked": [],
        "limits": None,
    }
    try:
        ids = users()
        sizes = _sample(store, ids, None if pointer is None else pointer.current, now)
        answer |= {
            "redis": _redis(server_info(store), len(ids), sizes["bytes_a_user"]),
            "lists": {name: sizes[name] for name in ("written", "oldest_age_s")},
            "rules": _rules(AdminStore(store)),
            "blocked": _blocked(store, view),
            "limits": {
                "events_waiting": EventLog(store).length(),
                "max_waiting_events": settings.max_waiting_events,
            },
        }
    except StoreUnavailable as error:
        answer["redis"] = {"error": str(error)}
    return answer


def latencies(metrics: str) -> list[dict[str, Any]]:
    """The 50th and 99th percentile of what was timed, in milliseconds, by buckets."""
    rows = []
    for family in text_string_to_metric_families(metrics):
        if family.name not in TIMED:
            continue
        label, words = TIMED[family.name]
        buckets: dict[str, list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                of = sample.labels.get(label, "") if label else ""
                buckets.setdefault(of, []).append((float(sample.labels["le"]), sample.value))
        rows += [_timed(words.format(of), bounds) for of, bounds in sorted(buckets.items())]
    return [row for row in rows if row["n"] > 0]


def _timed(what: str, buckets: Iterable[tuple[float, float]]) -> dict[str, Any]:
    ordered = sorted(buckets)
    return {
        "what": what,
        "p50_ms": _percentile(ordered, P50),
        "p99_ms": _percentile(ordered, P99),
        "n": int(ordered[-1][1]),
    }


def _percentile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """A percentile in milliseconds by a straight line within its bucket, as Prometheus has it.

    buckets: (upper bound in seconds, values up to it), ascending, the last one's bound infinite.
    """
    wanted = share * buckets[-1][1]
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *buckets]):
        if upto >= wanted and upto > below:
            if math.isinf(high):
                return 1000 * low
            return 1000 * (low + (high - low) * (wanted - below) / (upto - below))
    return None


def degradations(metrics: str) -> list[dict[str, Any]]:
    """Answers that fell back, by what failed."""
    return [
        {"reason": sample.labels["kind"], "n": int(sample.value)}
        for family in text_string_to_metric_families(metrics)
        if family.name == DEGRADED
        for sample in family.samples
        if sample.value > 0
    ]


def _pointer(pointer: ReleasePointer | None) -> dict[str, Any] | None:
    if pointer is None:
        return None
    canary = pointer.canary
    return {
        "current": pointer.current,
        "previous": pointer.previous,
        "canary": canary and {"version": canary.version, "percent": canary.percent},
    }


def _redis(info: ServerInfo | None, n_users: int, bytes_a_user: int | None) -> dict[str, Any]:
    if info is None:
        return {"error": "Redis refuses INFO to this user: allow it, as docs/redis-acl.md says"}
    return {
        "version": info.version,
        "used_memory": info.used_memory,
        "maxmemory": info.policy.maxmemory,
        "policy": info.policy.maxmemory_policy,
        "connected": info.connected,
        "users": n_users,
        "bytes_a_user": bytes_a_user,
    }


def _sample(
    store: RedisStore, ids: Sequence[str], version: str | None, now: float
) -> dict[str, Any]:
    """How many users have a list, its greatest age, and the bytes of list and record."""
    some = random.sample(ids, min(SAMPLE, len(ids)))
    packed = store.lists(version, some) if version is not None and some else []
    lists = [each for each in packed if each is not None]
    sizes = [*map(len, lists), *store.record_sizes(some)] if some else []
    made = [at for each in lists if (at := _made_at(each)) is not None]
    return {
        "written": round(len(lists) / len(some) * len(ids)) if some else 0,
        "oldest_age_s": max(0, int(now) - min(made)) if made else None,
        "bytes_a_user": round(sum(sizes) / len(some)) if some else None,
    }


def _made_at(packed: bytes) -> int | None:
    try:
        return unpack_list(packed).created_at
    except UnreadableRecord:
        return None


def _rules(admin: AdminStore) -> dict[str, int]:
    stored = admin.rules()
    return {"version": stored.version, "n": sum(len(each) for each in stored.plain.values())}


def _blocked(store: RedisStore, view: View | None) -> list[dict[str, Any]]:
    return [
        {"id": item, "title": None if view is None else view.title(item)}
        for item in sorted(store.blocked())
    ]


def readable(read: Callable[[], T]) -> T | None:
    """What is read, or None where it cannot be: the rest is shown all the same."""
    try:
        return read()
    except ShortlistError:
        return None
