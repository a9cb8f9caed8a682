"""A serverless batch-plus-lookup recommender.

The folders of the repository are linked into this one package, so that an installation adds one
top-level name. From Python:

    import shortlist

    data = shortlist.read("interactions.csv", items="items.csv")
    print(shortlist.evaluate(data).methods)
    release = shortlist.fit(data)
    print(release.recommend(data, users=["42"]))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.batch.library import Data, Evaluation, Release, check, evaluate, fit, read
    from shortlist.recsys.event_rules import EventRules
    from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

__all__ = [
    "Data",
    "Evaluation",
    "EventRules",
    "FitParams",
    "RankerParams",
    "Release",
    "TowerParams",
    "check",
    "evaluate",
    "fit",
    "read",
]

_ELSEWHERE = {
    "EventRules": "recsys.event_rules",
    "FitParams": "recsys.training.parameters",
    "RankerParams": "recsys.training.parameters",
    "TowerParams": "recsys.training.parameters",
}
"""The modules of the names that are not of the library itself."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is named
    """Imports a name when it is first used: a Lambda imports this package, and not the batch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'batch.library')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
