"""Searches parameters by Optuna on a window inside training.

The reported hold-out is not read. First the towers, by the retriever's NDCG@10 alone; then the
ranker, on the best towers. The first trial of each is what the settings say, so the outcome is
never worse on that window. Every trial is in a journal: a later call with the same data goes on
where the last one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.evaluation.ranking_metrics import hit_matrix, mean_over_users, ndcg
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import ItemTable
from shortlist.recsys.models.interactions import Events, Int64, Repeats
from shortlist.recsys.models.pipeline import Model, recommender
from shortlist.recsys.models.ranker import ranker_from
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.fit import (
    assemble,
    item_table_of,
    label_cuts,
    past_before_labels,
    ranker_training_groups,
    ranker_validation_groups,
    train_towers,
    validated_ranker,
)
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.split import before, cuts

VALIDATION_USERS = 2000
"""Users whose validation decides; more would cost time and change no decision."""

TOWERS_SHARE = 0.65
"""The towers' share of the time: a trial of theirs takes longer than one of the ranker."""

DEPTH = 10
"""NDCG@10 is the headline metric of the report."""

Objective = Callable[[Any], float]
"""An Optuna trial -> NDCG@10."""

Space = Mapping[str, tuple[float, float, bool]]
"""By parameter: from, to, and whether on a logarithmic scale; whole numbers if both ends are."""

_TOWERS: Space = {
    "learning_rate": (1e-3, 1.5e-2, True),
    "dropout": (0.0, 0.6, False),
    "weight_decay": (1e-3, 1.0, True),
    "history_dropout": (0.0, 0.5, False),
    "content_only": (0.0, 0.5, False),
}
_RANKER: Space = {
    "learning_rate": (0.01, 0.2, True),
    "leaves": (4, 63, True),
    "min_rows_per_leaf": (10, 1000, True),
    "feature_share": (0.3, 1.0, False),
    "l2": (0.1, 100.0, True),
    "truncation": (10, 60, True),
}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search came to.

    params: the best ones; scores: NDCG@10 of the settings' own and of the best, by section; trials:
    how many finished, by section.
    """

    params: FitParams
    scores: dict[str, tuple[float, float]]
    trials: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One study: its best parameters, NDCG@10 of the defaults and of these, finished trials."""

    params: dict[str, Any]
    scores: tuple[float, float]
    trials: int


@dataclass(frozen=True, slots=True)
class _Window:
    """The validation window: `past` lies before it, and `truth` is what users did in it."""

    known: Dataset
    past: Events
    table: ItemTable
    truth: Truth

    def score(self, model: Model) -> float:
        """The model's NDCG@10."""
        items = recommender(model)(self.truth.states, DEPTH)[0]
        hits = hit_matrix(items, self.truth, self.past.n_items)
        values = ndcg(hits, self.truth.counts, DEPTH)[self.truth.counts > 0]
        return float(mean_over_users(values[:, None])[0])


def tune(
    dataset: Dataset,
    protocol: HoldoutProtocol,
    params: FitParams,
    minutes: float,
    work: Path,
    reporter: ProgressReporter,
) -> Tuned:
    """Searches for `minutes`; the trials are kept in `work`/tune.journal."""
    studies = _Studies(work, f"{dataset.fingerprint[:16]}-{protocol}", reporter)
    with reporter.stage("features"):
        window = _window(dataset, protocol, params)
    towers = studies.search(
        "towers",
        _towers_objective(window, params),
        _searched(asdict(params.towers), _TOWERS),
        minutes * TOWERS_SHARE,
    )
    best = replace(params, towers=replace(params.towers, **towers.params))
    with reporter.stage("the best towers"):
        objective = _ranker_objective(window, protocol, best)
    ranker = studies.search(
        "ranker",
        objective,
        _searched(asdict(params.ranker), _RANKER),
        minutes * (1 - TOWERS_SHARE),
        key=repr(best.towers),  # a ranker's score is of these towers and no others
    )
    return Tuned(
        replace(best, ranker=replace(best.ranker, **ranker.params)),
        {"towers": towers.scores, "ranker": ranker.scores},
        {"towers": towers.trials, "ranker": ranker.trials},
    )


def _window(dataset: Dataset, protocol: HoldoutProtocol, params: FitParams) -> _Window:
    training = before(dataset.events, cuts(dataset.events, protocol))
    known = replace(dataset, events=training)
    cut = label_cuts(training, protocol)
    past = before(training, cut)
    truth = _validation(known, cut, np.random.default_rng(params.seed), params.repeats)
    return _Window(known, past, item_table_of(known, past), truth)


