"""A strict reader of the Prometheus text format, for tests: whatever it does not know is an error."""

from __future__ import annotations

import re

SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """The type of each family, and the value of each sample by its name and sorted labels."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    samples: Samples = {}
    told = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            told = line.split(" ", 3)[2]
            assert told not in kinds, line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == told, line
            kinds[name] = kind
        else:
            name, labels, value = _sample(line)
            assert name in _names(told, kinds[told]), line
            assert (name, labels) not in samples, line
            samples[name, labels] = value
    for name, kind in kinds.items():
        if kind == "histogram":
            _check_histogram(name, samples)
    return kinds, samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """The value of one sample; None where there is none."""
    return samples.get((name, tuple(sorted(labels.items()))))


def _sample(line: str) -> tuple[str, tuple[tuple[str, str], ...], float]:
    found = SAMPLE.match(line)
    assert found is not None, line
    labels = [
        (key, re.sub(r"\\.", lambda m: ESCAPES[m[0]], quoted))
        for key, quoted in LABEL.findall(found[2] or "")
    ]
    assert len(dict(labels)) == len(labels), line
    return found[1], tuple(sorted(labels)), float(found[3])


def _names(name: str, kind: str) -> set[str]:
    return {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}


def _check_histogram(name: str, samples: Samples) -> None:
    """Buckets that only grow, the last of which is the count."""
    for (sample, labels), count in samples.items():
        if sample == f"{name}_count":
            buckets = [
                (float(dict(own)["le"]), running)
                for (bucket, own), running in samples.items()
                if bucket == f"{name}_bucket"
                and tuple(pair for pair in own if pair[0] != "le") == labels
            ]
            assert buckets == sorted(buckets), name
            assert [running for _, running in buckets] == sorted(
                running for _, running in buckets
            ), name
            assert buckets[-1] == (float("inf"), count), name
