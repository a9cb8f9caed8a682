"""Explains the names in a report.

The page of a report and the studio show the same sentences. It imports nothing heavy, as the API
reads it too. The ranker's features have their sentences in `recsys.models.features`.
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric as readers see it."""

    label: str
    sentence: str


METRICS = {
    "ndcg@10": Metric(
        "NDCG@10",
        "How many of the held-out items are among the first ten, and how early: "
        "1 is the best list, 0 one without any.",
    ),
    "recall@10": Metric("Recall@10", "Share of a user's held-out items among the first ten."),
    "recall@20": Metric("Recall@20", "Share of a user's held-out items among the first twenty."),
    "mrr": Metric(
        "MRR", "Mean reciprocal rank: one over the rank of the first held-out item, 0 without one."
    ),
    "map@10": Metric(
        "MAP@10", "Mean average precision: that at each held-out item among the first ten."
    ),
    "hit_rate@10": Metric(
        "Hit rate@10", "Share of the users with at least one held-out item among the first ten."
    ),
    "stratified_recall@20": Metric(
        "Stratified recall@20", "Recall@20 in which rare items weigh more than popular ones."
    ),
    "novelty@10": Metric("Novelty@10", "How little known the first ten items are."),
    "diversity@10": Metric("Diversity@10", "How unlike each other the first ten items are."),
    "coverage": Metric("Coverage", "Share of the catalogue that somebody is offered."),
}
"""Every metric of a method, in the order of the tables."""

METHODS = {
    "popularity": "The items that most users had: one list for all.",
    "recent_popularity": "The items that most users had lately: one list for all.",
    "item_knn": "Item neighbours: items whose users also had the user's own items.",
    "recent_item_knn": "Item neighbours, with the user's recent events weighted more.",
    "ease": "EASE: a linear regression of every item on all others.",
    "recent_ease": "EASE, with the user's recent events weighted more.",
    "own_frequent": "The user's own items, the most frequent first; then popular ones.",
    "own_recent": "The user's own items, the latest first; then popular ones.",
    "tifu_knn": "TIFU-KNN: how often and how lately the user, and users alike, had an item.",
    "als": "Matrix factorisation by alternating least squares.",
    "bpr_towers": "Our retriever, trained on pairs of items (BPR) instead of sampled softmax.",
    "retriever": "Our first stage alone: the candidates in the order of the retriever.",
    "two_stage": "What is served: the candidates in the order of the ranker.",
    "fresh": "The served model, which has never seen these users.",
    "retrained": "The same model once its towers have learnt from these users' first events.",
}
"""Every method of a report, from the plainest baseline to what is served."""

COMPARED = tuple(name for name in METHODS if name not in ("fresh", "retrained"))
"""The methods that an evaluation compares on its hold-out; the others are of cold starts alone."""

SOURCES = {
    "history": "The user's own items, where they may be offered again.",
    "retriever": "The items nearest to the user's vector.",
    "neighbours": "Items that others took near those of the user's recent history.",
    "trending": "Items that many users take now.",
    "all": "All sources together: no ranker of these candidates can find more.",
}
"""Every source of candidates, in the order in which they take their share."""

PROTOCOLS = {
    "last-10pct": (
        "The last tenth of each user's events, at least one, is held out with what shares its "
        "time; everything before them is learnt from."
    ),
    "leave-one-out": (
        "The last event of each user is held out with what shares its time; everything before is "
        "learnt from."
    ),
    "time": (
        "All events of the last tenth of the time are held out; everything older is learnt from."
    ),
}
"""How each protocol cuts the hold-out."""

LEFT_OUT = {
    "no event": "They have no event.",
    "one event": "Their only event leaves nothing to learn from, or nothing to predict.",
    "nothing held out": "None of their events is held out, as none is late enough or predicted.",
    "nothing before": "All their events are held out, so nothing is known of them.",
    "nothing to predict": "None of their held-out events is of a kind that is predicted.",
    "nothing new": "They had every held-out item before, and it is not offered again.",
}
"""Why users are not measured, in the order in which the reasons are looked for."""
