"""Tests that every name of a report is explained, by a module that stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.batch.offline_evaluation import baselines
from shortlist.batch.progress import silent_reporter
from shortlist.recsys.evaluation import names
from shortlist.recsys.evaluation.report import METHOD_METRICS
from shortlist.recsys.models.interactions import Events, Repeats
from shortlist.recsys.models.pipeline import CANDIDATE_SOURCES
from shortlist.recsys.settings import PROTOCOLS

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "reports"


def events() -> Events:
    """Four users with five items each."""
    user, item = np.repeat(np.arange(4, dtype=np.int32), 5), np.arange(20, dtype=np.int32) % 7
    time, weight = np.arange(20, dtype=np.int64), np.full(20, np.nan, np.float32)
    return Events(user, item, time, weight, 4, 7)


def test_metrics_and_sources_are_explained() -> None:
    """Every metric, source of candidates and protocol of the code, and no other."""
    assert set(names.METRICS) == set(METHOD_METRICS)
    assert set(names.SOURCES) == {*CANDIDATE_SOURCES, "all"}
    assert set(names.PROTOCOLS) == set(PROTOCOLS)


def test_counting_baselines_are_explained() -> None:
    """Every baseline that the evaluation fits where repeats may be offered."""
    assert baselines(events(), silent_reporter(), Repeats.ALLOW).keys() <= names.METHODS.keys()


@pytest.mark.parametrize("path", sorted(REPORTS.glob("ml-100k-*.json")), ids=lambda path: path.stem)
def test_published_methods_are_explained(path: Path) -> None:
    """Every method of the reports in the documents, fresh users included."""
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["methods"].keys() <= names.METHODS.keys()
    for row in report.get("fresh_users", []):
        figures = {name for name, figure in row.items() if isinstance(figure, dict)}
        assert figures <= names.METHODS.keys()


def test_sentences_end_with_a_stop() -> None:
    """Each is one sentence, of at most thirty words, that stands by itself in a table."""
    sentences = [*names.METHODS.values(), *names.SOURCES.values()]
    sentences += [metric.sentence for metric in names.METRICS.values()]
    for sentence in sentences:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert len(sentence.split()) <= 30


def test_names_import_nothing_heavy() -> None:
    """A fresh process that reads the names has loaded none of the scientific libraries."""
    code = "import sys, shortlist.recsys.evaluation.names; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "scipy", "jinja2", "matplotlib"} & set(loaded.stdout.split())
