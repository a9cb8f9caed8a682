"""Estimates the monthly bill by component.

List prices are multiplied by what the template and the code are known to use. Free tiers, taxes and
discounts are left out. The prices were entered by hand as known at `PRICES_OF`, one table for three
regions of the United States, and have not been compared with AWS's price pages since: do that
before you rely on a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from shortlist.recsys.errors import InvalidInput

PRICES_OF = "November 2025"
REGIONS = ("us-east-1", "us-east-2", "us-west-2")

HOURS = 730.0
"""In a month."""

API_MILLION = 1.00
LAMBDA_MILLION = 0.20
LAMBDA_GB_SECOND = 0.0000133334  # arm64
SNAPSHOT_GB_SECOND = 0.0000015046
"""A version that is kept as a snapshot; two are, while a deployment lasts: one is counted."""
RESTORED_GB = 0.0001397998
CACHE_GB_HOUR = 0.084  # ElastiCache Serverless for Valkey
MIN_CACHE_GB = 0.1  # what is billed at least
CACHE_MILLION_UNITS = 0.0023
FARGATE_CPU_HOUR = 0.04048
FARGATE_GB_HOUR = 0.004445
FARGATE_DISK_GB_HOUR = 0.000111
SPOT_SHARE = 0.35
"""Of the price on demand; it varies."""
S3_GB = 0.023
ENDPOINT_HOUR = 0.01
ALARM = 0.10
METRIC = 0.30
DASHBOARD = 3.00
LOGS_GB = 0.50
IMAGES_GB = 0.10
TRAFFIC_GB = 0.09

LIST_BYTES = 962
"""A list of 100 items in Redis, key and expiry counted; a test holds it below 1,200."""
USER_BYTES = 1_600
"""A history of 100 events with its key."""
ITEM_BYTES = 260
"""Of both hashes of items."""
BUNDLE_ITEM_BYTES = 2_600
EVENT_BYTES = 24
"""Of a table of interactions in Parquet."""
RELEASES_KEPT = 10
UNITS_A_REQUEST = 3.0
UNITS_A_USER = 5.0
"""Written, recorded and verified at each refresh."""
HIT_MS, LIVE_MS = 4.0, 16.0
"""Billed, with the network to Redis."""
MEMORY_GB = 1769 / 1024
COLD_STARTS = 0.001
ANSWER_BYTES, LOG_BYTES = 3_500, 2_200
"""Measured; most of the log is the metrics, in CloudWatch's embedded format."""
CLOUDWATCH_METRICS = 33
"""Ours in CloudWatch, by name and dimensions.

Counted for recommendations from all sources, events and similar items.
"""
ENDPOINTS, ALARMS, IMAGE_GB = 3, 11, 2.0
TASKS = ((4.0, 16.0), (8.0, 32.0), (16.0, 60.0))
"""CPUs and GB of the batch's task: the template's default, and its larger values."""
TASK_HOURS = 4.0
"""How long the state machine lets a task run."""
BATCH_DISK_GB = 30.0
"""Beyond the 20 that are free."""


@dataclass(frozen=True, slots=True)
class Size:
    """A service's size.

    requests: a month; list_days: how long a superseded release's lists stay in Redis; live_share:
    of the requests, those without a list; spot: whether the batch runs on Spot.
    """

    users: int
    items: int
    requests: int
    events_per_user: float = 100.0
    refreshes_a_day: float = 1.0
    list_days: float = 1.0
    live_share: float = 0.1
    spot: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """A component, its use in a month, and its dollars."""

    name: str
    uses: str
    dollars: float


def estimate(size: Size, region: str = REGIONS[0]) -> list[Part]:
    """The parts of the monthly bill.

    Raises:
        InvalidInput: the table has no prices of that region.
    """
    if region not in REGIONS:
        known = ", ".join(REGIONS)
        raise InvalidInput(
            f"--region {region!r}: the prices of {PRICES_OF} are of {known}; "
            "take one, and expect up to a third more"
        )
    return [
        _api(size),
        _function(size),
        _snapshot(size),
        _cache(size),
        _batch(size),
        _storage(size),
        _network(size),
        _watching(size),
    ]


def cache_gb(size: Size) -> float:
    """Gigabytes in Redis while a refresh writes.

    Lists are there of its release, of the serving one, of the one before, and of superseded ones
    for their time to live.
    """
    releases = size.list_days * size.refreshes_a_day + 3
    user_bytes = size.users * (LIST_BYTES * releases + USER_BYTES)
    return (user_bytes + size.items * ITEM_BYTES * releases) / 1e9


def refresh_hours(size: Size, cpus: float) -> float:
    """Hours of one refresh on so many CPUs.

    A rough line, not fitted to measurements of large data: a fixed part, one that grows with the
    events, and one that grows with the lists.
    """
    core_seconds = 150 + size.users * size.events_per_user * 1.2e-3 + size.users / 350
    return (120 + core_seconds / (cpus * 0.7)) / 3600


