"""Writes docs/reliability.md from the counts of a campaign."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Outcome
from tests.chaos.faults import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
COUNTS = ROOT / "docs" / "reports" / "reliability.json"

ATTACKS = {
    "faults": ("runs of a whole service under faults", "a broken invariant"),
    "api": (
        "requests, through every entry point",
        "a 5xx other than a 503 with a reason, a traceback, no JSON, no error envelope",
    ),
    "stored values": (
        "damaged values in Redis",
        "the same; another user is affected",
    ),
    "bundles": (
        "damaged bundles with matching checksums",
        "an abort, an exception other than a refusal, an unsound answer",
    ),
    "tables": (
        "tables of interactions, items and users",
        "anything but a data set or one refusal in words",
    ),
    "settings": (
        "environments",
        "anything but settings or one refusal in words; a password in either",
    ),
    "commands": ("command lines", "a traceback, or an exit status other than 0, 1, 2, 75 and 130"),
}
"""Of each kind: a description of its cases, and of a violation."""

TOTALS = {
    "requests": "requests",
    "refusals": "refusals",
    "degraded answers": "degraded answers",
    "events accepted": "events accepted",
    "nights": "batch runs",
    "kills": "killed batch runs",
}
"""Name and description of the counts of all scenarios."""

HEAD = """# Reliability: results of the chaos campaign

Written by {commands}.
Do not edit: run it again, or `python -m tests.chaos page` for the words alone.

The campaign injects faults into a whole service, and checks every answer against the promises
below. It also sends malformed requests, stored values, files, tables, settings and commands. All
of it is drawn from a seed. All parts are real: Valkey, S3 by moto, the API in its own process or
behind the Lambda adapter, the batch in processes that are killed. Only the API's clocks are
replaced.

| | |
|---|---|
| the whole campaign, most of an hour on two cores | `make chaos` |
| another size, or a limit on its time | `python -m tests.chaos run --share 0.1 --minutes 20` |
| one kind | `python -m tests.chaos run --only tables` |
| one finding again, by the name in its report | `python -m tests.chaos again faults:1:17:1` |

A small campaign of every kind runs with the tests (`tests/chaos`).

## Promises that hold under every fault

- **No accepted event is lost or doubled.** Each is once in the drained files, in its user's record
  and in the next training, unless its user was deleted. Events that Redis itself loses before a
  drain are not covered.
- **No answer mixes releases.** Two catalogues with different rows take turns, and every title is
  that of the answer's release.
- **No blocked, excluded or seen item is shown.** An answer made without the user's record says
  that it is degraded.
- **The release pointer leads to a whole release**, in Redis and among the artefacts, after every
  kill, change of release and refusal.
- **No request outlasts its deadline**, whatever it waits for.
- **It recovers without a restart** once a fault is over, and then answers from the lists again.
- **A deleted user is nowhere** that serves or is learnt from: in no key, no value, no file of
  events and no training. [api.md](api.md) says what work directories keep, and for how long.
- **An error says why**: 503 with `Retry-After` and a reason; the batch ends with 0, 1, 2 or 75 and
  a sentence.
"""


def save(outcomes: Mapping[str, Outcome], plan: Mapping[str, int], command: str, load: str) -> None:
    """Writes the counts and the page.

    plan: how many cases of each kind were to be run, had there been time; load: the table of the
    load test, or "" to keep the last one. Kinds that were not run keep their last counts too.
    """
    last = json.loads(COUNTS.read_text()) if COUNTS.exists() else {"load": "", "kinds": {}}
    kinds = last["kinds"] | {
        kind: {
            "command": command,
            "cases": outcome.cases,
            "planned": plan[kind],
            "violations": len(outcome.findings),
            "counts": dict(sorted(outcome.counts.items())),
        }
        for kind, outcome in outcomes.items()
    }
    counts = {"load": load or last["load"], "kinds": kinds}
    COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
    write_page()


def write_page() -> None:
    """Writes the page from the saved counts."""
    PAGE.write_text(page(json.loads(COUNTS.read_text())))


def page(counts: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    kinds = counts["kinds"]
    commands = " and ".join(dict.fromkeys(f"`{done['command']}`" for done in kinds.values()))
    lines = [HEAD.format(commands=commands), *_summary(kinds)]
    if "faults" in kinds:
        lines += _faults(Counter(kinds["faults"]["counts"]))
    return "\n".join([*lines, *_outcomes(kinds), *_load(counts["load"])])


def _summary(kinds: Mapping[str, Any]) -> list[str]:
    lines = ["## Counts", "", "| what | cases | violations | a violation is |"]
    lines.append("|---|--:|--:|---|")
    fuzzed = 0
    for kind, (description, violation) in ATTACKS.items():
        if kind in kinds:
            done = kinds[kind]
            row = (description, _cases(done), str(done["violations"]), violation)
            lines.append(f"| {' | '.join(row)} |")
            fuzzed += done["cases"] if kind != "faults" else 0
    return [*lines, "", f"{fuzzed:,} cases in addition to the runs.", ""]


def _cases(done: Mapping[str, Any]) -> str:
    """The number of cases, and the planned number where it is larger."""
    cases, planned = done["cases"], done["planned"]
    return f"{cases:,}" if cases >= planned else f"{cases:,} of {planned:,}: the time was over"


def _faults(counts: Counter[str]) -> list[str]:
    answers = {name: name for name in sorted(counts) if name.startswith("answers")}
    lines = ["## The runs", "", "| over all runs | number |", "|---|--:|"]
    for name, description in (TOTALS | answers).items():
        lines.append(f"| {description} | {counts[name]:,} |")
    lines += ["", "| fault | times |", "|---|--:|"]
    return [*lines, *(f"| {name} | {counts[f'fault: {name}']:,} |" for name in FAULTS), ""]


def _outcomes(kinds: Mapping[str, Any]) -> list[str]:
    lines = ["## Outcomes of the cases", "", "| case | outcome | number |", "|---|---|--:|"]
    for kind in ATTACKS:
        if kind in kinds and kind != "faults":
            for name, number in kinds[kind]["counts"].items():
                lines.append(f"| {kind} | {name.partition(': ')[2]} | {number:,} |")
    return [*lines, ""]


def _load(table: str) -> list[str]:
    if not table:
        return []
    about = (
        "Under load, by `tests/benchmarks/load.py`: requests arrive at a share of the capacity, "
        "whether or not earlier ones were answered."
    )
    return ["## Load", "", about, "", "```text", table.strip("\n"), "```", ""]
