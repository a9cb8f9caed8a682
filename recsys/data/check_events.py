"""Proposes what types of events mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.data.column_names import plain, words
from shortlist.recsys.data.sources import RETURN_TYPE, ReturnMark
from shortlist.recsys.event_rules import EventRules

_NEGATIVE = frozenset(
    plain(name)
    for name in (
        "return", "returned", "returns", "refund", "refunded", "cancel", "cancelled", "canceled",
        "cancellation", "chargeback", "dislike", "disliked", "thumbs_down", "downvote", "unlike",
        "remove", "removed", "remove_from_cart", "remove_from_basket", "unfavorite", "unfavourite",
        "unsubscribe", "uninstall", "skip", "skipped", "hide", "hidden", "block", "report",
        "not_interested", "negative", "reject", "rejected", "delete", "bounce",
        "Retoure", "Rücksendung", "Rückgabe", "Erstattung", "Storno", "storniert", "Gutschrift",
        "retour", "remboursement", "annulé", "annulation", "devolución", "reembolso", "cancelado",
        "reso", "rimborso", "annullato", "devolução", "retourzending", "terugbetaling",
    )
)  # fmt: skip
"""Types that take something back, or say that it was not liked."""

_STRENGTHS = {
    1.0: (
        "view", "viewed", "page_view", "pageview", "pv", "detail", "detail_view", "product_view",
        "item_view", "view_item", "visit", "click", "clicked", "clickout", "open", "impression",
        "read", "listen", "listened", "play", "played", "watch", "watched", "stream", "search",
    ),
    2.0: (
        "like", "liked", "thumbs_up", "upvote", "favorite", "favourite", "fav", "wishlist",
        "add_to_wishlist", "added", "bookmark", "save", "saved", "share", "shared", "follow",
        "comment",
        "cart", "add_to_cart", "addtocart", "basket", "add_to_basket", "checkout", "add",
        "begin_checkout", "rate", "rated", "rating", "complete", "completed", "download",
    ),
    4.0: (
        "purchase", "purchased", "buy", "bought", "order", "ordered", "transaction", "sale", "sold",
        "conversion", "convert", "subscribe", "install", "book", "booking", "rent", "apply",
        "kauf", "bestellung", "achat", "commande", "compra", "pedido", "acquisto", "ordine",
    ),
}  # fmt: skip
"""Proposed weights: a look, an interest, a decision. Each doubles the one before."""

_STRENGTH_OF = {plain(name): weight for weight, names in _STRENGTHS.items() for name in names}

_NEGATIVE_WORDS = frozenset(
    (
        "return", "returned", "returns", "refund", "refunded", "cancel", "cancelled", "canceled",
        "cancellation", "chargeback", "dislike", "disliked", "downvote", "unlike", "remove",
        "removed", "unfavorite", "unsubscribe", "storno", "storniert", "retoure", "rucksendung",
        "ruckgabe", "erstattung", "retour", "remboursement", "devolucion", "reembolso", "reso",
        "rimborso",
    )
)  # fmt: skip
"""Words that take something back in a longer name too: Order Refunded, is_return."""

_NOT_WORDS = frozenset(("not", "no", "non", "never", "undo"))


_STATUS = frozenset(("complete", "completed"))
"""Words that say how far a thing came, and not what: Order Completed is an order."""


def _is_negative(name: str) -> bool:
    """Whether a type takes something back, by its whole name or by a word of it."""
    own = words(name)
    return plain(name) in _NEGATIVE or bool(own & _NEGATIVE_WORDS and not own & _NOT_WORDS)


def _strength(name: str) -> float | None:
    """The proposed weight of a type, by its whole name or by its weakest word: a Product Viewed."""
    own = (plain(name), *(words(name) - _STATUS))
    known = [_STRENGTH_OF[word] for word in own if word in _STRENGTH_OF]
    return _STRENGTH_OF.get(plain(name), min(known, default=None))


def type_counts(types: pl.Series) -> dict[str, int]:
    """Events of each type, most first; rows without a type are left out."""
    known = types.str.strip_chars(values.BLANKS).drop_nulls()
    known = known.filter(known != "")
    counted = known.value_counts(name="n").sort("n", types.name, descending=[True, False])
    return {str(name): int(n) for name, n in counted.rows()}


def proposed_rules(types: Sequence[str], *, is_marked: bool) -> EventRules:
    """Rules for these types: weights where there are several, and what is negative.

    is_marked: whether returns are marked by another column, and have a type of their own.
    """
    negative = [name for name in types if _is_negative(name)]
    positive = [name for name in types if name not in negative]
    if is_marked:
        negative = list(dict.fromkeys([*negative, RETURN_TYPE]))
    weights = {name: _strength(name) or min(_STRENGTHS) for name in positive}
    if len(weights) < 2:  # noqa: PLR2004 - one type needs no telling apart
        return EventRules({}, (), tuple(negative))
    # Without targets it is one type: of several as heavy none is left out by chance.
    heaviest = tuple(name for name in weights if weights[name] == max(weights.values()))
    return EventRules(weights, heaviest if len(heaviest) > 1 else (), tuple(negative))


def dislike_bound(ratings: pl.Series) -> float:
    """The bound below which a rating is negative feedback: 0, or that of yes and no.

    ratings: the column as it was read.
    """
    read = fields.flags_or_numbers("rating", ratings.dtype, "interactions")
    frame = ratings.alias("rating").to_frame().select(read)
    numbers = frame.to_series().drop_nulls().unique().sort().to_list()
    return _BETWEEN_NO_AND_YES if numbers == [0.0, 1.0] else EventRules().negative_below


_BETWEEN_NO_AND_YES = 0.5


def are_known_types(column: pl.Series) -> bool:
    """Whether all texts of a column are types of events that are known."""
    types = column.drop_nulls().unique().to_list()
    return bool(types) and all(
        isinstance(name, str) and (_is_negative(name) or _strength(name) is not None)
        for name in types
    )


def unknown_types(rules: EventRules) -> list[str]:
    """The types whose proposed weight is a guess."""
    return [name for name in rules.weights if _strength(name) is None]


def found_mark(columns: Mapping[str, pl.Series], most: int) -> ReturnMark | None:
    """The column some of whose few values are words for a return; None where there is none.

    A column that is named so itself may say yes and no. most: distinct values up to which a column
    is looked at.
    """
    for name, column in columns.items():
        if not (
            fields.is_text(column.dtype) or column.dtype == pl.Boolean or column.dtype.is_integer()
        ):
            continue
        distinct = column.drop_nulls().cast(pl.String).str.strip_chars().unique().sort()
        flags = set(distinct.str.to_lowercase())
        if _is_negative(name) and flags <= _FLAGS:
            marks = [value for value in distinct if value.lower() in _SET]
        else:
            marks = [value for value in distinct if _is_negative(value)]
        if marks and len(marks) < len(distinct) <= most:
            return ReturnMark(name, tuple(marks))
    return None


_SET = frozenset((*fields.YES, "1"))
_FLAGS = _SET | frozenset((*fields.NO, "0", ""))
