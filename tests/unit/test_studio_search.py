"""Finds items and users by what was typed."""

from __future__ import annotations

import pytest

from shortlist.batch.studio.search import IdSearch, ItemSearch

IDS = ["10", "2", "21", "x-9"]
TITLES = ["Amélie", "The Star", "Star Wars: A New Hope", "Rock-star 2"]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", [3, 2, 1, 0]),
        ("star", [3, 2, 1]),
        ("STAR wars", [2]),
        ("hope new", [2]),
        ("amelie", [0]),
        ("AMÉLIE", [0]),
        ("tar", [3, 2, 1]),
        ("2", [1, 3, 2]),
        ("x-9", [3]),
        ("x 9", [3]),
        ("nothing", []),
        ("-", []),
        ("t s", [1, 3, 2]),
        ("st sta", [3, 2, 1]),
        ("star zebra", []),
    ],
)
def test_items_by_words(query, rows) -> None:
    """Words in any order, without case and accents; an id first, then the order that was given."""
    assert ItemSearch(IDS, TITLES, [3, 2, 1, 0]).found(query, 10) == (rows, len(rows))


def test_starts_of_words_come_first() -> None:
    """A title that has the text within a word comes after one in which a word starts so."""
    search = ItemSearch(["1", "2"], ["bestar", "a star"], [0, 1])
    assert search.found("star", 10) == ([1, 0], 2)


def test_only_the_first_are_given() -> None:
    """With the number of all; of some rows alone where these are given."""
    search = ItemSearch(IDS, TITLES, [3, 2, 1, 0])
    assert search.found("star", 2) == ([3, 2], 3)
    assert search.found("", 2) == ([3, 2], 4)
    assert search.found("star", 10, {1, 0}) == ([1], 1)
    assert search.found("2", 10, {2}) == ([2], 1)


def test_ids_of_users() -> None:
    """The equal id, those that start with the text, and those that hold it."""
    found = IdSearch(["ab1", "1", "b", "12", "A1"]).ids("1")
    assert found == ["1", "12", "A1", "ab1"]
