"""What is known of the items and users beside their interactions, as arrays that need no data frame to read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shortlist.recsys.models.interactions import Events, Float32, Int32


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items in row order.

    ids: n item ids, unique; titles: n titles, the id where there is none; categories: n tuples of
    category names, maybe empty; category_names: the C that models learn from, sorted, all unless
    they are too many; membership: float32[n, C], 1 where an item has such a category; year:
    float32[n], NaN where unknown.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    category_names: tuple[str, ...]
    membership: Float32
    year: Float32

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class AttributeVocabulary:
    """How user attributes become tokens: columns[a] is a column; tokens[a] maps its value to a token, all tokens distinct.

    Numbers become the label of their quantile bin, "0", "1", …: edges[a] holds the bin edges, or
    None for a text column.
    """

    columns: tuple[str, ...]
    tokens: tuple[dict[str, int], ...]
    edges: tuple[tuple[float, ...] | None, ...]

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return sum(len(t) for t in self.tokens)

    def encode(self, attributes: dict[str, object]) -> Int32:
        """int32[A] tokens of one user's {column: value}; MISSING for a column or a value that training never saw."""
        out = np.full(len(self.columns), -1, np.int32)
        for a, (column, tokens, edges) in enumerate(
            zip(self.columns, self.tokens, self.edges, strict=True)
        ):
            value = attributes.get(column)
            if value is None:
                continue
            if edges is None:
                if isinstance(value, float) and value.is_integer():
                    value = int(value)  # 1.0 is the 1 that training saw
                out[a] = tokens.get(str(value), -1)
            elif isinstance(value, (int, float)) and math.isfinite(value):
                out[a] = tokens.get(str(int(np.searchsorted(edges, value, side="right"))), -1)
        return out

    def decode(self, tokens: Int32) -> dict[str, str | float]:
        """{column: value} that encodes to tokens int32[A]; a number is the lower edge of its bin."""
        out: dict[str, str | float] = {}
        for column, known, edges, token in zip(
            self.columns, self.tokens, self.edges, tokens, strict=True
        ):
            label = next((text for text, number in known.items() if number == token), None)
            if label is None:
                continue
            if edges is None:
                out[column] = label
            else:
                out[column] = edges[int(label) - 1] if int(label) > 0 else edges[0] - 1
        return out


@dataclass(frozen=True, slots=True)
class Dataset:
    """Validated data: events, the catalogue, user ids in row order, and user attributes.

    attributes: int32[n_users, A] tokens of `vocabulary` (A may be 0); fingerprint: sha256 of the
    validated content.
    """

    events: Events
    catalogue: Catalogue
    user_ids: tuple[str, ...]
    attributes: Int32
    vocabulary: AttributeVocabulary
    fingerprint: str
