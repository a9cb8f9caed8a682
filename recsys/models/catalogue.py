"""Defines the catalogue, user attributes and data set as arrays.

No data frame is needed to read them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shortlist.recsys.models.interactions import MISSING, Events, Float32, Int32
from shortlist.recsys.where import AttributeKind, AttributeValue


@dataclass(frozen=True, slots=True)
class ItemAttribute:
    """A column of the items, as answers show it and filters read it.

    values: of n items, None where there is none; dates are ISO 8601 text.
    """

    name: str
    kind: AttributeKind
    values: tuple[AttributeValue, ...]
    is_shown: bool = True
    is_filtered: bool = True

    def as_plain(self) -> list[object]:
        """Values that msgpack packs."""
        return [self.name, self.kind.value, self.values, self.is_shown, self.is_filtered]

    @staticmethod
    def from_plain(plain: Sequence[Any]) -> ItemAttribute:
        """Reads `as_plain`."""
        name, kind, values, is_shown, is_filtered = plain
        return ItemAttribute(name, AttributeKind(kind), values, is_shown, is_filtered)


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """A column of the items that models learn from by its labels.

    labels: L names, such as texts or bins of numbers.
    rows: int32[n, w] positions in `labels`, each once, MISSING-padded.
    """

    name: str
    labels: tuple[str, ...]
    rows: Int32


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What models learn from the items' own columns, apart from categories and year.

    columns: those with labels.
    number_names: of B columns of numbers and dates; numbers: float32[n, B], the share of the items
    whose value is lower, 0 to 1; NaN where unknown.
    vectors: float32[n, D] projected embeddings, 0 where an item has none; D may be 0.
    """

    columns: tuple[LabelColumn, ...]
    number_names: tuple[str, ...]
    numbers: Float32
    vectors: Float32

    @staticmethod
    def none(n: int) -> ItemContent:
        """No content, of n items."""
        return ItemContent((), (), np.zeros((n, 0), np.float32), np.zeros((n, 0), np.float32))

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items in row order.

    ids: n item ids, unique; titles: n titles, the id where there is none.
    categories: n tuples of category names, maybe empty.
    category_names: the C that models learn from, sorted; all unless they are too many.
    membership: float32[n, C], 1 where an item has such a category.
    year: float32[n], NaN where unknown.
    attributes: the items' other columns and the year, as far as they are shown or filtered by.
    content: what models learn from these columns.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    category_names: tuple[str, ...]
    membership: Float32
    year: Float32
    attributes: tuple[ItemAttribute, ...] = ()
    content: ItemContent = field(default_factory=lambda: ItemContent.none(0))

    def __post_init__(self) -> None:
        """Fills in the content where it was not given."""
        if len(self.content) != len(self.year):
            object.__setattr__(self, "content", ItemContent.none(len(self.year)))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class AttributeVocabulary:
    """Encodes user attributes as tokens.

    columns: A names; tokens[a] maps the values of columns[a] to tokens, all of them distinct.
    edges[a]: the edges of a number's quantile bins, whose labels "0", "1", … are its values; None
    for a text column.
    """

    columns: tuple[str, ...]
    tokens: tuple[dict[str, int], ...]
    edges: tuple[tuple[float, ...] | None, ...]

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return sum(len(t) for t in self.tokens)

    def encode(self, attributes: dict[str, object]) -> Int32:
        """int32[A]: tokens of one user's {column: value}; MISSING for what training never saw."""
        encoded = np.full(len(self.columns), MISSING, np.int32)
        columns = zip(self.columns, self.tokens, self.edges, strict=True)
        for a, (column, tokens, edges) in enumerate(columns):
            label = _label(attributes.get(column), edges)
            if label is not None:
                encoded[a] = tokens.get(label, MISSING)
        return encoded

    def decode(self, tokens: Int32) -> dict[str, str | float]:
        """{column: value} that encodes to tokens int32[A].

        A number is its bin's lower edge.
        """
        decoded: dict[str, str | float] = {}
        columns = zip(self.columns, self.tokens, self.edges, tokens, strict=True)
        for column, known, edges, token in columns:
            label = next((text for text, number in known.items() if number == token), None)
            if label is None:
                continue
            if edges is None:
                decoded[column] = label
            elif int(label) > 0:
                decoded[column] = edges[int(label) - 1]
            else:
                decoded[column] = edges[0] - 1  # the first bin has no lower edge
        return decoded


def _label(value: object, edges: tuple[float, ...] | None) -> str | None:
    """A value as the vocabulary spells it; None where it has no token."""
    if value is None:
        return None
    if edges is None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 1.0 is the 1 that training saw
        return str(value)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return str(int(np.searchsorted(edges, value, side="right")))
    return None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Validated data; user_ids are in row order.

    attributes: int32[n_users, A] tokens of `vocabulary`; A may be 0.
    fingerprint: sha256 of the validated content.
    """

    events: Events
    catalogue: Catalogue
    user_ids: tuple[str, ...]
    attributes: Int32
    vocabulary: AttributeVocabulary
    fingerprint: str
