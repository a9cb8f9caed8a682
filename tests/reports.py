"""Reports with known figures, for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

from shortlist.recsys.evaluation.names import METRICS


def figure(value: float | None, around: float = 0.01) -> dict[str, float | None]:
    """A value and an interval around it."""
    low, high = (None, None) if value is None else (value - around, value + around)
    return {"value": value, "low": low, "high": high}


NDCG = {
    "popularity": 0.08,
    "item_knn": 0.125,
    "recent_ease": 0.16,
    "retriever": 0.18,
    "two_stage": 0.2,
}


def minimal() -> dict[str, Any]:
    """A report with nothing but methods."""
    return {"methods": {name: {"ndcg@10": figure(v), "n_users": 943} for name, v in NDCG.items()}}


def full() -> dict[str, Any]:
    """A report with every section."""
    methods = {
        name: {metric: figure(v * (place + 10) / 10) for place, metric in enumerate(METRICS)}
        | {"n_users": 943}
        for name, v in NDCG.items()
    }
    paired = {
        a: {
            b: {"difference": x - y, "low": x - y - 0.01, "high": x - y + 0.01, "p_value": 0.002}
            for b, y in NDCG.items()
            if b != a
        }
        for a, x in NDCG.items()
    }
    segments = {
        "history length": [
            {
                "segment": s,
                "n_users": n,
                "methods": {m: figure(v * (1 + i / 5), 0.03) for m, v in NDCG.items()},
            }
            for i, (s, n) in enumerate([("1-9", 12), ("10-49", 400), ("50+", 531)])
        ],
        "favourite category": [
            {"segment": s, "n_users": 100, "methods": {m: figure(v, 0.02) for m, v in NDCG.items()}}
            for s in ("Action", "Children's", "Film-Noir & $Crime$", "<i>Odd</i>")
        ],
    }
    epochs = [
        {"epoch": e, "loss": 7 - e / 5, "validation": None if e == 1 else 0.1 * e**0.3}
        for e in range(1, 13)
    ]
    example = {
        "user": "17",
        "history": ["Toy Story (1995)", "<b>x</b>"],
        "recommendations": [
            {"title": "<script>alert(1)</script>", "score": 1.234, "held_out": True},
            {"title": "Fargo (1996)", "score": -0.5, "held_out": False},
        ],
        "held_out": ["<script>alert(1)</script>"],
    }
    fresh = [
        {
            "events": n,
            "n_users": 90,
            "popularity": figure(0.07),
            "fresh": figure(0.1 + n / 100),
            "retrained": figure(0.12 + n / 100),
        }
        for n in (1, 3, 10)
    ]
    return {
        "protocol": "last-10pct",
        "k": 100,
        "n_items": 1682,
        "data": {
            "fingerprint": "5c45" * 16,
            "n_users": 943,
            "n_items": 1682,
            "n_events": 100_000,
            "latest": 1_795_600_000,
            "rejects": {"unknown item": 3},
        },
        "made_at": 1_795_744_000,
        "left_out": {"one event": 12, "nothing new": 3},
        "ties": {"tied_events": 0.25, "drawn_holdouts": 7},
        "warnings": ["few users by history length, in 1-9 (12): what looks better may be chance"],
        "gate": "NDCG@10 is 0.2000, that of the serving release v1 0.1900; +0.04 against all",
        "is_gated": True,
        "refusals": [],
        "serving": {
            "version": "v1",
            "compared": {"new": 0.2, "serving": 0.19, "window": "on the same events"},
            "same_holdout": False,
            "metrics": {"ndcg@10": 0.18, "recall@20": 0.3, "mrr": 0.1},
            "data": {"n_users": 900, "n_items": 1682, "n_events": 80_000},
        },
        "drift": {
            "note": "drift since v1: users.events (KL 0.30)",
            "rows": [
                {"table": t, "feature": f, "kl": 0.3, "psi": 0.6, "ks": 0.1, "flagged": f == "age"}
                for t, f in (("users", "age"), ("features", "next_1_wide"))
            ],
        },
        "methods": methods,
        "paired": paired,
        "repeats": {
            "mode": "allow",
            "events": 0.4,
            "held_out": 0.5,
            "parts": {part: {"methods": methods, "paired": paired} for part in ("new", "repeated")},
        },
        "segments": segments,
        "popularity": {
            part: {m: v * scale for m, v in NDCG.items()}
            for part, scale in (("head", 2), ("middle", 1), ("tail", 0.3))
        },
        "candidate_recall": {"retriever": 0.9, "neighbours": 0.02, "trending": 0.01, "all": 0.94},
        "importances": {f: 0.5 / 2**n for n, f in enumerate(["next_1_wide", *"abcdefghijkl"])},
        "learning_curves": {
            "towers": epochs,
            "ranker": [{"round": r, "validation": 0.3 + r / 999} for r in range(1, 60)],
        },
        "audit": [
            {
                "check": "No held-out event is older than what is learnt from.",
                "outcome": "held",
                "detail": "943 users",
            },
            {"check": "Nothing seen is recommended.", "outcome": "broken", "detail": "2 of 9430"},
        ],
        "examples": [example, example | {"user": "18"}],
        "fresh_users": fresh,
        "new_items": {
            "n_items": 80,
            "n_users": 400,
            "recall@20": figure(0.2),
            "random": figure(0.012, 0.004),
        },
        "seconds": {"towers": 23.6, "evaluation": 0.42},
        "seconds_total": 3725.0,
        "peak_memory_bytes": {"process": 794_845_184},
        "ranker": {"reported": {"note": "6 trees from 3932 groups"}},
    }
