"""Offers Shortlist to Python: what `import shortlist` gives.

The command line calls the same functions. Frames are Polars'.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.batch import job as jobs
from shortlist.batch import offline_evaluation, precompute
from shortlist.batch.cold_start import cold_start as measure_cold_start
from shortlist.batch.library_input import (
    Frames,
    Table,
    check_paths,
    ids_of,
    length_of,
    methods_of,
    params_of,
    texts_of,
    where_of,
)
from shortlist.batch.progress import ProgressReporter, silent_reporter
from shortlist.batch.tables import Tables, checked, of_mapping
from shortlist.recsys import data as loading
from shortlist.recsys.data import Loaded
from shortlist.recsys.data.check import Check, Given
from shortlist.recsys.data.check import check as check_files
from shortlist.recsys.data.mapping import write_mapping
from shortlist.recsys.errors import InvalidInput, UnknownItem
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, TWO_STAGE
from shortlist.recsys.evaluation.page import write_page
from shortlist.recsys.evaluation.report import Report, write_json
from shortlist.recsys.event_rules import ONE_KIND, EventRules
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle, Items
from shortlist.recsys.models.catalogue import Catalogue
from shortlist.recsys.models.features import FEATURES, Candidates
from shortlist.recsys.models.filter_columns import FilterColumns
from shortlist.recsys.models.interactions import (
    MISSING,
    Float32,
    Int32,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Recommended
from shortlist.recsys.models.pipeline import recommend as recommend_by
from shortlist.recsys.models.reasons import contributions
from shortlist.recsys.models.similar import similar as similar_to
from shortlist.recsys.settings import HoldoutProtocol, RepeatsMode, Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.release_files import MANIFEST
from shortlist.recsys.store.rules import of_columns
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.values import shown
from shortlist.recsys.where import CATEGORIES, Condition, conditions_of
from shortlist.recsys.where import checked as conditions_checked

DEFAULT_PROTOCOL: HoldoutProtocol = "last-10pct"


@dataclass(frozen=True, slots=True)
class Data:
    """Tables that were read and validated.

    tables: where they lie; loaded: the arrays, with the counts of rejected rows by reason, and
    notes on what was left out.
    """

    tables: Tables
    loaded: Loaded
    max_reject_share: float
    positive_rating: float | None
    frames: Frames | None = None
    """Keeps the files of frames."""

    def __repr__(self) -> str:
        """Sizes, as the arrays would fill a page."""
        dataset, n_bad = self.loaded.dataset, sum(self.loaded.rejects.values())
        return (
            f"Data({len(dataset.events)} events of {len(dataset.user_ids)} users with "
            f"{len(dataset.catalogue)} items, {n_bad} rows rejected)"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was left out, and what the data are like."""
        return self.loaded.notes

    @property
    def rejects(self) -> pl.DataFrame:
        """reason, rows: how many rows each reason rejected, most first."""
        rejects = self.loaded.rejects
        return pl.DataFrame(
            {"reason": list(rejects), "rows": list(rejects.values())},
            schema={"reason": pl.String, "rows": pl.Int64},
        )

    @property
    def users(self) -> pl.DataFrame:
        """user_id, events: every user, and the number of their events."""
        events = self.loaded.dataset.events
        counts = np.bincount(events.user, minlength=events.n_users)
        return pl.DataFrame({"user_id": self.loaded.dataset.user_ids, "events": counts})

    @property
    def items(self) -> pl.DataFrame:
        """item_id, title, categories, events, and a column for each attribute: the catalogue.

        events: how many there are with the item.
        """
        dataset = self.loaded.dataset
        counts = np.bincount(dataset.events.item, minlength=dataset.events.n_items)
        return _items_frame(dataset.catalogue, {"events": counts})

    @property
    def interactions(self) -> pl.DataFrame:
        """user_id, item_id, timestamp, weight: the valid events, by user and time.

        Also event_type, where the types are told apart. Negative feedback is not among them.
        """
        dataset = self.loaded.dataset
        events = dataset.events
        columns = {
            "user_id": pl.Series(dataset.user_ids)[events.user],
            "item_id": pl.Series(dataset.catalogue.ids)[events.item],
            "timestamp": events.time,
            "weight": pl.Series(events.weight).fill_nan(None),
        }
        if events.kinds != ONE_KIND:
            columns["event_type"] = pl.Series([each.name for each in events.kinds])[events.kind]
        return pl.DataFrame(columns)


