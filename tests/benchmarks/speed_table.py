"""Times calls in turn, and collects the benchmark's table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

CALLS = 2000
BLOCK = 50
COLUMNS = ("what", "p50 ms", "p99 ms", "p99.9 ms", "CPU us", "p50 / floor", "p99 / floor")

Call = Callable[[int], object]


@dataclass(frozen=True)
class Timing:
    """milliseconds: of each call; cpu: microseconds of this process for a call."""

    milliseconds: np.ndarray
    cpu: float

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.milliseconds))


def timed(calls: Mapping[str, Call], number: int = CALLS) -> dict[str, Timing]:
    """Times each of `calls` so often, in turn by blocks: a busy moment slows them all alike."""
    out = {name: np.empty(number) for name in calls}
    cpu = dict.fromkeys(calls, 0.0)
    for call in calls.values():
        for i in range(number // 10):
            call(i)
    for start in range(0, number, BLOCK):
        for name, call in calls.items():
            times, began = out[name], time.process_time()
            for i in range(start, min(start + BLOCK, number)):
                started = time.perf_counter()
                call(i)
                times[i] = (time.perf_counter() - started) * 1000
            cpu[name] += time.process_time() - began
    return {name: Timing(times, cpu[name] / number * 1e6) for name, times in out.items()}


def percentiles(times: np.ndarray) -> dict[str, float]:
    """Milliseconds at the three reported percentiles."""
    values = np.percentile(times, (50, 99, 99.9)).round(3).tolist()
    return dict(zip(("p50_ms", "p99_ms", "p99_9_ms"), values, strict=True))


class SpeedTable(Table):
    """The printed table; `report` holds the same figures for docs/reports."""

    def __init__(self, setup: str) -> None:
        super().__init__(title=setup)
        for column in COLUMNS:
            self.add_column(column, justify="left" if column == "what" else "right")
        self.report: dict[str, Any] = {
            "setup": setup,
            "latencies": [],
            "cold_start_seconds": {},
            "memory_mib": {},
            "http": [],
        }

    def add(self, what: str, timing: Timing, floor: float) -> None:
        """Adds a row; floor: milliseconds."""
        latency = percentiles(timing.milliseconds)
        ratios = [round(latency[name] / floor, 2) for name in ("p50_ms", "p99_ms")]
        figures = [*(f"{value:.3f}" for value in latency.values()), f"{timing.cpu:.0f}"]
        self.add_row(what, *figures, *(f"{ratio:.2f}" for ratio in ratios))
        row = {"what": what, **latency, "cpu_us": round(timing.cpu)}
        self.report["latencies"].append(
            row | {"floor_ratio": ratios[0], "p99_floor_ratio": ratios[1]}
        )

    def write_rows(self, path: Path) -> None:
        """Writes {what, p50_ms, p99_ms, ratio} of every row."""
        rows = [
            {
                "what": row["what"],
                "p50_ms": row["p50_ms"],
                "p99_ms": row["p99_ms"],
                "ratio": row["floor_ratio"],
            }
            for row in self.report["latencies"]
        ]
        path.write_text(json.dumps(rows, indent=1) + "\n")
