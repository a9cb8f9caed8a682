"""Searches the parameters that matter, by Optuna, on a validation window inside training: the reported hold-out is not read.

First the towers, by the retriever's NDCG@10 alone; then the ranker, on the best towers. The first
trial of each is what the settings say, so the outcome is never worse on that window. Every trial is
in a journal: a later call with the same data goes on where the last one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.evaluation.ranking_metrics import hit_matrix, mean_over_users, ndcg
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import Int64, Recommend
from shortlist.recsys.models.pipeline import Model, recommender
from shortlist.recsys.models.ranker import ranker_from
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.fit import (
    FitParams,
    assemble,
    groups_inside,
    item_table_of,
    label_cuts,
    past_before_labels,
    ranker_of,
    towers_of,
    validation_inside,
)
from shortlist.recsys.training.split import before, cuts

VALIDATION_USERS = 2000
"""Users whose validation decides; more would cost more than they tell."""

TOWERS_SHARE = 0.65
"""Of the time, what the towers get."""

DEPTH = 10

Objective = Callable[[Any], float]
"""An Optuna trial -> NDCG@10."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """params: the best found; scores: NDCG@10 of what the search began with and of the best, by section; trials: how many."""

    params: FitParams
    scores: dict[str, tuple[float, float]]
    trials: dict[str, int]


def tune(
    dataset: Dataset,
    protocol: HoldoutProtocol,
    params: FitParams,
    minutes: float,
    work: Path,
    reporter: ProgressReporter,
) -> Tuned:
    """The best parameters that `minutes` of search find; the trials are kept in `work`/tune.journal."""
    past = before(dataset.events, cuts(dataset.events, protocol))
    known = replace(dataset, events=past)
    cut = label_cuts(past, protocol)
    truth = _validation(known, cut, np.random.default_rng(params.seed))
    inner = before(past, cut)
    study = _Studies(work, f"{dataset.fingerprint[:16]}-{protocol}", reporter)
    with reporter.stage("features"):
        table = item_table_of(known, inner)

    def towers(trial: Any) -> float:  # noqa: ANN401 - Optuna's own
        chosen = replace(params, towers=replace(params.towers, **_space(trial, _TOWERS)))
        return _score(
            recommender(assemble(towers_of(known, inner, chosen, _quiet).towers, table, chosen)),
            truth,
            past.n_items,
        )

    defaults = _chosen(asdict(params.towers), _TOWERS)
    found, scores, n_towers = study.search("towers", towers, defaults, minutes * TOWERS_SHARE)
    best = replace(params, towers=replace(params.towers, **found))
    with reporter.stage("the best towers"):
        earlier = past_before_labels(inner, protocol, best)
        before_labels = towers_of(known, earlier, best, _quiet)
        behind = assemble(before_labels.towers, item_table_of(known, earlier), best)
        model = assemble(
            towers_of(known, inner, best, _quiet, before_labels.epochs).towers, table, best
        )
        groups = groups_inside(behind, known, inner, protocol, best)
        judged = validation_inside(behind, known, inner, protocol, best)

    def ranker(trial: Any) -> float:  # noqa: ANN401 - likewise
        chosen = replace(best.ranker, **_space(trial, _RANKER))
        text = ranker_of(groups, judged, replace(best, ranker=chosen)).text
        return _score(recommender(_with(model, text)), truth, past.n_items)

    changes, ranked, n_ranker = study.search(
        "ranker",
        ranker,
        _chosen(asdict(params.ranker), _RANKER),
        minutes * (1 - TOWERS_SHARE),
        key=repr(best.towers),
    )
    return Tuned(
        replace(best, ranker=replace(best.ranker, **changes)),
        {"towers": scores, "ranker": ranked},
        {"towers": n_towers, "ranker": n_ranker},
    )


class _Studies:
    """The searches of one data set, kept in a journal."""

    def __init__(self, work: Path, name: str, reporter: ProgressReporter) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        work.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(work / "tune.journal"))
        self._storage = optuna.storages.JournalStorage(backend)
        self._name, self._narrator = name, reporter

    def search(
        self,
        what: str,
        objective: Objective,
        defaults: dict[str, Any],
        minutes: float,
        key: str = "",
    ) -> tuple[dict[str, Any], tuple[float, float], int]:
        """The best parameters, the NDCG@10 of `defaults` and of the best, and the number of finished trials."""
        import optuna

        name = f"{self._name}-{what}-{defaults!r}-{key}"
        study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(),
        )
        done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
        if not any(t.params == defaults for t in done):
            study.enqueue_trial(defaults, skip_if_exists=False)
        started = time.monotonic()
        with self._narrator.stage(f"tune the {what}") as progress:

            def told(study: Any, trial: Any) -> None:  # noqa: ANN401 - Optuna's own
                share = min(1.0, (time.monotonic() - started) / max(1e-9, minutes * 60))
                progress(
                    share,
                    f"trial {trial.number + 1}: {trial.value:.4f}, best {study.best_value:.4f}",
                )

            study.optimize(objective, timeout=minutes * 60, callbacks=[told])
        finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
        start = next(t.value for t in finished if t.value is not None and t.params == defaults)
        return study.best_params, (start, study.best_value), len(finished)


_TOWERS: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (1e-3, 1.5e-2, True),
    "dropout": (0.0, 0.6, False),
    "weight_decay": (1e-3, 1.0, True),
    "history_dropout": (0.0, 0.5, False),
    "content_only": (0.0, 0.5, False),
}
_RANKER: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (0.01, 0.2, True),
    "leaves": (4, 63, True),
    "min_rows_per_leaf": (10, 1000, True),
    "feature_share": (0.3, 1.0, False),
    "l2": (0.1, 100.0, True),
    "truncation": (10, 60, True),
}
"""What is searched: from, to, and whether on a logarithmic scale; whole numbers where both ends are."""


def _space(trial: Any, space: dict[str, tuple[float, float, bool]]) -> dict[str, Any]:  # noqa: ANN401 - Optuna's own
    chosen: dict[str, Any] = {}
    for name, (low, high, log) in space.items():
        suggest = (
            trial.suggest_int
            if isinstance(low, int) and isinstance(high, int)
            else trial.suggest_float
        )
        chosen[name] = suggest(name, low, high, log=log)
    return chosen


def _chosen(params: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in space}


def _score(method: Recommend, truth: Truth, n_items: int) -> float:
    hits = hit_matrix(method(truth.states, DEPTH)[0], truth, n_items)
    return float(mean_over_users(ndcg(hits, truth.counts, DEPTH)[truth.counts > 0][:, None])[0])


def _with(model: Model, text: str) -> Model:
    return replace(model, ranker=ranker_from(text))


def _validation(known: Dataset, cut: Int64, rng: np.random.Generator) -> Truth:
    """What at most VALIDATION_USERS users, drawn at random, did after their cut."""
    ends = known.events.offsets()[1:]
    able = np.flatnonzero(cut < ends)
    drawn = rng.permutation(able)[:VALIDATION_USERS]
    return truth_after(known, np.where(np.isin(np.arange(len(ends)), drawn), cut, ends))


def _quiet(share: float, note: str) -> None:
    """Trials tell of themselves when they are done."""
