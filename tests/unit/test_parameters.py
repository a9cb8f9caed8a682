"""Parameters of training carry their own bounds."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from pydantic import TypeAdapter, ValidationError

from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

BOUNDS = {"minimum", "exclusiveMinimum", "enum", "$ref"}


@pytest.mark.parametrize("params", [TowerParams, RankerParams, FitParams])
def test_every_parameter_has_bounds(params) -> None:
    """A parameter has a least value or a list of values, or is a group of such parameters."""
    schemas = TypeAdapter(params).json_schema()["properties"]
    unbounded = [name for name, schema in schemas.items() if not BOUNDS & set(schema)]
    assert unbounded == []


@pytest.mark.parametrize(
    "change",
    [{"rounds": 0}, {"rounds": True}, {"rounds": 2.5}, {"dropout": 1.5}, {"loss": "hinge"}],
)
def test_values_out_of_bounds_are_refused(change) -> None:
    """Parameters that exist are within their bounds, also where they were changed from others."""
    with pytest.raises(ValidationError, match=next(iter(change))):
        TowerParams(**change)
    with pytest.raises(ValidationError, match=next(iter(change))):
        replace(TowerParams(), **change)


def test_unknown_parameters_are_refused() -> None:
    """A misspelt name is an error, rather than a default without a word."""
    with pytest.raises(ValidationError, match="estimator"):
        RankerParams(estimator=3)  # type: ignore[call-arg]


def test_parameters_read_as_their_values() -> None:
    """The text of parameters, of which the batch makes the key of a stage, names each value."""
    text = ", ".join(f"{name}={value!r}" for name, value in asdict(RankerParams()).items())
    assert repr(RankerParams()) == f"RankerParams({text})"
