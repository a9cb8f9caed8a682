"""Tests the monthly estimate against manual sums and docs/deploy.md.

It also tests the growth of the estimate.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from shortlist.batch import cost
from shortlist.batch.cli import main
from shortlist.batch.cost import Size, cache_gb, estimate
from shortlist.recsys.errors import InvalidInput

ROOT = Path(__file__).parents[2]
SMALL = Size(10_000, 5_000, 1_000_000)


def dollars(size: Size) -> dict[str, float]:
    """The dollars of each component."""
    return {part.name: part.dollars for part in estimate(size)}


def test_parts_match_a_manual_calculation() -> None:
    """A million requests cost a dollar and traffic, plus twenty cents and milliseconds."""
    parts = dollars(SMALL)
    assert parts["HTTP API"] == pytest.approx(1.00 + 3.5 * 0.09)
    assert parts["Lambda"] == pytest.approx(0.20 + 1_000_000 * 0.0052 * 1769 / 1024 * 0.0000133334)
    assert parts["Interface endpoints"] == pytest.approx(21.90)
    assert parts["CloudWatch"] == pytest.approx(11 * 0.10 + 3.00 + 33 * 0.30 + 2.2 * 0.50)
    assert dollars(Size(10_000, 5_000, 0))["CloudWatch"] == pytest.approx(11 * 0.10 + 3.00)


def test_a_small_cache_costs_its_least() -> None:
    """ElastiCache bills a tenth of a gigabyte at least."""
    assert dollars(Size(1, 1, 0))["ElastiCache"] == pytest.approx(0.1 * 0.084 * 730, rel=1e-3)


def test_redis_memory_during_a_refresh() -> None:
    """Four releases: written, serving, previous and expiring; one history a user."""
    assert cache_gb(Size(1_000_000, 0, 0)) == pytest.approx((962 * 4 + 1600) / 1000)
    assert cache_gb(Size(1_000_000, 0, 0, list_days=2.5)) == pytest.approx(
        (962 * 5.5 + 1600) / 1000
    )


def test_everything_grows_with_its_cause() -> None:
    """Requests do not make the batch dearer, nor users the API."""
    parts, busier, larger = (
        dollars(SMALL),
        dollars(Size(10_000, 5_000, 2_000_000)),
        dollars(Size(1_000_000, 5_000, 1_000_000)),
    )
    assert (busier["HTTP API"], busier["Fargate Spot"]) == (
        2 * parts["HTTP API"],
        parts["Fargate Spot"],
    )
    assert (larger["HTTP API"], larger["Fargate Spot"] > 10 * parts["Fargate Spot"]) == (
        parts["HTTP API"],
        True,
    )


def test_large_refreshes_get_larger_tasks() -> None:
    """The state machine ends a task after four hours."""
    assert [cost.task_for(Size(users, 1, 0))[0] for users in (10_000, 400_000, 1_000_000)] == [
        4.0,
        8.0,
        16.0,
    ]
    assert "raise the limit" in next(
        p.uses for p in estimate(Size(50_000_000, 1, 0)) if p.name == "Fargate Spot"
    )


def test_on_demand_costs_more_than_spot() -> None:
    """The component says which it is."""
    assert (
        dollars(Size(10_000, 5_000, 0, spot=False))["Fargate"] > 2 * dollars(SMALL)["Fargate Spot"]
    )


def test_the_constants_are_the_templates() -> None:
    """Alarms, endpoints and memory are counted where they are declared."""
    text = (ROOT / "template.yaml").read_text()
    assert (
        text.count("Type: AWS::CloudWatch::Alarm"),
        text.count("VpcEndpointType: Interface"),
    ) == (cost.ALARMS, cost.ENDPOINTS)
    assert f"Default: {round(cost.MEMORY_GB * 1024)}" in text
    states = yaml.safe_load((ROOT / "infra" / "refresh.asl.json").read_text())["States"]
    assert states["Refresh"]["TimeoutSeconds"] == cost.TASK_HOURS * 3600


def test_an_unknown_region_is_told() -> None:
    """No price is invented."""
    with pytest.raises(InvalidInput, match="take one, and expect"):
        estimate(SMALL, "eu-nowhere-1")


def test_the_command_prints_the_table() -> None:
    """With the date of the prices, the total and what a million requests cost."""
    arguments = [
        "cost",
        "--users",
        "10000",
        "--items",
        "5000",
        "--requests-per-month",
        "1000000",
        "--on-demand",
    ]
    said = CliRunner().invoke(main, arguments).output
    assert all(word in said for word in (cost.PRICES_OF, "a million requests", "Fargate", "total"))


@pytest.mark.parametrize(
    ("users", "items", "requests"),
    [(10_000, 5_000, 10**6), (200_000, 50_000, 2 * 10**7), (10**6, 10**5, 10**8)],
)
def test_the_guide_shows_the_estimate(users, items, requests) -> None:
    """Each of its three sizes, to the dollar."""
    total = sum(part.dollars for part in estimate(Size(users, items, requests)))
    row = f"| {users:,} | {items:,} | {requests:,} | ${total:,.0f} |"
    assert row in (ROOT / "docs" / "deploy.md").read_text()
