"""What people do with releases: look at them, try one on a share of the users, compare two, and remove the old ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.publish import PAGE
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import Canary, ReleasePointer, UserRecord
from shortlist.recsys.store.releases import change

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
    """A line for each release, oldest first, with what it is to the users."""
    with batch_store(settings) as store:
        pointer = store.release()
    artefacts = open_artefacts(settings.artefacts)
    for version in artefacts.versions():
        figures = (
            artefacts.manifest(version).get("metrics", {}).get("two_stage", {}).get("ndcg@10", {})
        )
        role = role_of(version, pointer)
        star = "*" if role == "serving" else " "
        yield f"{star} {version}  ndcg@10 {figures.get('value')}  {role}".rstrip()


def role_of(version: str, pointer: ReleasePointer | None) -> str:
    """What a release is to the users: serving, previous, canary with its share, or nothing."""
    if pointer is None:
        return ""
    if version == pointer.current:
        return "serving"
    if pointer.canary is not None and version == pointer.canary.version:
        return f"canary, {pointer.canary.percent:g}% of the users"
    return "previous" if version == pointer.previous else ""


def show(settings: Settings, version: str) -> Table:
    """What is known of a release, as a table."""
    artefacts = open_artefacts(settings.artefacts)
    manifest = artefacts.manifest(version)
    with batch_store(settings) as store:
        role, listed = role_of(version, store.release()), store.popular(version) is not None
    table = Table("what", "value", title=f"release {version}")
    for name, value in _told(manifest, role, listed=listed):
        table.add_row(name, value)
    if PAGE in manifest["files"]:
        table.add_row("report", artefacts.address(version, PAGE))
    return table


def _told(manifest: dict[str, Any], role: str, *, listed: bool) -> Iterator[tuple[str, str]]:
    yield "role", role or "none"
    yield "lists in Redis", "yes" if listed else "no, they have expired"
    for name in ("created_at", "as_of"):
        yield name, datetime.fromtimestamp(manifest[name], UTC).isoformat()
    for name in ("code_version", "protocol", "gate", "list_length", "feature_hash"):
        yield name, str(manifest.get(name))
    for name, figure in manifest.get("metrics", {}).get("two_stage", {}).items():
        if isinstance(figure, dict) and "value" in figure:
            yield name, f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
    size = sum(told["size"] for told in manifest["files"].values())
    yield "files", f"{len(manifest['files'])}, {size / 2**20:.1f} MiB"


def canary(settings: Settings, version: str, percent: float) -> ReleasePointer:
    """Serves a share of the users from `version`, the same ones until that changes; 0 ends it.

    Raises:
        InvalidInput: the release serves already, or has no lists in Redis, or there is none to
            compare with.
        CorruptArtefact: it is not among the artefacts.
    """
    open_artefacts(settings.artefacts).manifest(version)

    def changed(pointer: ReleasePointer | None) -> ReleasePointer:
        if pointer is None or pointer.current == version:
            serving = (
                "no release serves"
                if pointer is None
                else f"release {version} serves everybody already"
            )
            raise InvalidInput(
                f"{serving}: a canary is a release beside the serving one; see `shortlist release list`"
            )
        return replace(pointer, canary=Canary(version, percent) if percent > 0 else None)

    with batch_store(settings) as store:
        changed(store.release())  # the first thing to say, if it is so
        if not store.restore(version):  # which keeps a retired release from expiring
            message = f"release {version} is no longer whole in Redis (its lists expired): publish it again by a batch run"
            raise InvalidInput(message)
        return change(store, changed)


def prune(settings: Settings, keep: int, now: float) -> list[str]:
    """Removes all but the `keep` newest releases, never one that has a role, and what crashed uploads left; gives the removed."""
    with batch_store(settings) as store:
        pointer = store.release()
    artefacts = open_artefacts(settings.artefacts)
    versions = artefacts.versions()
    removed = [v for v in versions[: max(0, len(versions) - keep)] if not role_of(v, pointer)]
    for version in removed:
        artefacts.remove(version)
    artefacts.sweep(now - STRAY_SECONDS)
    return removed


def shadow(settings: Settings, version: str, users: int, k: int) -> tuple[str, Shift]:
    """Scores the same stored users with the serving release and with `version`; gives the serving one and the difference.

    Raises:
        InvalidInput: no release serves, or no user is stored.
    """
    with batch_store(settings) as store:
        pointer, records = store.release(), store.some_users(users)
    if pointer is None or not records:
        raise InvalidInput("there is no serving release, or no user in Redis: run the batch first")
    with tempfile.TemporaryDirectory(prefix="shortlist-") as directory:
        artefacts = open_artefacts(settings.artefacts)
        old, new = (
            bundle.load(artefacts.fetch(v, Path(directory))) for v in (pointer.current, version)
        )
        return pointer.current, shift(
            [_list(old, r, k) for r in records], [_list(new, r, k) for r in records], k
        )


def shift(old: Iterable[dict[str, float]], new: Iterable[dict[str, float]], k: int) -> Shift:
    """How lists differ that are given as {item: score}, best first."""
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a and b]
    if not pairs:
        raise InvalidInput(
            "no user has a list in both releases: the catalogues have nothing in common"
        )
    both = [b[item] - a[item] for a, b in pairs for item in a.keys() & b.keys()]
    return Shift(
        len(pairs),
        k,
        float(np.mean([len(a.keys() & b.keys()) / max(len(a), len(b)) for a, b in pairs])),
        float(np.mean([next(iter(a)) == next(iter(b)) for a, b in pairs])),
        float(np.mean(both)) if both else float("nan"),
        _percentiles(score for a, _ in pairs for score in a.values()),
        _percentiles(score for _, b in pairs for score in b.values()),
    )


def shift_table(serving: str, version: str, found: Shift) -> Table:
    """The difference as a table."""
    table = Table(
        "what",
        "value",
        title=f"{version} beside {serving}, {found.users} users, first {found.k} items",
    )
    table.add_row("items in both lists", f"{found.overlap:.1%}")
    table.add_row("same first item", f"{found.same_first:.1%}")
    table.add_row("score, new minus old, items in both", f"{found.score_shift:+.4f}")
    for name, scores in ((serving, found.old_scores), (version, found.new_scores)):
        table.add_row(
            f"scores of {name}: 5%, 50%, 95%", "  ".join(f"{score:.4f}" for score in scores)
        )
    return table


def _list(loaded: Bundle, user: UserRecord, k: int) -> dict[str, float]:
    state, _ = bundle.state_from(
        loaded,
        user.items,
        user.times,
        user.weights,
        user.n_events,
        user.seen,
        user.attributes or {},
    )
    found = recommend(loaded.model, state, k)
    rows, scores = found.items[0], found.scores[0]
    return {
        loaded.catalogue.ids[row]: float(score)
        for row, score in zip(rows, scores, strict=True)
        if row != MISSING
    }


def _percentiles(scores: Iterable[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(list(scores), [5, 50, 95])
    return float(low), float(middle), float(high)
