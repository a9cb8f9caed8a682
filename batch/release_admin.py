"""Lists, shows, tries, compares and removes releases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.publish import PAGE
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, TWO_STAGE, headline_value
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import ReleasePointer, UserRecord

STRAY_SECONDS = 86_400.0
"""How old an upload without a manifest must be to count as crashed: none takes a day."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How the lists of two releases differ, over the same users.

    overlap: mean share of a list's items that are in the other; same_first: share of users whose
    first item is the same;
    score_shift: mean of the new score minus the old one over the items that are in both lists;
    old_scores, new_scores: their 5th, 50th and 95th percentile.
    """

    users: int
    k: int
    overlap: float
    same_first: float
    score_shift: float
    old_scores: tuple[float, float, float]
    new_scores: tuple[float, float, float]


def listing(settings: Settings) -> Iterator[str]:
    """Lists the releases, oldest first, with their roles."""
    with batch_store(settings) as store:
        pointer = store.release()
    artefacts = open_artefacts(settings.artefacts)
    for version in artefacts.versions():
        ndcg = headline_value(artefacts.manifest(version).get("metrics", {}))
        role = role_of(version, pointer)
        star = "*" if role == "serving" else " "
        yield f"{star} {version}  {HEADLINE_METRIC} {ndcg}  {role}".rstrip()


def role_of(version: str, pointer: ReleasePointer | None) -> str:
    """A release's role in a few words, or ""."""
    if pointer is None:
        return ""
    if version == pointer.current:
        return "serving"
    if pointer.canary is not None and version == pointer.canary.version:
        return f"canary, {pointer.canary.percent:g}% of the users"
    return "previous" if version == pointer.previous else ""


def show(settings: Settings, version: str) -> Table:
    """The facts of a release, as a table."""
    artefacts = open_artefacts(settings.artefacts)
    manifest = artefacts.manifest(version)
    with batch_store(settings) as store:
        role, listed = role_of(version, store.release()), store.popular(version) is not None
    table = Table("what", "value", title=f"release {version}")
    for name, value in _facts(manifest, role, listed=listed):
        table.add_row(name, value)
    if PAGE in manifest["files"]:
        table.add_row("report", artefacts.address(version, PAGE))
    return table


def _facts(manifest: dict[str, Any], role: str, *, listed: bool) -> Iterator[tuple[str, str]]:
    yield "role", role or "none"
    yield "lists in Redis", "yes" if listed else "no, they have expired"
    for name in ("created_at", "as_of"):
        yield name, datetime.fromtimestamp(manifest[name], UTC).isoformat()
    for name in ("code_version", "protocol", "gate", "list_length", "feature_hash"):
        yield name, str(manifest.get(name))
    for name, figure in manifest.get("metrics", {}).get(TWO_STAGE, {}).items():
        if isinstance(figure, dict) and "value" in figure:
            yield name, f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
    size = sum(file["size"] for file in manifest["files"].values())
    yield "files", f"{len(manifest['files'])}, {size / 2**20:.1f} MiB"


def canary(settings: Settings, version: str, percent: float) -> ReleasePointer:
    """Serves a share of the users from a release, see `releases.canary`."""
    artefacts = open_artefacts(settings.artefacts)
    with batch_store(settings) as store:
        artefacts.manifest(version)
        pointer = store.release()
        if percent > 0 and pointer is not None and pointer.current != version:
            store.restore(version)  # which keeps a retired release from expiring
        return releases.canary(store, artefacts, version, percent)


def prune(settings: Settings, keep: int, now: float) -> list[str]:
    """Removes old releases and what crashed uploads left.

    The `keep` newest stay, and all that have a role. now: unix seconds. Gives the removed versions.
    """
    with batch_store(settings) as store:
        pointer = store.release()
    artefacts = open_artefacts(settings.artefacts)
    versions = artefacts.versions()
    old = versions[: max(0, len(versions) - keep)]
    removed = [version for version in old if not role_of(version, pointer)]
    for version in removed:
        artefacts.remove(version)
    # By age, as an upload that is going on has no manifest either.
    artefacts.sweep(now - STRAY_SECONDS)
    return removed


def shadow(settings: Settings, version: str, users: int, k: int) -> tuple[str, Shift]:
    """Scores stored users with the serving release and with `version`.

    Gives the serving version and the difference.

    Raises:
        InvalidInput: no release serves, or no user is stored.
    """
    with batch_store(settings) as store:
        pointer, records = store.release(), store.some_users(users)
    if pointer is None or not records:
        raise InvalidInput("there is no serving release, or no user in Redis: run the batch first")
    with tempfile.TemporaryDirectory(prefix="shortlist-") as directory:
        artefacts = open_artefacts(settings.artefacts)
        old = bundle.load(artefacts.fetch(pointer.current, Path(directory)))
        new = bundle.load(artefacts.fetch(version, Path(directory)))
        old_lists = [_list(old, record, k) for record in records]
        new_lists = [_list(new, record, k) for record in records]
    return pointer.current, shift(old_lists, new_lists, k)


def shift(old: Iterable[dict[str, float]], new: Iterable[dict[str, float]], k: int) -> Shift:
    """Compares lists, each {item: score} with the best first.

    Raises:
        InvalidInput: no user has a list in both.
    """
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a and b]
    if not pairs:
        raise InvalidInput(
            "no user has a list in both releases: the catalogues have nothing in common"
        )
    overlaps = [len(a.keys() & b.keys()) / max(len(a), len(b)) for a, b in pairs]
    same_first = [next(iter(a)) == next(iter(b)) for a, b in pairs]
    differences = [b[item] - a[item] for a, b in pairs for item in a.keys() & b.keys()]
    return Shift(
        len(pairs),
        k,
        float(np.mean(overlaps)),
        float(np.mean(same_first)),
        float(np.mean(differences)) if differences else float("nan"),
        _percentiles(score for a, _ in pairs for score in a.values()),
        _percentiles(score for _, b in pairs for score in b.values()),
    )


def shift_table(serving: str, version: str, shift: Shift) -> Table:
    """The difference as a table."""
    title = f"{version} next to {serving}, {shift.users} users, first {shift.k} items"
    table = Table("what", "value", title=title)
    table.add_row("items in both lists", f"{shift.overlap:.1%}")
    table.add_row("same first item", f"{shift.same_first:.1%}")
    table.add_row("score, new minus old, items in both", f"{shift.score_shift:+.4f}")
    for name, scores in ((serving, shift.old_scores), (version, shift.new_scores)):
        figures = "  ".join(f"{score:.4f}" for score in scores)
        table.add_row(f"scores of {name}: 5%, 50%, 95%", figures)
    return table


def _list(loaded: Bundle, user: UserRecord, k: int) -> dict[str, float]:
    state, _ = bundle.state_of(loaded, user)
    recommendations = recommend(loaded.model, state, k)
    rows, scores = recommendations.items[0], recommendations.scores[0]
    return {
        loaded.catalogue.ids[row]: float(score)
        for row, score in zip(rows, scores, strict=True)
        if row != MISSING
    }


def _percentiles(scores: Iterable[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(scores), [5, 50, 95])
    return float(low), float(middle), float(high)
