"""Makes values that JSON has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def finite(value: Any) -> Any:  # noqa: ANN401 - any value that an answer has
    """The value with None for what is no finite number, and lists for arrays and tuples."""
    if isinstance(value, dict):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return finite(value.tolist())
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
