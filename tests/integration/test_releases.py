"""Tests canary, shadow, show, list and prune of releases.

They run on a real Valkey with two releases of the real batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from shortlist.batch import release_admin, release_shift
from shortlist.batch.publish import promote, publish
from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.lambda_handler.answers import Filters, RecommendationQuery
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.live_cache import LiveCache
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import Canary, ReleasePointer, UserRecord
from shortlist.recsys.store.redis import open_store

ROOT = Path(__file__).parents[2]
USERS = [str(number) for number in range(2000)]


@pytest.fixture
def two(published, release, namespace, reporter, tmp_path) -> Settings:
    """Settings under which v1 and then v2 have been published."""
    settings = replace(
        published.settings, namespace=namespace, artefacts=str(tmp_path / "artefacts")
    )
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    return settings


@pytest.fixture
def pointer(two) -> Iterator:
    """Reads the release pointer."""
    store = open_store(two.redis_url, two.namespace, 1000)
    yield store.release
    store.close()


def served(pointer: ReleasePointer) -> set[str]:
    """The users that the canary serves."""
    return {user for user in USERS if pointer.serving(user) != pointer.current}


def test_a_canary_serves_the_same_users() -> None:
    """A larger percentage keeps the users of a smaller one; another canary takes others."""
    five, twenty = (
        served(ReleasePointer("a", None, Canary("b", percent))) for percent in (5.0, 20.0)
    )
    assert (80 < len(five) < 120, 350 < len(twenty) < 450, five < twenty) == (True, True, True)
    assert served(ReleasePointer("a", None, Canary("other", 5.0))) != five
    assert served(ReleasePointer("a", None, Canary("b", 0.0))) == set()
    assert served(ReleasePointer("a", None, Canary("b", 100.0))) == set(USERS)
    assert ReleasePointer("a", None, Canary("b", 100.0)).serving(None) == "a"


def test_release_and_canary_bundles_are_held(two) -> None:
    """Live answers that alternate between the two load each bundle once."""
    live = LivePath(two)
    for version in ("v1", "v2"):
        assert live.recommend(version, UserRecord(), 3, Filters()).items
    held = dict(live._loaded)
    for version in ("v1", "v2", "v1"):
        live.popular(version, 3, Filters())
    assert {version: live._loaded[version] is loaded for version, loaded in held.items()} == {
        "v1": True,
        "v2": True,
    }


def test_a_canary_is_served_and_ended(two, pointer, published) -> None:
    """The API answers the canary's users from it; 0 percent, or a promotion, ends it."""
    assert (
        release_admin.canary(two, "v1", 50.0)
        == ReleasePointer("v2", "v1", Canary("v1", 50.0))
        == pointer()
    )
    store = open_store(two.redis_url, two.namespace, 1000)
    metrics = Metrics()
    serving = ServingRelease(two, store, None, metrics, time.time)
    recommender = Recommender(serving, store, None, LiveCache(store, 60), metrics)
    users = published.dataset.user_ids[:40]
    expected = [pointer().serving(user) for user in users]
    assert [
        recommender.recommend(RecommendationQuery(user, 3)).version for user in users
    ] == expected
    assert set(expected) == {"v1", "v2"}
    assert set(serving._items) == {"v1", "v2"}
    store.close()
    assert release_admin.canary(two, "v1", 0.0).canary is None
    release_admin.canary(two, "v1", 5.0)
    promote(two, "v1")
    assert pointer() == ReleasePointer("v1", "v2")


def test_a_canary_must_be_servable(two) -> None:
    """The serving one, an unknown one and one without lists are refused."""
    with pytest.raises(InvalidInput, match="serves everybody already"):
        release_admin.canary(two, "v2", 5.0)
    with pytest.raises(InvalidInput, match="there is no release 'v9': the latest are v2, v1"):
        release_admin.canary(two, "v9", 5.0)
    store = open_store(two.redis_url, two.namespace, 1000)
    store.redis.delete(store.keys.popular("v1"))
    store.close()
    with pytest.raises(InvalidInput, match="is no longer whole in Redis"):
        release_admin.canary(two, "v1", 5.0)
    with pytest.raises(InvalidInput, match="no release serves"):
        release_admin.canary(replace(two, namespace=f"{two.namespace}-empty"), "v1", 5.0)


