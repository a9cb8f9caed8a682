"""Finds items and users by what was typed."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

EXACT, STARTS, WITHIN = range(3)
"""How well an entry fits: it is the text, its words start with the text's words, or hold them."""

_SEPARATORS = str.maketrans(dict.fromkeys("\t\n-_/.,:;()[]'\"", " "))


def folded(text: str) -> str:
    """Text without case and accents: "Amélie" and "AMELIE" are the same."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    if decomposed.isascii():
        return decomposed
    return "".join(each for each in decomposed if not unicodedata.combining(each))


class ItemSearch:
    """Searches ids and titles.

    One pass over all texts: at 100,000 items it takes some 20 ms, and needs no index.
    """

    def __init__(self, ids: Sequence[str], titles: Sequence[str], order: Sequence[int]) -> None:
        """order: the rows of equally good finds, best first."""
        self._ids = [folded(each) for each in ids]
        # A blank before each word, so that a find with it is the start of a word.
        self._texts = [
            f" {each} {folded(title)}".translate(_SEPARATORS)
            for each, title in zip(self._ids, titles, strict=True)
        ]
        self._order = order

    def rows(self, query: str) -> list[int]:
        """The rows that have all words of the query, best first; all rows for an empty one."""
        text = folded(query.strip())
        words = text.translate(_SEPARATORS).split()
        if not text:
            return list(self._order)
        if not words:  # of separators alone
            return [row for row in self._order if text in self._ids[row]]
        texts, first = self._texts, words[0]
        found = [row for row in self._order if first in texts[row]]
        for word in words[1:]:
            found = [row for row in found if word in texts[row]]
        # Sorting is stable: within a class the order stays.
        return sorted(found, key=lambda row: self._fit(row, text, words))

    def _fit(self, row: int, text: str, words: Sequence[str]) -> int:
        if self._ids[row] == text:
            return EXACT
        starts = all(f" {word}" in self._texts[row] for word in words)
        return STARTS if starts else WITHIN


def ids_like(ids: Sequence[str], query: str) -> list[str]:
    """The ids that hold the text, the equal one first, then those that start with it."""
    text = folded(query.strip())
    found = [(each, folded(each)) for each in ids]
    found = [(each, plain) for each, plain in found if text in plain]
    found.sort(key=lambda pair: (pair[1] != text, not pair[1].startswith(text), pair[1]))
    return [each for each, _ in found]
