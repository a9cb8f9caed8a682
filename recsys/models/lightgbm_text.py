"""Checks a LightGBM model text before the library reads it.

LightGBM believes a model's text: counts become allocations, child indexes become addresses, and an
exception inside its parallel loops ends the process. So a text must be what training writes here:
one class, numerical splits, finite numbers, children that come after their parents and are each
reached once. The text that LightGBM reads is written again from the checked values, number by
number in their own spelling, so that scores keep their bits. Comments, gains and parameters are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.forest import Tree

MAX_TREES = 10_000
"""The most that `LGBM_N_ESTIMATORS` allows."""

MAX_LEAVES = 1024
"""Leaves of a tree: far more than any training here grows."""

MAX_LEAF_VALUE = 1e6
"""With 10,000 trees, scores stay far from the end of float32, in which lists are kept."""

OBJECTIVES = ("lambdarank", "rank_xendcg")
DECISIONS = (0, 2, 4, 6, 8, 10)
"""Numerical splits: bit 1 sends missing values to the left, bits 2 and 3 say which are missing."""

_MISSING_BITS = 0b1100

_INTEGER_CHARACTERS = b"0123456789- "
_NUMBER_CHARACTERS = b"0123456789-+.e "
_NUMBER_LENGTH = 40
"""Characters of one number; LightGBM writes at most 25."""

# The fields of the header that have one value, and those of a tree.
_FIXED = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1", "label_index": "0"}
_NODE_FIELDS = (
    "split_feature",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "internal_count",
)
_LEAF_FIELDS = ("leaf_value", "leaf_count")
_SCALAR_FIELDS = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_UNUSED_FIELDS = ("split_gain", "leaf_weight", "internal_value", "internal_weight")
_FIELDS = frozenset((*_NODE_FIELDS, *_LEAF_FIELDS, *_SCALAR_FIELDS, *_UNUSED_FIELDS))
_KEPT_FIELDS = (
    "split_feature",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
    "leaf_count",
    "internal_count",
)


class CheckedModel(NamedTuple):
    """A model's text without what scoring does not need, and what it says.

    ignores_missing: whether a value that is missing counts as 0 at every split.
    """

    text: str
    trees: tuple[Tree, ...]
    ignores_missing: bool


def checked(text: str, n_features: int) -> CheckedModel:
    """Checks a model's text.

    Raises:
        CorruptArtefact: the text is not one that training writes for `n_features` features.
    """
    if not text.isascii() or not text.replace("\n", "").isprintable():
        raise _corrupt("has characters other than printable ASCII")
    header, first_tree, _ = text.partition("\nTree=0\n")
    if not first_tree:
        raise _corrupt("has no tree")
    fields = _header(header, n_features)
    blocks = list(_blocks(text[len(header) + 1 :], fields["tree_sizes"]))
    trees, ignores_missing = _checked_trees(blocks, n_features)
    return CheckedModel(_written(fields, blocks), trees, ignores_missing)


def _header(text: str, n_features: int) -> dict[str, str]:
    title, _, rest = text.partition("\n")
    pairs = [line.partition("=") for line in rest.split("\n") if line]
    fields = {name: value for name, _, value in pairs}
    expected = {**_FIXED, "max_feature_idx": str(n_features - 1)}
    other = {name: fields.get(name) for name in expected if fields.get(name) != expected[name]}
    if title != "tree" or len(pairs) != len(fields) or other:
        rule = {name: expected[name] for name in other}
        raise _corrupt(f"has the header values {other}, not {rule}")
    objective = fields.get("objective")
    if objective not in OBJECTIVES:
        raise _corrupt(f"has objective {objective!r}, not one of {', '.join(OBJECTIVES)}")
    for name in ("feature_names", "feature_infos"):
        count = len(fields.get(name, "").split())
        if count != n_features:
            raise _corrupt(f"has {count} {name}, not {n_features}")
    if "tree_sizes" not in fields:
        raise _corrupt("has no tree_sizes")
    return fields


def _blocks(body: str, sizes: str) -> Iterable[dict[str, str]]:
    """The fields of each tree, cut where `tree_sizes` says that it ends."""
    lengths = _integers("tree_sizes", [sizes])
    if not 1 <= len(lengths) <= MAX_TREES:
        raise _corrupt(f"has {len(lengths)} trees, from 1 to {MAX_TREES} are read")
    if lengths.min() < 1 or lengths.sum() > len(body):
        raise _corrupt("has tree_sizes that do not fit its trees")
    start = 0
    for number, length in enumerate(lengths.tolist()):
        lines = body[start : start + length].rstrip("\n").split("\n")
        start += length
        pairs = [line.partition("=") for line in lines[1:]]
        fields = {name: value for name, _, value in pairs}
        is_tree = lines[0] == f"Tree={number}"
        if not is_tree or fields.keys() != _FIELDS or len(pairs) != len(fields):
            raise _corrupt(
                f"has another tree {number} than its tree_sizes say, or other fields in it"
            )
        yield fields
    if body[start:].partition("\n")[0] != "end of trees":
        raise _corrupt("has more trees than its tree_sizes say")


def _checked_trees(
    trees: Sequence[dict[str, str]], n_features: int
) -> tuple[tuple[Tree, ...], bool]:
    """Checks every rule of a tree, over all trees at once.

    Gives the trees, and whether none of their splits sends missing values a way of their own.
    """
    column = {name: [tree[name] for tree in trees] for name in _FIELDS}
    leaves = _integers("num_leaves", column["num_leaves"])
    if len(leaves) != len(trees) or leaves.min() < 1 or leaves.max() > MAX_LEAVES:
        raise _corrupt(f"has a tree without 1 to {MAX_LEAVES} leaves")
    for name in ("num_cat", "is_linear"):
        if set(column[name]) != {"0"}:
            raise _corrupt(
                f"has {name} other than 0: categorical splits and linear leaves are not read"
            )
    nodes = leaves - 1
    integers = {
        name: _integers(name, column[name], nodes) for name in _NODE_FIELDS if name != "threshold"
    }
    _within("split_feature", integers["split_feature"], 0, n_features - 1)
    _within("internal_count", integers["internal_count"], 0, 2**31 - 1)
    leaf_counts = _integers("leaf_count", column["leaf_count"], leaves)
    _within("leaf_count", leaf_counts, 0, 2**31 - 1)
    if not np.isin(integers["decision_type"], DECISIONS).all():
        raise _corrupt(f"has a decision_type other than {DECISIONS}")
    thresholds = _numbers("threshold", column["threshold"], nodes)
    _within("threshold", thresholds, -1e308, 1e308)
    leaf_values = _numbers("leaf_value", column["leaf_value"], leaves)
    _within("leaf_value", leaf_values, -MAX_LEAF_VALUE, MAX_LEAF_VALUE)
    shrinkages = _numbers("shrinkage", column["shrinkage"], np.ones_like(leaves))
    _within("shrinkage", shrinkages, 0, MAX_LEAF_VALUE)
    _check_children(integers["left_child"], integers["right_child"], nodes)
    ignores_missing = not (integers["decision_type"] & _MISSING_BITS).any()
    of_nodes = {
        "feature": integers["split_feature"],
        "threshold": thresholds,
        "left": integers["left_child"],
        "right": integers["right_child"],
        "node_count": integers["internal_count"],
    }
    of_leaves = {"value": leaf_values, "leaf_count": leaf_counts}
    fields = {
        name: np.split(column, np.cumsum(counts)[:-1])
        for columns, counts in ((of_nodes, nodes), (of_leaves, leaves))
        for name, column in columns.items()
    }
    by_tree = zip(*(fields[name] for name in Tree._fields), strict=True)
    return tuple(Tree(*each) for each in by_tree), ignores_missing


def _check_children(
    left: NDArray[np.int64], right: NDArray[np.int64], nodes: NDArray[np.int64]
) -> None:
    """Checks that the children of all trees' nodes make trees.

    Each child is a later node or a leaf (~leaf) of its tree, and all but the roots are the child of
    one node. left, right: int64[all nodes]; nodes: int64[trees].
    """
    start = np.repeat(np.cumsum(nodes) - nodes, nodes)
    place, n_nodes = np.arange(len(start)) - start, np.repeat(nodes, nodes)
    first_leaf = np.repeat(np.cumsum(nodes + 1) - (nodes + 1), nodes)
    inner_children, leaves = [], []
    for child in (left, right):
        is_inner = child >= 0
        not_later = is_inner & ((child <= place) | (child >= n_nodes))
        no_leaf = ~is_inner & (~child > n_nodes)
        if not_later.any() or no_leaf.any():
            raise _corrupt("has a child that is no later node and no leaf of its tree")
        inner_children.append((start + child)[is_inner])
        leaves.append((first_leaf + ~child)[~is_inner])
    node_parents = np.bincount(np.concatenate(inner_children), minlength=len(start))
    leaf_parents = np.bincount(np.concatenate(leaves), minlength=0)
    is_root = place == 0
    if (node_parents != ~is_root).any() or (leaf_parents > 1).any():
        raise _corrupt("has a node or leaf that is the child of two nodes or of none")


def _written(fields: dict[str, str], trees: Sequence[dict[str, str]]) -> str:
    parts = [_tree(number, tree) for number, tree in enumerate(trees)]
    names = (
        "version",
        "num_class",
        "num_tree_per_iteration",
        "label_index",
        "max_feature_idx",
        "objective",
    )
    n_features = int(fields["max_feature_idx"]) + 1
    lines = ["tree", *(f"{name}={fields[name]}" for name in names)]
    lines.append("feature_names=" + " ".join(f"f{at}" for at in range(n_features)))
    lines.append("feature_infos=" + " ".join(["none"] * n_features))
    lines.append("tree_sizes=" + " ".join(str(len(part)) for part in parts))
    return "\n".join(lines) + "\n\n" + "".join(parts) + "end of trees\n"


def _tree(number: int, tree: dict[str, str]) -> str:
    lines = [f"Tree={number}", f"num_leaves={tree['num_leaves']}", "num_cat=0"]
    lines += [f"{name}={tree[name]}" for name in _KEPT_FIELDS]
    return "\n".join([*lines, "is_linear=0", f"shrinkage={tree['shrinkage']}"]) + "\n\n\n"


def _integers(
    name: str, rows: Sequence[str], counts: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    values = _parsed(name, rows, counts, _INTEGER_CHARACTERS, int)
    if values and not -(2**31) <= min(values) <= max(values) < 2**31:
        raise _corrupt(f"has a {name} that is beyond 32 bits")
    return np.array(values, np.int64)


def _numbers(name: str, rows: Sequence[str], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array(_parsed(name, rows, counts, _NUMBER_CHARACTERS, float), np.float64)


def _parsed(
    name: str,
    rows: Sequence[str],
    counts: NDArray[np.int64] | None,
    characters: bytes,
    parse: Callable[[str], float],
) -> list[float]:
    """The numbers of all rows, separated by one blank.

    counts: how many each row must have.
    """
    lengths = [row.count(" ") + 1 if row else 0 for row in rows]
    if counts is not None and lengths != counts.tolist():
        raise _corrupt(f"has a {name} that is too long or too short for its tree")
    tokens = " ".join(row for row in rows if row).split(" ") if any(rows) else []
    strange = "".join(rows).encode().translate(None, characters)
    longest = max(map(len, tokens), default=0)
    try:
        if not strange and longest <= _NUMBER_LENGTH:
            return list(map(parse, tokens))
    except ValueError as error:  # two signs, two points, or nothing between two blanks
        raise _corrupt(f"has a {name} that is no list of numbers ({error})") from error
    raise _corrupt(f"has a {name} that is no list of numbers")


def _within(
    name: str, values: NDArray[np.int64] | NDArray[np.float64], low: float, high: float
) -> None:
    if len(values) and not (values.min() >= low and values.max() <= high):
        raise _corrupt(
            f"has a {name} of {values.min()} to {values.max()}, not from {low} to {high}"
        )


def _corrupt(what: str) -> CorruptArtefact:
    return CorruptArtefact(f"the ranker's text {what}: publish the release again")