def test_a_shadow_of_the_same_model(two) -> None:
    """v1 and v2 are one bundle under two names."""
    serving, shift = release_shift.shadow(two, "v1", 30, 10)
    assert (serving, shift.users, shift.overlap, shift.same_first, shift.score_shift) == (
        "v2",
        30,
        1.0,
        1.0,
        0.0,
    )
    assert shift.old_scores == shift.new_scores


def test_the_shift_between_lists() -> None:
    """Half of the items in common, one of two first items, scores up by one."""
    old = [{"a": 1.0, "b": 0.5}, {"c": 1.0, "d": 0.5}]
    new = [{"a": 2.0, "x": 0.5}, {"d": 1.5, "y": 0.5}]
    shift = release_shift.shift(old, new, 2)
    assert (shift.users, shift.overlap, shift.same_first, shift.score_shift) == (2, 0.5, 0.5, 1.0)
    with pytest.raises(InvalidInput, match="no user has a list"):
        release_shift.shift([{}], [{"a": 1.0}], 2)


def test_a_shadow_needs_users(two) -> None:
    """Without a release there is nothing to compare with."""
    with pytest.raises(InvalidInput, match="run the batch first"):
        release_shift.shadow(replace(two, namespace=f"{two.namespace}-empty"), "v1", 5, 5)


def test_prune_keeps_releases_with_roles(two, release, reporter, pointer) -> None:
    """The serving one and the one before stay, however few are to be kept."""
    publish(*release("v3"), two, reporter)
    promote(two, "v1")
    assert pointer() == ReleasePointer("v1", "v3")
    assert release_admin.prune(two, 1, time.time()) == ["v2"]
    assert open_artefacts(two.artefacts).versions() == ["v1", "v3"]
    assert release_admin.prune(two, 1, time.time()) == []


def test_what_is_told_of_releases(two) -> None:
    """The list marks roles; show gives a release's figures."""
    release_admin.canary(two, "v1", 12.5)
    lines = list(release_admin.lines_of(release_admin.listing(two)))
    assert [line[:4] for line in lines] == ["  v1", "* v2"]
    assert [line.split("  ")[-1] for line in lines] == ["canary, 12.5% of the users", "serving"]
    console = Console(record=True, width=1000)
    with console.capture() as captured:
        console.print(release_admin.facts_table("v1", release_admin.show(two, "v1")))
    assert all(
        word in captured.get()
        for word in ("release v1", "canary, 12.5%", "ndcg@10", "MiB", "last-10pct", "report.html")
    )


def test_the_commands(two, published) -> None:
    """`shortlist release` does all of it, and says what it did."""
    environ = os.environ | published.environ
    environ |= {"SHORTLIST_NAMESPACE": two.namespace, "SHORTLIST_ARTEFACTS": two.artefacts}

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "shortlist.batch.cli", "release", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
        ).stdout

    assert said("canary", "v1", "--percent", "10") == "v2 is serving, v1 serves 10% of the users\n"
    assert "serving" in said("list")
    assert "gate" in said("show", "v1")
    assert "100.0%" in said("shadow", "v1", "--users", "5", "--k", "3")
    assert said("prune", "--keep", "5") == "0 removed\n"
    assert said("canary", "v1", "--percent", "0") == "v2 is serving, no canary\n"


def test_a_warm_handler_sees_a_flip(two, published) -> None:
    """Promotion is seen by a running Lambda at its next look at the pointer."""
    user = published.dataset.user_ids[0]
    environ = os.environ | published.environ
    environ |= {"SHORTLIST_NAMESPACE": two.namespace, "SHORTLIST_ARTEFACTS": two.artefacts}
    event = http_event("POST", "/recommend", {"user_id": user, "k": 1})
    with LambdaService("shortlist.lambda_handler.handler.handler", str(ROOT), environ) as service:
        before = service.invoke(event).payload["body"]
        promote(two, "v1")
        after = service.invoke(event).payload["body"]
    assert ('"v2"' in before, '"v1"' in after) == (True, True)
