"""What the deployed service costs a month, by component: list prices, and what the template and the code are known to use.

An estimate: free tiers, taxes and discounts are left out. The prices were entered by hand as known
at `PRICES_OF`, one table for three regions of the United States, and were not compared with AWS's
price pages since: do that before you rely on a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

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
CACHE_GB_HOUR = 0.084  # ElastiCache Serverless for Valkey, of which at least 100 MB are billed
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
"""A list of 100 items in Redis, key and expiry counted; a test holds it below 1 200."""
USER_BYTES = 1_600
"""A history of 100 events with its key."""
ITEM_BYTES = 260
"""Of both hashes of items."""
BUNDLE_ITEM_BYTES = 2_600
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
METRICS = 33
"""Of our own in CloudWatch, by name and dimensions: counted for recommendations from all sources, events and similar items."""
ENDPOINTS, ALARMS, IMAGE_GB = 3, 11, 2.0
TASKS = ((4.0, 16.0), (8.0, 32.0), (16.0, 60.0))
"""CPUs and GB of the batch's task: the template's default, and its larger values."""
TASK_HOURS = 4.0
"""How long the state machine lets a task run."""
BATCH_DISK_GB = 30.0
"""Beyond the 20 that are free."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a service is: users, items, requests a month, events a user, refreshes a day and their lists' days in Redis."""

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
    """A component, what it uses in a month, and its dollars."""

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
            f"--region {region!r}: the prices of {PRICES_OF} are of {known}; take one, and expect up to a third more"
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
    """Gigabytes in Redis at their most: while a refresh writes.

    Lists are there of its release, of the serving one, of the one before, and of superseded ones
    for their time to live.
    """
    releases = size.list_days * size.refreshes_a_day + 3
    return (
        size.users * (LIST_BYTES * releases + USER_BYTES) + size.items * ITEM_BYTES * releases
    ) / 1e9


def refresh_hours(size: Size, cpus: float) -> float:
    """Hours of one refresh on so many CPUs: a rough line, not fitted to measurements of large data."""
    core_seconds = 150 + size.users * size.events_per_user * 1.2e-3 + size.users / 350
    return (120 + core_seconds / (cpus * 0.7)) / 3600


def task_for(size: Size) -> tuple[float, float]:
    """CPUs and GB of the smallest task that ends within TASK_HOURS, or of the largest."""
    return next((task for task in TASKS if refresh_hours(size, task[0]) < TASK_HOURS), TASKS[-1])


def table(size: Size, region: str = REGIONS[0]) -> Table:
    """The estimate as a table."""
    parts = estimate(size, region)
    shown = Table(
        title=f"a month in {region}, list prices of {PRICES_OF}",
        caption="an estimate: free tiers and discounts aside; compare the prices with AWS's pages",
    )
    shown.add_column("component")
    shown.add_column("uses")
    shown.add_column("$ a month", justify="right")
    for part in parts:
        shown.add_row(part.name, part.uses, f"{part.dollars:.2f}")
    shown.add_section()
    total = sum(part.dollars for part in parts)
    shown.add_row(
        "total", f"$ {total / max(size.requests, 1) * 1e6:.2f} a million requests", f"{total:.2f}"
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
    units = (
        size.requests * UNITS_A_REQUEST
        + size.users * UNITS_A_USER * size.refreshes_a_day * HOURS / 24
    )
    dollars = max(gigabytes, 0.1) * CACHE_GB_HOUR * HOURS + units / 1e6 * CACHE_MILLION_UNITS
    return Part("ElastiCache", f"{gigabytes:.2f} GB at most, {units / 1e6:.1f} M units", dollars)


def _batch(size: Size) -> Part:
    cpus, gigabytes = task_for(size)
    hours = refresh_hours(size, cpus) * size.refreshes_a_day * HOURS / 24
    rate = cpus * FARGATE_CPU_HOUR + gigabytes * FARGATE_GB_HOUR
    dollars = hours * (
        rate * (SPOT_SHARE if size.spot else 1.0) + BATCH_DISK_GB * FARGATE_DISK_GB_HOUR
    )
    slow = (
        ""
        if refresh_hours(size, cpus) < TASK_HOURS
        else f"; beyond {TASK_HOURS:g} h a refresh, raise the limit"
    )
    return Part(
        "Fargate" + (" Spot" if size.spot else ""), f"{hours:.1f} h of {cpus:g} CPUs{slow}", dollars
    )


def _storage(size: Size) -> Part:
    gigabytes = (
        size.items * BUNDLE_ITEM_BYTES * RELEASES_KEPT + size.users * size.events_per_user * 24
    ) / 1e9
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
    logs, metrics = size.requests * LOG_BYTES / 1e9, METRICS if size.requests else 0
    dollars = ALARMS * ALARM + DASHBOARD + metrics * METRIC + logs * LOGS_GB
    return Part(
        "CloudWatch",
        f"{ALARMS} alarms, 1 dashboard, {metrics} metrics, {logs:.1f} GB of logs",
        dollars,
    )
