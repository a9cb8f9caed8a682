"""Runs and cases by their seeds: in worker processes, whose crash is a finding like any other, until a time is over."""

from __future__ import annotations

import random
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.life import STEPS, Life
from tests.chaos.service import Ground, site


@dataclass
class Outcome:
    """What a run, or a batch of cases, gave. cases: how many; findings: what must not be, each with how to see it again."""

    kind: str
    cases: int
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def live(ground: Ground, seed: int, steps: int = STEPS) -> Outcome:
    """One run of the service under faults."""
    rng = random.Random(f"life {seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        options = {"in_s3": rng.random() < 0.5, "remembers": rng.random() < 0.5}
        with site(ground, Path(directory) / "run", f"chaos-{seed}", **options) as made:
            life = Life(made, rng)
            try:
                life.run(steps)
            except Exception:  # noqa: BLE001 - the attack itself may have a bug, or has let one out
                life.violations.append(traceback.format_exc())
            finally:
                life._mend()  # noqa: SLF001 - whatever happened, the next run begins with sound servers
    told = [f"{wrong}\n    " + "\n    ".join(life.trace) for wrong in life.violations[:1]]
    return Outcome("faults", 1, life.counts, told)
