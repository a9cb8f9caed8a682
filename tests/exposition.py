"""Parses the Prometheus text format strictly, for tests of `/metrics`.

`parse(text)` gives the type of each metric family and the value of each sample;
`value(samples, name, label="x")` looks one up. Anything irregular fails the test: an unknown line,
a sample outside its family, a label or sample given twice, a histogram whose buckets fall.
"""

from __future__ import annotations

import re

SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = tuple[tuple[str, str], ...]
"""Sorted pairs of name and value."""

Samples = dict[tuple[str, Labels], float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """The type of each family, and the value of each sample."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    samples: Samples = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in kinds, line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family, line
            kinds[name] = kind
        else:
            name, labels, number = _sample(line)
            assert name in _sample_names(family, kinds[family]), line
            assert (name, labels) not in samples, line
            samples[name, labels] = number
    for name, kind in kinds.items():
        if kind == "histogram":
            _check_histogram(name, samples)
    return kinds, samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """The value of one sample; None where there is none."""
    return samples.get((name, tuple(sorted(labels.items()))))


def _sample(line: str) -> tuple[str, Labels, float]:
    match = SAMPLE.match(line)
    assert match is not None, line
    name, quoted_labels, number = match.groups()
    labels = [(key, _unescaped(quoted)) for key, quoted in LABEL.findall(quoted_labels or "")]
    assert len(dict(labels)) == len(labels), line
    return name, tuple(sorted(labels)), float(number)


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], quoted)


def _sample_names(family: str, kind: str) -> set[str]:
    if kind == "histogram":
        return {f"{family}_bucket", f"{family}_sum", f"{family}_count"}
    return {family}


def _check_histogram(name: str, samples: Samples) -> None:
    """Checks that buckets are cumulative, and the last one is the count."""
    for (sample, labels), count in samples.items():
        if sample != f"{name}_count":
            continue
        buckets = _buckets(name, labels, samples)
        counts = [running for _, running in buckets]
        assert buckets == sorted(buckets), name
        assert counts == sorted(counts), name
        assert buckets[-1] == (float("inf"), count), name


def _buckets(name: str, labels: Labels, samples: Samples) -> list[tuple[float, float]]:
    """Bound and cumulative count of each bucket of one series."""
    buckets = []
    for (sample, own), running in samples.items():
        without_bound = tuple(pair for pair in own if pair[0] != "le")
        if sample == f"{name}_bucket" and without_bound == labels:
            buckets.append((float(dict(own)["le"]), running))
    return buckets
