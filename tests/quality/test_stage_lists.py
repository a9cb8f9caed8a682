"""Tests that both stages list from one retrieval what each lists alone."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.stage_lists import stage_lists
from shortlist.recsys.evaluation.ranking_metrics import DEPTH
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import MISSING, Repeats
from shortlist.recsys.models.pipeline import CANDIDATE_SOURCES, proposals, recommender
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.training.fit import assemble, without_ranker
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.split import cuts


@pytest.fixture(scope="module", params=[Repeats.NEVER, Repeats.ALLOW])
def world(published, request):
    """A ranked model, and a hold-out with or without what a user had."""
    fold = published.work / "fold-1"
    ranker = Ranker((fold / "ranker.txt").read_text())
    model = assemble(
        bundle.load_towers(fold),
        bundle.load_table(fold),
        FitParams(n_candidates=60, threads=1),
        ranker,
    )
    cut = cuts(published.dataset.events, "last-10pct")
    return model, truth_after(published.dataset, cut, request.param)


def test_lists_are_those_of_each_method(world) -> None:
    """Bit for bit, also where they are asked for in parts; and progress ends at all users."""
    model, truth = world
    notes: list[tuple[float, str]] = []
    made = stage_lists(model, truth, lambda share, note: notes.append((share, note)))
    assert notes[-1] == (1.0, f"{len(truth)} of {len(truth)} users")
    for lists, own in ((made.retriever, without_ranker(model)), (made.two_stage, model)):
        method, expected = lists.as_method(), recommender(own)
        for part in (truth.slice(0, 70), truth.slice(70, len(truth))):
            for found, wanted in zip(
                method(part.states, DEPTH), expected(part.states, DEPTH), strict=True
            ):
                np.testing.assert_array_equal(found, wanted)


def test_several_processes_list_alike(world) -> None:
    """Bit for bit, in the users' order; and progress ends at all users."""
    model, truth = world
    notes: list[tuple[float, str]] = []
    here = stage_lists(model, truth, lambda _share, _note: None)
    made = stage_lists(model, truth, lambda share, note: notes.append((share, note)), 2)
    for found, wanted in ((made.retriever, here.retriever), (made.two_stage, here.two_stage)):
        np.testing.assert_array_equal(found.items, wanted.items)
        np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(made.found, here.found)
    assert made.has_history == here.has_history
    assert notes[-1] == (1.0, f"{len(truth)} of {len(truth)} users")
    assert [share for share, _ in notes] == sorted(share for share, _ in notes)


def test_a_full_disk_costs_no_report(world, monkeypatch) -> None:
    """Processes read the model from files; where these find no room, this one lists alone."""

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model, truth = world
    monkeypatch.setattr("shortlist.batch.by_model.save_model", full)
    notes: list[str] = []
    made = stage_lists(model, truth.slice(0, 100), lambda _share, note: notes.append(note), 2)
    here = stage_lists(model, truth.slice(0, 100), lambda _share, _note: None)
    assert "in one process" in notes[-1]
    assert "No space left on device" in notes[-1]
    np.testing.assert_array_equal(made.two_stage.items, here.two_stage.items)


def test_a_model_without_ranker(world) -> None:
    """Several processes list by the retriever alone where validation showed no gain."""
    model, truth = world
    made = stage_lists(without_ranker(model), truth.slice(0, 100), lambda _share, _note: None, 2)
    np.testing.assert_array_equal(made.two_stage.items, made.retriever.items)


def test_found_items_have_their_source(world) -> None:
    """The held-out items among what each source proposed, user by user."""
    model, truth = world
    made = stage_lists(model, truth, lambda _share, _note: None)
    by_source = made.candidates_by_source(truth)
    has_history = truth.states.repeats is Repeats.ALLOW
    assert ("history" in by_source) == has_history
    n_found = 0
    vectors = user_vectors(model.towers, truth.states)
    for user in range(len(truth)):
        rows, origin = proposals(model, truth.states, user, vectors[user], None)
        held_out = truth.items[truth.offsets[user] : truth.offsets[user + 1]]
        for source, name in enumerate(CANDIDATE_SOURCES):
            expected = set(rows[origin == source].tolist()) & set(held_out.tolist())
            found = set(by_source[name][user].tolist()) - {MISSING} if name in by_source else set()
            assert found == expected
            n_found += len(found)
    assert n_found == (made.found != MISSING).sum() > 100


def test_nobody_has_no_lists(world) -> None:
    """Empty arrays of the right shape."""
    model, truth = world
    nobody = stage_lists(model, truth.slice(0, 0), lambda _share, _note: None)
    assert (nobody.two_stage.items.shape, nobody.found.shape) == ((0, DEPTH), (0,))
    nothing = replace(truth, offsets=np.zeros_like(truth.offsets), items=truth.items[:0])
    assert len(stage_lists(model, nothing, lambda _share, _note: None).found) == 0