def _items_frame(catalogue: Catalogue | Items, more: Mapping[str, Any]) -> pl.DataFrame:
    """A catalogue as a frame: ids, titles, categories, these columns, and the attributes."""
    columns: dict[str, Any] = {
        "item_id": catalogue.ids,
        "title": catalogue.titles,
        "categories": [list(names) for names in catalogue.categories],
        **more,
    }
    attributes = {
        each.name: list(each.values) for each in catalogue.attributes if each.name not in columns
    }
    return pl.DataFrame(columns | attributes, schema_overrides={"categories": pl.List(pl.String)})


def check(
    *files: str | Path,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    users: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    is_day_first: bool | None = None,
    zone: str | None = None,
    write: str | Path | None = None,
) -> Check:
    """Finds out what files are and how they are written, and which mapping follows.

    files: paths, directories, globs or s3:// addresses; which table each is, is found out.
    interactions, items, users: files whose table is known.
    columns: our name -> theirs, where it is known. is_day_first: of dates such as 03/04/2024.
    zone: of times that do not say theirs, such as Europe/Berlin.
    write: where the mapping goes, for `read(mapping=...)` and the commands' --data.

    Raises:
        InvalidData: a file cannot be read, or which table or column something is cannot be found
            out.
        InvalidSettings: `columns` names a column that there is not.
        InvalidInput: a file is no path, or the mapping cannot be written.
        ArtefactsUnavailable: S3 did not answer.
    """
    named = {"interactions": interactions, "items": items, "users": users}
    check_paths([*files, *(path for path in named.values() if path is not None)])
    tables = {name: (str(path),) for name, path in named.items() if path is not None}
    given = Given(tables, columns or {}, is_day_first, zone)
    found = check_files([str(file) for file in files], given, _nobody_answers, None)
    if write is not None:
        write_mapping(Path(write), found.mapping)
    return found


def _nobody_answers(_example: str, _column: str) -> bool | None:
    return None


def read(
    interactions: Table | None = None,
    items: Table | None = None,
    users: Table | None = None,
    *,
    mapping: str | Path | None = None,
    event_rules: EventRules | None = None,
    positive_rating: float | None = None,
    max_reject_share: float = 0.05,
    rejects: str | Path | None = None,
) -> Data:
    """Reads and validates tables, by paths, as frames, or as a mapping file describes them.

    interactions, items, users: see docs/data.md for their columns; only the first is required.
    mapping: a file that `shortlist data check --write` wrote, instead of the tables.
    event_rules: what the types of events mean, where there is no mapping.
    positive_rating: events that are rated lower are left out.
    max_reject_share: above this share of bad rows the tables are refused.
    rejects: where rejected rows go, a Parquet file.

    Raises:
        InvalidInput: neither tables nor a mapping are given, or both; or a frame is of no kind that
            Polars takes, or lacks a column.
        InvalidData: a table breaks a rule; the message has the value, the rule and the remedy.
        ArtefactsUnavailable: S3 did not answer.
    """
    if (mapping is None) == (interactions is None):
        raise InvalidInput("give either interactions (and items, users) or a mapping file")
    if event_rules is not None and not isinstance(event_rules, EventRules):
        raise InvalidInput(
            f"event_rules is {shown(event_rules)}: give shortlist.EventRules(weights={{…}})"
        )
    if event_rules is not None and mapping is not None:
        raise InvalidInput("the mapping says what events mean: leave out event_rules")
    frames = None
    if mapping is not None:
        if items is not None or users is not None:
            raise InvalidInput("the mapping names all tables: leave out items and users")
        tables = of_mapping(str(mapping))
    else:
        frames = Frames()
        named = {"interactions": interactions, "items": items, "users": users}
        paths = {name: frames.path_of(table, name) for name, table in named.items()}
        rules = EventRules() if event_rules is None else event_rules
        tables = checked(Tables(**paths, event_rules=rules))  # type: ignore[arg-type]
    place = None if rejects is None else Path(rejects)
    data = read_tables(
        tables, place, max_reject_share=max_reject_share, positive_rating=positive_rating
    )
    return replace(data, frames=frames)


