"""Finds items and users by what was typed."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate, islice

SHORT = 2
"""Letters of a word that so many items have that looking at each is faster."""

_SEPARATORS = str.maketrans(dict.fromkeys("\t\n-_/.,:;()[]'\"", " "))


def folded(text: str) -> str:
    """Text without case and accents: "Amélie" and "AMELIE" are the same."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(each for each in decomposed if not unicodedata.combining(each))


class ItemSearch:
    """Searches ids and titles.

    All texts are one long one, through which Python looks at some gigabytes a second: at 100,000
    items no index is needed.
    """

    def __init__(self, ids: Sequence[str], titles: Sequence[str], order: Sequence[int]) -> None:
        """order: the rows of equally good finds, best first."""
        self._rows = list(order)
        self._row_of = {folded(each): row for row, each in enumerate(ids)}
        # A blank before each word, so that a find with it is the start of a word.
        texts = [f" {each} {title}" for each, title in zip(ids, titles, strict=True)]
        self._texts = [folded(texts[row]).translate(_SEPARATORS) for row in order]
        self._text = "\n".join([*self._texts, ""])
        self._ends = list(accumulate(len(text) + 1 for text in self._texts))

    def found(
        self, query: str, limit: int, among: Collection[int] | None = None
    ) -> tuple[list[int], int]:
        """The first rows that have all words of the query, and the number of all.

        First comes the one whose id it is, then those in which each word starts with one of the
        query. Every row has all words of an empty query. among: rows to look at; None for all.
        """
        text = folded(query.strip())
        words = text.translate(_SEPARATORS).split()
        places = self._places(text, words)
        rows = self._rows
        if among is not None:
            places = [place for place in places if rows[place] in among]
        exact = self._row_of.get(text)
        best = [] if exact is None or (among is not None and exact not in among) else [exact]
        total = len(places) + (best != [] and not words)  # an id of separators alone
        starts = [f" {word}" for word in words]
        others = (place for place in places if rows[place] != exact)
        first = list(islice((p for p in others if self._has(p, starts)), limit))
        best += (rows[place] for place in first)
        if len(best) < limit:
            known = set(best)
            best += islice((rows[p] for p in places if rows[p] not in known), limit - len(best))
        return best[:limit], total

    def _places(self, text: str, words: Sequence[str]) -> Sequence[int]:
        """The places in the order of those that have all words."""
        if not text:
            return range(len(self._rows))
        if not words:
            return []
        longest = max(words, key=len)  # which the fewest have
        places = self._with(longest)
        rest = [word for word in words if word != longest]
        return [place for place in places if self._has(place, rest)] if rest else places

    def _with(self, word: str) -> list[int]:
        if len(word) <= SHORT:
            return [place for place, text in enumerate(self._texts) if word in text]
        places = []
        at = self._text.find(word)
        while at >= 0:
            place = bisect_right(self._ends, at)
            places.append(place)
            at = self._text.find(word, self._ends[place])
        return places

    def _has(self, place: int, parts: Sequence[str]) -> bool:
        text = self._texts[place]
        return all(part in text for part in parts)


class IdSearch:
    """Searches ids, in their own order."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._pairs = sorted((folded(each), each) for each in ids)

    def ids(self, query: str) -> list[str]:
        """The ids that hold the text: the equal one, those that start with it, the others."""
        text = folded(query.strip())
        found = [pair for pair in self._pairs if text in pair[0]]
        equal = [each for plain, each in found if plain == text]
        starting = [each for plain, each in found if plain.startswith(text) and plain != text]
        return equal + starting + [each for plain, each in found if not plain.startswith(text)]
