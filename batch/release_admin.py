"""Lists, shows, tries and removes releases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.stages import PAGE
from shortlist.recsys.errors import InvalidInput, ReleaseNotFound
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, TWO_STAGE, headline_value
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.artefacts import Artefacts, existing_artefacts
from shortlist.recsys.store.records import ReleasePointer

LATEST = 3
"""Versions that a message names."""

MAX_SHOWN = 100
"""Characters of a version that a message shows."""

NO_RELEASE = "no release yet: `shortlist batch run` makes one"

STRAY_SECONDS = 86_400.0
"""How old an upload without a manifest must be to count as crashed: none takes a day."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A release that the artefacts have.

    role: see `role_of`; headline: the value of HEADLINE_METRIC, None where it was not measured.
    """

    version: str
    headline: float | None
    role: str


def listing(settings: Settings) -> list[Listed]:
    """The releases, oldest first.

    Raises:
        InvalidSettings: the place for them is not there, or no directory.
    """
    artefacts = existing_artefacts(settings.artefacts)
    with batch_store(settings) as store:
        pointer = store.release()
    return [
        Listed(
            version,
            headline_value(artefacts.manifest(version).get("metrics", {})),
            role_of(version, pointer),
        )
        for version in artefacts.versions()
    ]


def lines_of(listed: Iterable[Listed]) -> Iterator[str]:
    """A line for each release; the serving one has a star."""
    for release in listed:
        star = "*" if release.role == "serving" else " "
        figure = "not measured" if release.headline is None else f"{release.headline:.4f}"
        headline = f"{HEADLINE_METRIC} {figure}"
        yield f"{star} {release.version}  {headline}  {release.role}".rstrip()


def role_of(version: str, pointer: ReleasePointer | None) -> str:
    """A release's role in a few words, or ""."""
    if pointer is None:
        return ""
    if version == pointer.current:
        return "serving"
    if pointer.canary is not None and version == pointer.canary.version:
        return f"canary, {pointer.canary.percent:g}% of the users"
    return "previous" if version == pointer.previous else ""


def show(settings: Settings, version: str) -> dict[str, str]:
    """The facts of a release, by name.

    Raises:
        InvalidInput: the artefacts have no such release.
    """
    artefacts = existing_artefacts(settings.artefacts)
    manifest = _known(artefacts, version)
    with batch_store(settings) as store:
        role, listed = role_of(version, store.release()), store.popular(version) is not None
    facts = dict(_facts(manifest, role, listed=listed))
    if PAGE in manifest["files"]:
        facts["report"] = artefacts.address(version, PAGE)
    return facts


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


def facts_table(version: str, facts: Mapping[str, str]) -> Table:
    """The facts of a release as a table."""
    table = Table("what", "value", title=f"release {version}")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def ensure_readable(settings: Settings) -> None:
    """Checks that artefacts are there, and that Redis answers.

    Raises:
        InvalidSettings: the place for artefacts is not there, or no directory.
        StoreUnavailable: Redis does not answer.
    """
    existing_artefacts(settings.artefacts)
    with batch_store(settings) as store:
        store.ping()


def ensure_known(settings: Settings, version: str) -> None:
    """Checks that the artefacts have a release.

    Raises:
        InvalidInput: they do not; the message names the latest that they have.
    """
    _known(existing_artefacts(settings.artefacts), version)


def _known(artefacts: Artefacts, version: str) -> dict[str, Any]:
    try:
        return artefacts.manifest(version)
    except ReleaseNotFound as error:
        latest = artefacts.versions()[: -LATEST - 1 : -1]
        remedy = f"the latest are {', '.join(latest)}" if latest else NO_RELEASE
        shown = version if len(version) <= MAX_SHOWN else f"{version[:MAX_SHOWN]}…"
        raise InvalidInput(f"there is no release {shown!r}: {remedy}") from error


def canary(settings: Settings, version: str, percent: float) -> ReleasePointer:
    """Serves a share of the users from a release, see `releases.canary`.

    Raises:
        InvalidInput: as it does; or the release is not among the artefacts.
    """
    artefacts = existing_artefacts(settings.artefacts)
    _known(artefacts, version)
    with batch_store(settings) as store:
        pointer = store.release()
        if percent > 0 and pointer is not None and pointer.current != version:
            store.restore(version)  # which keeps a retired release from expiring
        return releases.canary(store, artefacts, version, percent)


def prune(settings: Settings, keep: int, now: float) -> list[str]:
    """Removes old releases and what crashed uploads left.

    The `keep` newest stay, and all that have a role. now: unix seconds. Gives the removed versions.
    """
    artefacts = existing_artefacts(settings.artefacts)
    with batch_store(settings) as store:
        pointer = store.release()
    versions = artefacts.versions()
    old = versions[: max(0, len(versions) - keep)]
    removed = [version for version in old if not role_of(version, pointer)]
    for version in removed:
        artefacts.remove(version)
    # By age, as an upload that is going on has no manifest either.
    artefacts.sweep(now - STRAY_SECONDS)
    return removed