def task_for(size: Size) -> tuple[float, float]:
    """CPUs and GB of the smallest task that ends within TASK_HOURS, else of the largest."""
    fitting = (task for task in TASKS if refresh_hours(size, task[0]) < TASK_HOURS)
    return next(fitting, TASKS[-1])


def figures(parts: Sequence[Part], region: str) -> dict[str, Any]:
    """{"region", "prices_of", "parts": [{"name", "uses", "dollars"}, …], "dollars": the total}."""
    return {
        "region": region,
        "prices_of": PRICES_OF,
        "parts": [asdict(part) for part in parts],
        "dollars": sum(part.dollars for part in parts),
    }


def table(parts: Sequence[Part], requests: int, region: str) -> Table:
    """The estimate as a table; requests: a month."""
    shown = Table(
        title=f"a month in {region}, list prices of {PRICES_OF}",
        caption="an estimate without free tiers and discounts; compare the prices with AWS's pages",
    )
    shown.add_column("component")
    shown.add_column("uses")
    shown.add_column("$ a month", justify="right")
    for part in parts:
        shown.add_row(part.name, part.uses, f"{part.dollars:.2f}")
    shown.add_section()
    total = sum(part.dollars for part in parts)
    shown.add_row(
        "total", f"$ {total / max(requests, 1) * 1e6:.2f} a million requests", f"{total:.2f}"
    )
    return shown


def _api(size: Size) -> Part:
    millions, gigabytes = size.requests / 1e6, size.requests * ANSWER_BYTES / 1e9
    return Part(
        "HTTP API",
        f"{millions:g} M requests, {gigabytes:.1f} GB out",
        millions * API_MILLION + gigabytes * TRAFFIC_GB,
    )


def _function(size: Size) -> Part:
    milliseconds = HIT_MS + size.live_share * (LIVE_MS - HIT_MS)
    seconds = size.requests * milliseconds / 1000 * MEMORY_GB
    dollars = size.requests / 1e6 * LAMBDA_MILLION + seconds * LAMBDA_GB_SECOND
    return Part("Lambda", f"{milliseconds:.1f} ms a request, {MEMORY_GB:.2f} GB", dollars)


def _snapshot(size: Size) -> Part:
    kept = MEMORY_GB * HOURS * 3600 * SNAPSHOT_GB_SECOND
    restores = size.requests * COLD_STARTS
    return Part(
        "SnapStart", f"1 version, {restores:.0f} starts", kept + restores * MEMORY_GB * RESTORED_GB
    )


def _cache(size: Size) -> Part:
    gigabytes = cache_gb(size)
    refreshes = size.refreshes_a_day * HOURS / 24
    units = size.requests * UNITS_A_REQUEST + size.users * UNITS_A_USER * refreshes
    billed = max(gigabytes, MIN_CACHE_GB)
    dollars = billed * CACHE_GB_HOUR * HOURS + units / 1e6 * CACHE_MILLION_UNITS
    return Part("ElastiCache", f"{gigabytes:.2f} GB at most, {units / 1e6:.1f} M units", dollars)


def _batch(size: Size) -> Part:
    cpus, gigabytes = task_for(size)
    hours = refresh_hours(size, cpus) * size.refreshes_a_day * HOURS / 24
    rate = cpus * FARGATE_CPU_HOUR + gigabytes * FARGATE_GB_HOUR
    if size.spot:
        rate *= SPOT_SHARE
    dollars = hours * (rate + BATCH_DISK_GB * FARGATE_DISK_GB_HOUR)
    uses = f"{hours:.1f} h of {cpus:g} CPUs"
    if refresh_hours(size, cpus) >= TASK_HOURS:
        uses += f"; beyond {TASK_HOURS:g} h a refresh, raise the limit"
    return Part("Fargate Spot" if size.spot else "Fargate", uses, dollars)


def _storage(size: Size) -> Part:
    bundles = size.items * BUNDLE_ITEM_BYTES * RELEASES_KEPT
    tables = size.users * size.events_per_user * EVENT_BYTES
    gigabytes = (bundles + tables) / 1e9
    return Part(
        "S3 and images",
        f"{gigabytes:.1f} GB and {IMAGE_GB:g} GB",
        gigabytes * S3_GB + IMAGE_GB * IMAGES_GB,
    )


def _network(_: Size) -> Part:
    return Part(
        "Interface endpoints", f"{ENDPOINTS} in one zone", ENDPOINTS * HOURS * ENDPOINT_HOUR
    )


def _watching(size: Size) -> Part:
    logs, metrics = size.requests * LOG_BYTES / 1e9, CLOUDWATCH_METRICS if size.requests else 0
    dollars = ALARMS * ALARM + DASHBOARD + metrics * METRIC + logs * LOGS_GB
    return Part(
        "CloudWatch",
        f"{ALARMS} alarms, 1 dashboard, {metrics} metrics, {logs:.1f} GB of logs",
        dollars,
    )