def read_tables(
    tables: Tables,
    rejects: Path | None = None,
    *,
    max_reject_share: float = 0.05,
    positive_rating: float | None = None,
) -> Data:
    """`read` for tables whose places are known. Raises as `read`."""
    loaded = loading.load(
        tables.interactions,
        tables.items,
        tables.users,
        max_reject_share=max_reject_share,
        rejects=rejects,
        positive_rating=positive_rating,
        event_rules=tables.event_rules,
    )
    return Data(tables, loaded, max_reject_share, positive_rating)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of an offline evaluation.

    report: all of them, as `shortlist evaluate --json` writes them.
    """

    report: Report

    def __repr__(self) -> str:
        """The headline alone, as the report would fill pages."""
        methods = self.report["methods"]
        name = TWO_STAGE if TWO_STAGE in methods else next(iter(methods))
        value = methods[name][HEADLINE_METRIC]["value"]
        return f"Evaluation({name}: NDCG@10 {value:.4f}; see .methods)"

    @property
    def methods(self) -> pl.DataFrame:
        """part, method, metric, value, low, high, users: every figure with its 95% interval.

        part is "all"; where users may be offered what they had, also "new" and "repeated".
        """
        parts = {"all": self.report, **self.report["repeats"].get("parts", {})}
        rows = [
            {"part": part, "method": method, "metric": metric, **figure}
            | {"users": figures["n_users"]}
            for part, report in parts.items()
            for method, figures in report["methods"].items()
            for metric, figure in figures.items()
            if isinstance(figure, Mapping)
        ]
        return pl.DataFrame(rows)

    @property
    def paired(self) -> pl.DataFrame:
        """method, other, difference, low, high, p_value: of NDCG@10, user by user."""
        rows = [
            {"method": method, "other": other, **figure}
            for method, others in self.report["paired"].items()
            for other, figure in others.items()
        ]
        return pl.DataFrame(rows)

    @property
    def segments(self) -> pl.DataFrame:
        """kind, segment, users, method, value, low, high: NDCG@10 by segment of users."""
        rows = [
            {"kind": kind, "segment": row["segment"], "users": row["n_users"], "method": method}
            | figure
            for kind, segments in self.report["segments"].items()
            for row in segments
            for method, figure in row["methods"].items()
        ]
        return pl.DataFrame(rows)

    def write_json(self, path: str | Path) -> None:
        """Writes the report as JSON."""
        write_json(self.report, Path(path))

    def write_page(self, path: str | Path) -> None:
        """Writes the report as one HTML page with plots."""
        write_page(self.report, Path(path))


def evaluate(
    data: Data,
    *,
    protocol: HoldoutProtocol = DEFAULT_PROTOCOL,
    repeats: RepeatsMode | None = None,
    params: FitParams | None = None,
    methods: Sequence[str] | None = None,
    cold_start: bool = False,
    workers: int = 0,
    reporter: ProgressReporter | None = None,
) -> Evaluation:
    """Compares the two stages with the retriever and strong baselines on a hold-out.

    protocol: how the hold-out is cut.
    repeats: "allow" where users may be offered again what they had; None as `params` say.
    params: of the models, None for the defaults.
    methods: names of those to fit and report, such as ["popularity", "ease"]; None for all. Their
    figures are the same as among all; those of the model alone need "two_stage".
    cold_start: also measures users and items that training has not seen; three times the time.
    workers: processes that make the lists and the ranker's groups; 1 makes them in this one, and 0
    takes every core where there are users and memory enough. `cold_start` takes this one alone.
    reporter: shows the progress; None shows nothing.

    Raises:
        InvalidData: nothing can be held out.
        InvalidInput: a method is unknown, or cannot be measured on these data.
    """
    _check_data(data)
    named = methods_of(methods)
    if cold_start and TWO_STAGE not in named:
        raise InvalidInput(f"cold_start measures {TWO_STAGE}: name it in methods too")
    reporter = silent_reporter() if reporter is None else reporter
    params = params_of(params, repeats)
    dataset = data.loaded.dataset
    report = offline_evaluation.run(dataset, protocol, params, reporter, named, workers)
    if cold_start:
        report |= measure_cold_start(dataset, protocol, params, reporter)
        report |= reporter.stages.summary()  # again: the seconds have grown
    report["data"]["rejects"] = data.loaded.rejects
    report["made_at"] = int(time.time())
    return Evaluation(report)


def fit(
    data: Data,
    *,
    protocol: HoldoutProtocol = DEFAULT_PROTOCOL,
    repeats: RepeatsMode | None = None,
    params: FitParams | None = None,
    directory: str | Path | None = None,
    workers: int = 0,
    reporter: ProgressReporter | None = None,
) -> Release:
    """Trains a release on all of the data, with the stages of `shortlist batch run`.

    It is evaluated on the way, and its report is in it. Nothing is published.
    protocol, repeats, params: as of `evaluate`. workers: as there, and of more than one process one
    trains the towers of a fold, where there is memory for it.
    directory: where the stages work, so that an interrupted fit is continued; None for a temporary
    one.

    Raises:
        InvalidData: the data have nothing to evaluate on.
        ReleaseRefused: the release does not beat popularity; see docs/operations.md.
    """
    _check_data(data)
    settings = replace(Settings.from_env({}), protocol=protocol, workers=workers)
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="shortlist-fit-"))
        job = jobs.Job(
            data.tables.interactions,
            data.tables.items,
            data.tables.users,
            Path(directory),
            settings,
            silent_reporter() if reporter is None else reporter,
            max_reject_share=data.max_reject_share,
            config=params_of(params, repeats),
            positive_rating=data.positive_rating,
            event_rules=data.tables.event_rules,
            is_offline=True,
        )
        return Release.load(jobs.run_offline(job))


def _check_data(data: object) -> None:
    """Raises InvalidInput for what `read` has not given."""
    if not isinstance(data, Data):
        raise InvalidInput(
            f"data is of type {type(data).__name__}: give what `shortlist.read` returns"
        )


_LISTS = pl.DataFrame(
    schema={
        "user_id": pl.String,
        "rank": pl.Int64,
        "item_id": pl.String,
        "title": pl.String,
        "score": pl.Float32,
        "retrieval_score": pl.Float32,
    }
)

_REASONS = pl.DataFrame(
    schema={
        "rank": pl.Int64,
        "item_id": pl.String,
        "title": pl.String,
        "kind": pl.String,
        "name": pl.String,
        "value": pl.Float64,
    }
)


@dataclass(frozen=True, slots=True)
class Release:
    """A trained release in memory."""

    bundle: Bundle

    def __repr__(self) -> str:
        """Version and sizes, as the arrays would fill pages."""
        return f"Release({self.version}, {len(self.bundle.catalogue.ids)} items)"

    @staticmethod
    def load(place: str | Path, version: str | None = None) -> Release:
        """Loads a release.

        place: the directory of a bundle, or the artefacts of many: a directory or an s3:// address.
        version: which of the artefacts; None for the newest.

        Raises:
            InvalidInput: there is no release.
            ReleaseNotFound: this one is not among the artefacts.
            CorruptArtefact, BundleMismatch: it is damaged, or of another version of this code.
        """
        if not str(place).startswith("s3://") and (Path(place) / MANIFEST).is_file():
            return Release(bundle.load(Path(place)))
        artefacts = open_artefacts(str(place))
        versions = artefacts.versions()
        if not versions:
            raise InvalidInput(f"there is no release at {str(place)!r}: fit or publish one first")
        with tempfile.TemporaryDirectory(prefix="shortlist-release-") as directory:
            return Release(bundle.load(artefacts.fetch(version or versions[-1], Path(directory))))

    @property
    def version(self) -> str:
        """The release's version."""
        return str(self.bundle.manifest["version"])

    @property
    def items(self) -> pl.DataFrame:
        """item_id, title, categories, and a column for each attribute: the catalogue."""
        return _items_frame(self.bundle.catalogue, {})

    def recommend(
        self,
        of: Data | Mapping[str, Sequence[str]],
        users: Sequence[str] | None = None,
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
        allow_repeats: bool | None = None,
    ) -> pl.DataFrame:
        """The k best items of each user: user_id, rank, item_id, title, score, retrieval_score.

        of: data whose users have a history, or item ids by user, oldest first.
        users: ids; None for all.
        exclude: items that are not recommended. categories: only items of one of these.
        where: conditions on the items' attributes, as the API has them: {"price": {"lte": 20}}.
        allow_repeats: whether items that the user had may come again; None as it was trained.

        Items that their columns hide at this moment are left out. A warning names what no item has
        of `where` and `categories`, and how much of the histories the release does not know.

        Raises:
            InvalidInput: a user is unknown, k is below 1, a condition does not fit the items, or
                the release has not learnt from repeats.
        """
        k = length_of(k)
        allowed = self._allowed(
            ids_of(exclude, "exclude"), texts_of(categories, "categories"), where or {}
        )
        parts, n_unknown = [_LISTS], 0
        for user, record in self._records(of, users):
            state, n = self._state(record, allow_repeats=allow_repeats)
            n_unknown += n
            listed = recommend_by(self.bundle.model, state, k, allowed=allowed)
            parts.append(self._listed(user, listed))
        _warn_unknown(n_unknown)
        return pl.concat(parts)

    def similar(self, item_id: str, k: int = 10) -> pl.DataFrame:
        """The k items most like one: rank, item_id, title, similarity from 0 to 1.

        Raises:
            UnknownItem: the catalogue lacks the item.
            InvalidInput: k is below 1.
        """
        k, row = length_of(k), self._row(item_id)
        allowed = np.ones(len(self.bundle.catalogue.ids), np.bool_)
        shown_items = self._allowed([], [], {})
        if shown_items is not None:
            allowed &= shown_items
        allowed[row] = False
        others = np.flatnonzero(allowed).astype(np.int32)
        model = self.bundle.model
        rows, likeness = similar_to(model.towers.vectors, model.table.neighbours, row, others)
        return pl.DataFrame(
            {
                "rank": np.arange(1, len(rows[:k]) + 1),
                "item_id": self._ids(rows[:k]),
                "title": self._titles(rows[:k]),
                "similarity": likeness[:k],
            }
        )

    def explain(
        self,
        of: Data | Mapping[str, Sequence[str]],
        user: str,
        k: int = 10,
        *,
        allow_repeats: bool | None = None,
    ) -> pl.DataFrame:
        """Why a user's k best items are recommended: rank, item_id, title, kind, name, value.

        kind "history": name is the title of a past item, value its share of what speaks for the
        recommendation. kind "feature": value is what the feature adds to the ranker's score (SHAP);
        the feature "base" is the score without any.

        Raises:
            InvalidInput: the user is unknown.
        """
        k = length_of(k)
        ((_, record),) = self._records(of, [user])
        state, n_unknown = self._state(record, allow_repeats=allow_repeats)
        _warn_unknown(n_unknown)
        ranked: list[tuple[Candidates, Float32]] = []
        listed = recommend_by(
            self.bundle.model,
            state,
            k,
            allowed=self._allowed([], [], {}),
            sample=lambda *rows: ranked.append(rows),
        )
        rows = listed.items[0][listed.items[0] != MISSING]
        parts = contributions(self.bundle.model, state, rows, ranked[0] if ranked else None)
        frames = [_REASONS]
        for place, row in enumerate(rows.tolist()):
            reasons = [
                *self._causes(state, parts.history[place]),
                *_features(parts.features[place]),
            ]
            columns = {
                "rank": place + 1,
                "item_id": self.bundle.catalogue.ids[row],
                "title": self.bundle.catalogue.titles[row],
            }
            frame = pl.DataFrame(
                [columns | dict(zip(("kind", "name", "value"), r, strict=True)) for r in reasons],
                schema=_REASONS.schema,
            )
            frames.append(frame)
        return pl.concat(frames)

    def _causes(self, state: UserStates, shares: Float32) -> Iterator[tuple[str, str, float]]:
        """The items of the history that speak for a recommendation, strongest first."""
        titles = self.bundle.catalogue.titles
        for at in np.argsort(-shares, kind="stable").tolist():
            if shares[at] > 0:
                yield "history", titles[state.items[0, at]], float(shares[at])

    def _state(self, record: UserRecord, *, allow_repeats: bool | None) -> tuple[UserStates, int]:
        """A user's state, and how many items of the history the release does not know."""
        state, n_unknown = bundle.state_of(self.bundle, record)
        if allow_repeats is None:
            return state, n_unknown
        if allow_repeats and self.bundle.model.repeats is Repeats.NEVER:
            raise InvalidInput(
                f"allow_repeats is true: release {self.version} has not learnt when items are due "
                'again; leave it out, or fit with repeats="allow"'
            )
        repeats = Repeats.ALLOW if allow_repeats else Repeats.NEVER
        return replace(state, repeats=repeats), n_unknown

    def _allowed(
        self, exclude: Sequence[str], categories: Sequence[str], where: Mapping[str, Any]
    ) -> NDArray[np.bool_] | None:
        """bool[n]: the items that may be recommended; None for all."""
        known = self.bundle.facts.attributes
        hidden = of_columns(known, time.time())
        if not exclude and not categories and not where and not hidden:
            return None
        conditions = conditions_of(where_of(where))
        if categories:
            conditions += conditions_of({CATEGORIES: list(categories)})
        catalogue, columns = self.bundle.catalogue, FilterColumns(self.bundle.catalogue)
        allowed = np.ones(len(catalogue.ids), np.bool_)
        for condition in conditions_checked(conditions, known):
            _warn_vain(condition, columns)
            allowed &= columns.fulfilling(condition)
        for selector in hidden:
            allowed &= ~columns.selected(selector)
        allowed[[catalogue.row_of[item] for item in exclude if item in catalogue.row_of]] = False
        return allowed

    def _listed(self, user: str, listed: Recommended) -> pl.DataFrame:
        present = listed.items[0] != MISSING
        rows = listed.items[0][present]
        return pl.DataFrame(
            {
                "user_id": [user] * len(rows),
                "rank": np.arange(1, len(rows) + 1),
                "item_id": self._ids(rows),
                "title": self._titles(rows),
                "score": listed.scores[0][present],
                "retrieval_score": listed.retrieval[0][present],
            },
            schema=_LISTS.schema,
        )

    def _records(
        self, of: Data | Mapping[str, Sequence[str]], users: Sequence[str] | None
    ) -> Iterator[tuple[str, UserRecord]]:
        """The users and their records, as a service would keep them."""
        wanted = None if users is None else ids_of(users, "users")
        if isinstance(of, Data):
            yield from _records_of_data(of, wanted)
            return
        if not isinstance(of, Mapping):
            raise InvalidInput(
                f"users' histories are of type {type(of).__name__}: give what `shortlist.read` "
                'returns, or {"user": ["item", "item"]}'
            )
        moment = int(self.bundle.manifest["as_of"])
        histories = dict(zip(ids_of(list(of), "users"), of.values(), strict=True))
        for user in histories if wanted is None else wanted:
            if user not in histories:
                raise _unknown(user)
            items = tuple(ids_of(histories[user], f"the history of {user!r}"))
            n = len(items)
            # Bare items have an order and no times: all of them are as new as the data.
            yield user, UserRecord(items, (moment,) * n, (None,) * n, n)

    def _row(self, item_id: str) -> int:
        (known,) = ids_of([item_id], "item_id")
        row = self.bundle.catalogue.row_of.get(known)
        if row is None:
            raise UnknownItem(f"item {known!r} is not in the catalogue: see `Release.items`")
        return row

    def _ids(self, rows: Int32) -> list[str]:
        return [self.bundle.catalogue.ids[row] for row in rows.tolist()]

    def _titles(self, rows: Int32) -> list[str]:
        return [self.bundle.catalogue.titles[row] for row in rows.tolist()]


