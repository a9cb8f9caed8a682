"""User attributes become tokens and come back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue
from shortlist.recsys.models.interactions import MISSING

VOCABULARY = AttributeVocabulary(
    ("gender", "age", "cars"),
    ({"F": 0, "M": 1}, {"0": 2, "1": 3, "2": 4}, {"0": 5, "1": 6, "2.5": 7}),
    (None, (25.0, 40.0), None),
)


def test_values_become_tokens_of_their_columns() -> None:
    """Texts by themselves, numbers by their bin, whose lower edge belongs to it."""
    assert VOCABULARY.size == 8
    assert VOCABULARY.encode({"gender": "M", "age": 24.9, "cars": 1}).tolist() == [1, 2, 6]
    assert VOCABULARY.encode({"gender": "F", "age": 25, "cars": 2.5}).tolist() == [0, 3, 7]
    assert VOCABULARY.encode({"age": 99}).tolist() == [MISSING, 4, MISSING]


@pytest.mark.parametrize(
    "unknown", [{}, {"gender": "X", "age": "old", "cars": 9}, {"gender": None}, {"colour": "red"}]
)
def test_what_training_never_saw_is_missing(unknown) -> None:
    """Absent, null, of another type, or a column that there is not."""
    assert VOCABULARY.encode(unknown).tolist() == [MISSING] * 3


def test_whole_float_is_the_integer() -> None:
    """JSON's 1.0 is the 1 that training saw."""
    assert (
        VOCABULARY.encode({"cars": 1.0}).tolist()
        == VOCABULARY.encode({"cars": 1}).tolist()
        == [MISSING, MISSING, 6]
    )
    assert VOCABULARY.encode({"cars": -0.0}).tolist() == [MISSING, MISSING, 5]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_missing(value) -> None:
    """As in training, which leaves them out too."""
    assert VOCABULARY.encode({"age": value, "cars": value}).tolist() == [MISSING] * 3


def test_tokens_survive_the_round_trip() -> None:
    """Whatever tokens a user has, the decoded values encode to them again."""
    for gender in (MISSING, 0, 1):
        for age in (MISSING, 2, 3, 4):
            for cars in (MISSING, 5, 6, 7):
                tokens = np.array([gender, age, cars], np.int32)
                decoded: dict[str, object] = {**VOCABULARY.decode(tokens)}
                assert VOCABULARY.encode(decoded).tolist() == tokens.tolist()


def test_decoding_names_what_is_known() -> None:
    """A number is the lower edge of its bin; what is missing is left out."""
    assert VOCABULARY.decode(np.array([1, 4, MISSING], np.int32)) == {"gender": "M", "age": 40.0}


def test_catalogue_length_is_its_ids() -> None:
    """One row for each item."""
    assert (
        len(
            Catalogue(
                ("a", "b"),
                ("A", "B"),
                ((), ()),
                (),
                np.zeros((2, 0), np.float32),
                np.zeros(2, np.float32),
            )
        )
        == 2
    )
