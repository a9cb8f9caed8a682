"""Tests the content of items that the towers learn from."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.models.catalogue import Catalogue, ItemContent, LabelColumn
from shortlist.recsys.models.interactions import Events
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import content_matrix, fit_item_table

BRAND = LabelColumn("brand", ("acme", "bruna"), np.array([[0], [1], [-1]], np.int32))
TAGS = LabelColumn("tags", ("new", "red"), np.array([[0, 1], [1, -1], [-1, -1]], np.int32))


def catalogue(content: ItemContent | None = None) -> Catalogue:
    """Three items with a category each and no years."""
    ids, membership = tuple("abc"), np.eye(3, dtype=np.float32)
    years = np.full(3, np.nan, np.float32)
    columns = (ids, ids, (("x",), ("y",), ("z",)), tuple("xyz"), membership, years)
    return Catalogue(*columns) if content is None else Catalogue(*columns, (), content)


def test_own_columns_join_the_content() -> None:
    """After the categories come each column's labels, scaled to length 1, and the embeddings."""
    vectors = np.array([[0.5], [-0.5], [0.0]], np.float32)
    content = ItemContent((BRAND, TAGS), (), np.zeros((3, 0), np.float32), vectors)
    half = np.sqrt(0.5)
    assert content_matrix(catalogue(content)) == pytest.approx(
        np.array(
            [
                [1, 0, 0, 1, 0, half, half, 0.5],
                [0, 1, 0, 0, 1, 0, 1, -0.5],
                [0, 0, 1, 0, 0, 0, 0, 0],
            ]
        )
    )


def test_content_without_own_columns() -> None:
    """It is the categories' alone, as before there were other columns."""
    assert np.array_equal(content_matrix(catalogue()), np.eye(3, dtype=np.float32))


def test_labels_share_one_numbering() -> None:
    """The item table numbers the labels of all columns; the rarest weighs most."""
    numbers = np.array([[0.5], [np.nan], [0.1]], np.float32)
    content = ItemContent((BRAND, TAGS), ("price",), numbers, np.zeros((3, 0), np.float32))
    one = np.zeros(1, np.int32)
    events = Events(one, one, np.zeros(1, np.int64), np.ones(1, np.float32), 1, 3)
    table = fit_item_table(events, catalogue(content), fit_neighbours(events))
    assert table.labels.rows.tolist() == [[0, 2, 3], [1, 3, 4], [4, 4, 4], [4, 4, 4]]
    assert table.labels.weights == pytest.approx(np.log([3, 3, 3, 1.5, 1]))
    assert table.numbers[:, 0] == pytest.approx([0.5, np.nan, 0.1, np.nan], nan_ok=True)