def _towers_objective(window: _Window, params: FitParams) -> Objective:
    def objective(trial: Any) -> float:  # noqa: ANN401 - Optuna's own
        chosen = replace(params, towers=replace(params.towers, **_suggested(trial, _TOWERS)))
        towers = train_towers(window.known, window.past, chosen, _silent).towers
        return window.score(assemble(towers, window.table, chosen))

    return objective


def _ranker_objective(window: _Window, protocol: HoldoutProtocol, best: FitParams) -> Objective:
    """Trains the towers; a trial trains a ranker."""
    known, past = window.known, window.past
    before_labels = past_before_labels(past, protocol, best)
    early = train_towers(known, before_labels, best, _silent)
    early_model = assemble(early.towers, item_table_of(known, before_labels), best)
    groups = ranker_training_groups(early_model, known, past, protocol, best)
    validation = ranker_validation_groups(early_model, known, past, protocol, best)
    towers = train_towers(known, past, best, _silent, early.epochs).towers
    model = assemble(towers, window.table, best)

    def objective(trial: Any) -> float:  # noqa: ANN401 - Optuna's own
        chosen = replace(best, ranker=replace(best.ranker, **_suggested(trial, _RANKER)))
        text = validated_ranker(groups, validation, chosen).text
        return window.score(replace(model, ranker=ranker_from(text)))

    return objective


class _Studies:
    """The searches of one data set, kept in a journal."""

    def __init__(self, work: Path, name: str, reporter: ProgressReporter) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        # Its line a trial would break the progress bar, which shows the same; and it would log a
        # traceback at Ctrl-C.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        work.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(work / "tune.journal"))
        self._storage = optuna.storages.JournalStorage(backend)
        self._name, self._reporter = name, reporter

    def search(
        self,
        section: str,
        objective: Objective,
        defaults: dict[str, Any],
        minutes: float,
        key: str = "",
    ) -> _Outcome:
        """Searches for `minutes`, from `defaults` on.

        key: what else the scores depend on; a search with another key starts from nothing.
        """
        import optuna

        study = optuna.create_study(
            storage=self._storage,
            study_name=f"{self._name}-{section}-{defaults!r}-{key}",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(),
        )
        if not any(trial.params == defaults for trial in _finished(study)):
            # A trial that was queued by a killed search is in the journal, but never finishes.
            study.enqueue_trial(defaults, skip_if_exists=False)
        started = time.monotonic()
        with self._reporter.stage(f"tune the {section}") as progress:

            def report(study: Any, trial: Any) -> None:  # noqa: ANN401 - Optuna's own
                share = (time.monotonic() - started) / max(1e-9, minutes * 60)
                note = f"trial {trial.number + 1}: {trial.value:.4f}, best {study.best_value:.4f}"
                progress(min(1.0, share), note)

            study.optimize(objective, timeout=minutes * 60, callbacks=[report])
        finished = _finished(study)
        default_score = next(trial.value for trial in finished if trial.params == defaults)
        return _Outcome(study.best_params, (default_score, study.best_value), len(finished))


def _finished(study: Any) -> list[Any]:  # noqa: ANN401 - Optuna's own
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _suggested(trial: Any, space: Space) -> dict[str, Any]:  # noqa: ANN401 - Optuna's own
    params: dict[str, Any] = {}
    for name, (low, high, log) in space.items():
        whole = isinstance(low, int) and isinstance(high, int)
        suggest = trial.suggest_int if whole else trial.suggest_float
        params[name] = suggest(name, low, high, log=log)
    return params


def _searched(params: dict[str, Any], space: Space) -> dict[str, Any]:
    return {name: params[name] for name in space}


def _validation(known: Dataset, cut: Int64, rng: np.random.Generator, repeats: Repeats) -> Truth:
    """What at most VALIDATION_USERS users, drawn at random, did after their cut."""
    ends = known.events.offsets()[1:]
    with_events = np.flatnonzero(cut < ends)
    drawn = rng.permutation(with_events)[:VALIDATION_USERS]
    is_drawn = np.isin(np.arange(len(ends)), drawn)
    return truth_after(known, np.where(is_drawn, cut, ends), repeats)


def _silent(share: float, note: str) -> None:
    """Shows nothing.

    A trial is reported when it is done.
    """
