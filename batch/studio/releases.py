"""Opens releases for the studio, and keeps the latest two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from shortlist.batch.studio import facts, reach
from shortlist.batch.studio.facts import StudioFacts
from shortlist.batch.studio.search import ItemSearch
from shortlist.recsys.errors import CorruptArtefact, ReleaseNotFound
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.catalogue import ItemAttribute
from shortlist.recsys.models.interactions import Int32, Int64
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.where import AttributeKind, labels_of

KEPT = 2
"""Releases in memory: the serving one, and the one it is compared with."""

MOST_VALUES = 50
"""Values of an attribute that are offered as a choice; of more, none are."""

REPORT_BYTES = 64 << 20
"""The largest report that is read; a real one has a few hundred kilobytes."""


@dataclass(frozen=True)
class View:
    """A loaded release, and what the studio derives from it once.

    report, facts, reach: of the run; None for a release of before the studio, reach also for one
    without lists.
    """

    version: str
    bundle: Bundle
    report: dict[str, Any] | None
    facts: StudioFacts | None
    reach: Int32 | None

    @property
    def manifest(self) -> dict[str, Any]:
        """What the release says of itself."""
        return self.bundle.manifest

    @cached_property
    def n_events(self) -> Int64:
        """int64[n]: events of each item; without facts, of the kinds that are predicted."""
        if self.facts is not None:
            return self.facts.arrays["item_n"].astype(np.int64)
        popularity = self.bundle.model.table.popularity[:-1]  # the last row is padding
        return np.rint(np.expm1(popularity.astype(np.float64))).astype(np.int64)

    @cached_property
    def pick_of(self) -> dict[bytes, int]:
        """Digest of a user -> place among the facts' users."""
        of = self.facts
        return {} if of is None else {of.digest(pick): pick for pick in range(of.n_picks)}

    @cached_property
    def search(self) -> ItemSearch:
        """Finds items by id and title."""
        items = self.bundle.catalogue
        return ItemSearch(items.ids, items.titles, self.bundle.popular.tolist())

    @cached_property
    def rows_of(self) -> dict[str, set[int]]:
        """Category -> the rows of its items."""
        rows: dict[str, set[int]] = {}
        for row, names in enumerate(self.bundle.catalogue.categories):
            for name in names:
                rows.setdefault(name, set()).add(row)
        return rows

    @property
    def categories(self) -> list[str]:
        """The categories, those of the most items first."""
        return sorted(self.rows_of, key=lambda name: (-len(self.rows_of[name]), name))

    @cached_property
    def attributes(self) -> list[dict[str, Any]]:
        """The items' columns that can be filtered by, each with its values or its range."""
        columns = self.bundle.catalogue.attributes
        return [_described(column) for column in columns if column.is_filtered]

    def title(self, item_id: str) -> str | None:
        """An item's title; None where the catalogue lacks the item."""
        row = self.bundle.catalogue.row_of.get(item_id)
        return None if row is None else self.bundle.catalogue.titles[row]


class Releases:
    """The releases that the studio shows. Methods may raise Unavailable and BrokenRelease."""

    def __init__(self, settings: Settings, store: RedisStore) -> None:
        self._settings, self._store = settings, store
        self._views: dict[str, View] = {}
        self._lock = Lock()  # a second request waits for the first one's load

    def pointer(self) -> ReleasePointer:
        """The release pointer.

        Raises:
            ReleaseNotFound: nothing serves yet.
        """
        pointer = self._store.release()
        if pointer is None:
            raise ReleaseNotFound(
                "no release serves yet: run `shortlist batch run`, then look again"
            )
        return pointer

    def serving(self) -> View:
        """The serving release."""
        return self.view(self.pointer().current)

    def view(self, version: str) -> View:
        """A release by its version.

        Raises:
            ReleaseNotFound: it is not among the artefacts.
        """
        with self._lock:
            view = self._views.pop(version, None) or self._loaded(version)
            self._views[version] = view  # the latest use last
            while len(self._views) > KEPT:
                self._views.pop(next(iter(self._views)))
            return view

    def _loaded(self, version: str) -> View:
        directory = Path(self._settings.bundle_dir) / "shortlist"
        with open_artefacts(self._settings.artefacts).open(version, directory) as release:
            opened = bundle.read(release)
            n_items = len(opened.catalogue.ids)
            report = known = lists = None
            if facts.REPORT in release.files:
                report = _parsed(release.read(facts.REPORT, REPORT_BYTES), version)
            if facts.FILE in release.files:
                known = facts.unpack(release.read(facts.FILE, facts.MOST_BYTES))
                _check_items(known, n_items)
            if reach.FILE in release.files:
                lists = reach.read(release.file(reach.FILE), n_items)
            view = View(version, opened, report, known, lists)
        _ = view.search, view.rows_of, view.pick_of  # now, and not while somebody types
        return view


def _described(attribute: ItemAttribute) -> dict[str, Any]:
    described: dict[str, Any] = {"name": attribute.name, "kind": attribute.kind.value}
    present: list[Any] = [value for value in attribute.values if value is not None]
    if attribute.kind in (AttributeKind.NUMBER, AttributeKind.DATE):
        return described | {"range": [min(present), max(present)] if present else None}
    labels = {label for value in present for label in labels_of(value)}
    return described | {"values": sorted(labels) if len(labels) <= MOST_VALUES else None}


def _check_items(known: StudioFacts | None, n_items: int) -> None:
    if known is not None and known.n_items != n_items:
        raise CorruptArtefact(
            f"{facts.FILE} is of {known.n_items} items, the catalogue has {n_items}: "
            "publish the release again"
        )


def _parsed(body: bytes, version: str) -> dict[str, Any]:
    try:
        report = json.loads(body)
    except ValueError as error:
        raise CorruptArtefact(
            f"the report of release {version} is no JSON ({error}): publish the release again"
        ) from error
    if not isinstance(report, dict):
        raise CorruptArtefact(
            f"the report of release {version} is no object: publish the release again"
        )
    return report