def _warn_vain(condition: Condition, columns: FilterColumns) -> None:
    """Warns of values that no item has, as a misspelt one would look like an empty result."""
    for value in sorted(condition.values or (), key=repr):
        one = replace(condition, values=frozenset([value]))
        if not columns.fulfilling(one).any():
            warnings.warn(f"no item has {condition.attribute} {shown(value)}", stacklevel=4)


def _warn_unknown(n_unknown: int) -> None:
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of the histories' items are not in the release, and passed over: "
            "see `Release.items`",
            stacklevel=3,
        )


def _features(values: Float32) -> Iterator[tuple[str, str, float]]:
    """What each feature adds to a score."""
    for name, value in zip((*FEATURES, "base"), values.tolist(), strict=True):
        if np.isfinite(value) and value != 0:
            yield "feature", name, value


def _records_of_data(data: Data, users: Sequence[str] | None) -> Iterator[tuple[str, UserRecord]]:
    dataset = data.loaded.dataset
    events, offsets = dataset.events, dataset.events.offsets()
    row_of = {user: row for row, user in enumerate(dataset.user_ids)}
    for user in dataset.user_ids if users is None else users:
        row = row_of.get(user)
        if row is None:
            raise _unknown(user)
        own = slice(row, row + 1)
        states = states_at(
            events, offsets[own], offsets[row + 1 : row + 2], dataset.attributes[own]
        )
        yield user, precompute.user_record(dataset, states, 0, row)


def _unknown(user: str) -> InvalidInput:
    return InvalidInput(f"user {user!r} has no history here: give one of the data's users")
