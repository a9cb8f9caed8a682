"""Tests config files: only named values change.

An error in a file is one sentence.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shortlist.batch import config
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.training.parameters import FitParams


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shortlist.toml"
    path.write_text(text)
    return path


def test_what_is_written_is_read_back(tmp_path) -> None:
    """The parameters that a file names change, the others stay; the comment is no parameter."""
    path = tmp_path / "deep" / "shortlist.toml"
    config.write(
        path, {"rounds": 12, "dropout": 0.25, "loss": "bpr"}, {"leaves": 31}, "found by\nsearching"
    )
    params = config.with_config(FitParams(), path)
    assert (
        params.towers.rounds,
        params.towers.dropout,
        params.towers.loss,
        params.ranker.leaves,
    ) == (12, 0.25, "bpr", 31)
    assert params.towers.hidden == FitParams().towers.hidden
    assert path.read_text().startswith("# found by\n# searching\n\n[towers]\n")


def test_a_share_may_be_whole(tmp_path) -> None:
    """`dropout = 0` is 0.0."""
    dropout = config.with_config(
        FitParams(), written(tmp_path, "[towers]\ndropout = 0\n")
    ).towers.dropout
    assert (dropout, type(dropout)) == (0.0, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[towers]\nround = 3\n", r"\[towers\] has 'round': must be one of dimension, hidden"),
        ("[tower]\nrounds = 3\n", "has 'tower': only the sections towers and ranker are known"),
        ("towers = 3\n", r"\[towers\] is 3: must be a section"),
        ("[towers]\nrounds = 3.5\n", "has rounds = 3.5: must be a whole number greater than 0"),
        ("[towers]\nrounds = true\n", "has rounds = True: must be a whole number"),
        ("[towers]\nrounds = 0\n", "has rounds = 0: must be a whole number greater than 0"),
        ("[towers]\ndropout = 1.5\n", "has dropout = 1.5: must be a number from 0 to 1"),
        ("[towers]\ndropout = nan\n", "has dropout = nan: must be a number from 0 to 1"),
        ("[towers]\nloss = 'hinge'\n", "has loss = 'hinge': must be sampled_softmax or bpr"),
        ("[ranker]\nl2 = -1\n", "has l2 = -1: must be a number of at least 0"),
        ("[ranker]\nl2 = 'x'\n", "has l2 = 'x': must be a number"),
        ("[ranker\n", "give a TOML file"),
    ],
)
def test_errors_name_value_and_rule(text, message, tmp_path) -> None:
    """Each message names the file, the value and the rule."""
    with pytest.raises(InvalidSettings, match=message):
        config.with_config(FitParams(), written(tmp_path, text))


def test_a_missing_file_is_told(tmp_path) -> None:
    """A path that is not there is named."""
    with pytest.raises(InvalidSettings, match="nowhere"):
        config.with_config(FitParams(), tmp_path / "nowhere.toml")
