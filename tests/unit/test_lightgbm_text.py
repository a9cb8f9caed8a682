"""Tests that only model texts of our training are read.

Any other is refused before LightGBM sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import lightgbm
import numpy as np
import pytest

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.lightgbm_text import checked

FEATURES = 5


def trained(**options: object) -> lightgbm.Booster:
    """A small ranking model."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, FEATURES)).astype(np.float32)
    rows[:, 3] = 1.0  # a feature that no tree can split
    data = lightgbm.Dataset(rows, (rows[:, 0] + rows[:, 1] > 0.5).astype(int), group=[20] * 30)
    options = {
        "objective": "lambdarank",
        "verbosity": -1,
        "num_threads": 1,
        "num_leaves": 7,
        **options,
    }
    return lightgbm.train(options, data, 12)


@pytest.fixture(scope="module")
def text() -> str:
    """Its text."""
    return str(trained().model_to_string())


@pytest.mark.parametrize(
    "options",
    [{}, {"num_leaves": 2}, {"min_data_in_leaf": 5000}, {"num_leaves": 63, "min_data_in_leaf": 1}],
)
def test_bits(options: dict[str, object]) -> None:
    """The checked text scores and explains as the whole text, bit for bit; without splits too."""
    booster = trained(**options)
    plain = lightgbm.Booster(model_str=checked(booster.model_to_string(), FEATURES).text)
    rows = np.random.default_rng(1).normal(size=(200, FEATURES)).astype(np.float32)
    for kind in ({"raw_score": True}, {"pred_contrib": True}):
        np.testing.assert_array_equal(plain.predict(rows, **kind), booster.predict(rows, **kind))


def in_tree(text: str, line: str, replacement: str) -> str:
    """The text with a line of its second tree replaced, and `tree_sizes` that agree."""
    at = text.index("Tree=1\n")
    match = re.compile(line, re.MULTILINE).search(text, at)
    assert match is not None
    grown = len(replacement) - len(match[0])
    sizes = [int(size) for size in re.search(r"tree_sizes=(.*)", text)[1].split()]  # type: ignore[index]
    sizes[1] += grown
    out = text[: match.start()] + replacement + text[match.end() :]
    return re.sub(r"tree_sizes=.*", "tree_sizes=" + " ".join(map(str, sizes)), out)


TREES: dict[str, tuple[str, str]] = {
    "more leaves": (r"num_leaves=7", "num_leaves=8"),
    "many leaves": (r"num_leaves=7", "num_leaves=2000000000"),
    "no leaf": (r"num_leaves=7", "num_leaves=0"),
    "negative leaves": (r"num_leaves=7", "num_leaves=-7"),
    "categorical": (r"num_cat=0", "num_cat=1"),
    "linear": (r"is_linear=0", "is_linear=1"),
    "feature beyond": (r"split_feature=\d+", f"split_feature={FEATURES}"),
    "negative feature": (r"split_feature=\d+", "split_feature=-1"),
    "huge feature": (r"split_feature=\d+", "split_feature=99999999999999999999"),
    "a cycle": (r"left_child=\d+", "left_child=0"),
    "child beyond": (r"left_child=\d+", "left_child=6"),
    "leaf beyond": (r"left_child=.*", "left_child=-8 -8 -8 -8 -8 -8"),
    "no numbers": (r"left_child=.*", "left_child=a b c d e f"),
    "too few children": (r"left_child=.*", "left_child=1"),
    "infinite threshold": (r"threshold=[^ ]+", "threshold=inf"),
    "threshold that is none": (r"threshold=[^ ]+", "threshold=nan"),
    "threshold out of range": (r"threshold=[^ ]+", "threshold=1e999"),
    "leaf that is none": (r"leaf_value=[^ ]+", "leaf_value=nan"),
    "large leaf": (r"leaf_value=[^ ]+", "leaf_value=1e300"),
    "long number": (r"leaf_value=[^ ]+", "leaf_value=0." + "1" * 100_000),
    "two points": (r"leaf_value=[^ ]+", "leaf_value=1.2.3"),
    "two blanks": (r"leaf_value=[^ ]+ ", "leaf_value=  "),
    "decision": (r"decision_type=\d+", "decision_type=1"),
    "large decision": (r"decision_type=\d+", "decision_type=300"),
    "negative count": (r"internal_count=\d+", "internal_count=-1"),
    "large count": (r"leaf_count=\d+", "leaf_count=4294967296"),
    "missing field": (r"\nshrinkage=.*\n", "\n"),
    "doubled field": (r"num_cat=0", "num_cat=0\nnum_cat=0"),
    "unknown field": (r"num_cat=0", "num_cat=0\ncat_boundaries=0"),
    "another number": (r"Tree=1", "Tree=2"),
    "control character": (r"num_cat=0", "num_cat=0\x00"),
    "other digits": (r"num_leaves=7", "num_leaves=\uff17"),
}


