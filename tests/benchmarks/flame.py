"""Draws flame graphs of a cached answer, a live answer and precompute.

`make flames` runs it, after `make demo`, and writes docs/images/flame-*.svg. py-spy samples this
process from outside, which needs root, or kernel.yama.ptrace_scope=0.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from serving import DEMO, WARM_CALLS, answer, published, served, write_lists

from shortlist.batch import dataset_file
from shortlist.infra.local.runtime_api import http_event
from shortlist.recsys.models import bundle
from shortlist.recsys.models.pipeline import USERS_AT_ONCE

IMAGES = Path("docs/images")
SECONDS = 10
SAMPLES_A_SECOND = 250


def main() -> None:
    """Draws all graphs."""
    work = DEMO / "work"
    if not work.exists():
        raise SystemExit(f"there is no release in {DEMO}: run `make demo` first")
    dataset, loaded = dataset_file.load(work), bundle.load(work / "bundle")
    users = dataset.user_ids
    with published(work) as (settings, _):
        store, handler = served(settings)
        requests: dict[str, dict[str, object]] = {"cached": {}, "live": {"use_cache": False}}
        for name, more in requests.items():
            events = [http_event("POST", "/recommend", {"user_id": u, **more}) for u in users]
            draw(name, partial(answer, handler, events))
        store.close()
    blocks = [
        range(start, min(start + USERS_AT_ONCE, len(users)))
        for start in range(0, len(users), USERS_AT_ONCE)
    ]
    draw("precompute", lambda i: write_lists(loaded, dataset, blocks[i % len(blocks)]), warm=2)


def draw(name: str, call: Callable[[int], object], warm: int = WARM_CALLS) -> None:
    """Samples `call`, in a loop, into an image."""
    for i in range(warm):
        call(i)
    command = ["py-spy", "record", "--function", "--format", "flamegraph"]
    command += ["--pid", str(os.getpid()), "--duration", str(SECONDS)]
    command += ["--rate", str(SAMPLES_A_SECOND), "--output", str(IMAGES / f"flame-{name}.svg")]
    sampler = subprocess.Popen(command)
    for i in count():
        call(i)
        if sampler.poll() is not None:
            break
    if sampler.returncode:
        raise SystemExit(f"py-spy ended with {sampler.returncode}: it must be allowed to trace")


if __name__ == "__main__":
    main()