@pytest.mark.parametrize("kind", TREES)
def test_broken_tree(text: str, kind: str) -> None:
    """Whatever LightGBM would take for an address or an amount."""
    with pytest.raises(
        CorruptArtefact, match=r"the ranker's text has .*: publish the release again"
    ):
        checked(in_tree(text, *TREES[kind]), FEATURES)


def test_a_leaf_reached_twice(text: str) -> None:
    """Each node has one parent."""
    children = [
        int(child) for child in re.findall(r"^left_child=(.*)", text, re.MULTILINE)[1].split()
    ]
    leaves = [at for at, child in enumerate(children) if child < 0]
    children[leaves[0]] = children[leaves[-1]]
    with pytest.raises(CorruptArtefact, match="child of two nodes"):
        checked(
            in_tree(text, r"left_child=.*", "left_child=" + " ".join(map(str, children))), FEATURES
        )


TEXTS: dict[str, Callable[[str], str]] = {
    "nothing": lambda _: "",
    "no tree": lambda text: text.partition("\nTree=0")[0],
    "another version": lambda text: text.replace("version=v4", "version=v9"),
    "two classes": lambda text: text.replace("num_class=1", "num_class=2"),
    "many trees an iteration": lambda text: text.replace(
        "num_tree_per_iteration=1", "num_tree_per_iteration=1000000000"
    ),
    "more features": lambda text: text.replace("max_feature_idx=4", "max_feature_idx=2147483647"),
    "fewer names": lambda text: text.replace("Column_0 ", ""),
    "fewer ranges": lambda text: re.sub(r"feature_infos=\S+ ", "feature_infos=", text),
    "another objective": lambda text: text.replace(
        "objective=lambdarank", "objective=multiclass num_class:9"
    ),
    "no sizes": lambda text: re.sub(r"tree_sizes=.*\n", "", text),
    "other sizes": lambda text: re.sub(r"tree_sizes=\d+", "tree_sizes=1", text),
    "sizes beyond": lambda text: re.sub(r"tree_sizes=\d+", "tree_sizes=2000000000", text),
    "negative sizes": lambda text: re.sub(r"tree_sizes=\d+", "tree_sizes=-100", text),
    "fewer sizes": lambda text: re.sub(r"(tree_sizes=.*) \d+\n", r"\1\n", text),
    "more sizes": lambda text: re.sub(r"(tree_sizes=.*)\n", r"\1 500\n", text),
    "cut short": lambda text: text[: text.index("Tree=5")],
}


@pytest.mark.parametrize("kind", TEXTS)
def test_broken_text(text: str, kind: str) -> None:
    """A header that does not fit, or trees that do not fit it."""
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        checked(TEXTS[kind](text), FEATURES)


def test_text_after_trees_is_dropped(text: str) -> None:
    """Parameters could name files and machines."""
    plain = checked(
        text.replace("[seed: 0]", "[forcedsplits_filename: /etc/passwd]"), FEATURES
    ).text
    assert plain.endswith("end of trees\n")
    assert "filename" not in plain
