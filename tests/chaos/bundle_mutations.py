"""Damages a bundle's files, with matching checksums.

Damage is drawn from a seed. An attacker who can write to the artefact store could do the same. A
campaign: `python tests/chaos/bundle_mutations.py BUNDLE SEED COUNT`. COUNT times it mutates a copy,
loads it in a worker process and asks for recommendations. It prints the outcomes by file as JSON,
and each worker that died, hung or raised another exception with its seed.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY_BYTES = 3 << 30
"""Limit of a worker's address space; the libraries alone map 1 GiB."""

PATIENCE_SECONDS = 120
"""Time for one case. Loading takes less than a second, but the machine may be busy."""

# A table is easier to read than one value per line.
# fmt: off
NUMBERS = (
    b"0", b"-1", b"1", b"2147483647", b"-2147483648", b"99999999999999999999", b"1e308", b"nan",
    b"1e-320", b"",
)
WORDS = (
    b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f",
    b"\x01\x00\x00\x00",
)
"""Four bytes, among them the largest int32, and infinity and NaN as float32."""

EXTREMES = (math.nan, math.inf, -math.inf, 1e38, -1e38, 9e3, -1.0, 0.0)

LENGTHS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xff" * 8,
    b"\xdc\xff\xff",
)
"""Headers of msgpack arrays, maps and bytes that announce far more than follows, and a uint64."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 10**400, 1e308, float("nan"), "", "x" * 1000, [], {}, [[]],
    {"a": {}},
)
# fmt: on


def flip_bits(body: bytes, rng: random.Random) -> bytes:
    """Flips one to eight bits."""
    out = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_head(body: bytes, rng: random.Random) -> bytes:
    """Flips bits among the first bytes, where headers are."""
    return flip_bits(body[:256], rng) + body[256:]


def flip_tail(body: bytes, rng: random.Random) -> bytes:
    """Flips bits among the last bytes, where archives keep their directory."""
    at = max(0, len(body) - 1024)
    return body[:at] + flip_bits(body[at:], rng)


def cut(body: bytes, rng: random.Random) -> bytes:
    """Removes the end."""
    return body[: rng.randrange(len(body) + 1)]


def extend(body: bytes, rng: random.Random) -> bytes:
    """Appends bytes."""
    return body + rng.randbytes(rng.choice((1, 4, 1000)))


def move(body: bytes, rng: random.Random) -> bytes:
    """Copies a piece to another place, and overwrites bytes there or inserts it."""
    if len(body) < 4:
        return body
    start, size = rng.randrange(len(body)), rng.choice((4, 16, 200))
    at = rng.randrange(len(body))
    return body[:at] + body[start : start + size] + body[at + (size if rng.random() < 0.7 else 0) :]


def set_word(body: bytes, rng: random.Random) -> bytes:
    """Sets four aligned bytes to an extreme number."""
    if len(body) < 8:
        return body
    at = 4 * rng.randrange(len(body) // 4)
    return body[:at] + rng.choice(WORDS) + body[at + 4 :]


def set_number(body: bytes, rng: random.Random) -> bytes:
    """Replaces a decimal number, as in a text or in an npy header."""
    searched = body[: 1 << 16] if rng.random() < 0.5 else body
    matches = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", searched))
    if not matches:
        return flip_bits(body, rng)
    chosen = rng.choice(matches)
    other = rng.choice((*NUMBERS, str(rng.randrange(200)).encode(), b"-%d" % rng.randrange(200)))
    return body[: chosen.start()] + other + body[chosen.end() :]


def set_line(body: bytes, rng: random.Random) -> bytes:
    """Removes, doubles or swaps a line."""
    lines = body.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], rng.choice((lines[at], lines[other], b""))
    return b"\n".join(lines)


def grow_header(body: bytes, rng: random.Random) -> bytes:
    """Writes a huge length, as of msgpack, FAISS or npy."""
    size = rng.choice(LENGTHS)
    at = rng.choice((0, rng.randrange(min(len(body), 200) + 1)))
    return body[:at] + size * rng.choice((1, 1, 100)) + body[at + len(size) :]


def set_values(body: bytes, rng: random.Random) -> bytes:
    """Rewrites an archive, one array of which has another value, shape or type."""
    import numpy as np

    try:
        arrays = dict(np.load(io.BytesIO(body), allow_pickle=False))
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        return flip_bits(body, rng)
    name = rng.choice(sorted(arrays))
    kind = rng.randrange(4) if arrays[name].dtype.kind == "f" else 3
    if kind == 3:
        del arrays[name]
    else:
        with np.errstate(all="ignore"):
            arrays[name] = _mutated_array(arrays[name].copy(), kind, rng)
    out = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.1 else np.savez)(out, **arrays)
    return out.getvalue()


def _mutated_array(array: Any, kind: int, rng: random.Random) -> Any:
    """Changes a value (kind 0), the type (1) or the shape (2) of an array."""
    if kind == 0 and array.size:
        flat = array.reshape(-1)
        flat[rng.randrange(len(flat))] = rng.choice(EXTREMES)
        return array
    if kind == 1:
        return array.astype(rng.choice(("<f8", "<i4", "<f2", ">f4", "<c8", "U3")))
    if kind == 2:
        return rng.choice((array[:-1], array[None], array.reshape(-1), array.T, array[:0]))
    return array


def set_in_tree(body: bytes, rng: random.Random) -> bytes:
    """Replaces a value of a tree in ranker.txt, and `tree_sizes` to match."""
    head, tree, rest = body.partition(b"\nTree=0\n")
    trees, end, tail = (tree + rest).partition(b"end of trees\n")
    parts = re.split(rb"(?=Tree=\d+\n)", trees[1:])[1:]
    if not parts:
        return set_number(body, rng)
    at = rng.randrange(len(parts))
    lines = parts[at].split(b"\n")
    chosen = rng.randrange(min(len(lines), 20))
    mutation = rng.choice((set_number, set_number, set_number, flip_bits, cut))
    lines[chosen] = mutation(lines[chosen], rng)
    parts[at] = b"\n".join(lines)
    sizes = b" ".join(str(len(part)).encode() for part in parts)
    head = re.sub(rb"tree_sizes=[\d ]*", b"tree_sizes=" + sizes, head)
    return head + b"\n" + b"".join(parts) + end + tail


FILE_MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "towers.npz": set_values,
    "items.npz": set_values,
    "ranker.txt": set_in_tree,
}
"""Mutations of one file. The general ones mostly break its outer checksum; these get past it."""

MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_head,
    flip_tail,
    cut,
    extend,
    move,
    set_word,
    set_number,
    set_number,
    set_line,
    grow_header,
)


def mutate_manifest(manifest: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Removes, renames or replaces a field of the manifest."""
    out: dict[str, Any] = json.loads(json.dumps(manifest))
    target: Any = out if rng.random() < 0.6 else out["files"]
    if rng.random() < 0.3:
        target = out["files"][rng.choice(sorted(out["files"]))]
    name = rng.choice(sorted(target))
    kind = rng.random()
    if kind < 0.2:
        del target[name]
    elif kind < 0.3:
        other = rng.choice(("../x", "", "a\x00b", "x" * 500, "manifest.json", ".hidden"))
        target[other] = target[name]
    else:
        target[name] = rng.choice(VALUES)
    return out


@dataclass(frozen=True)
class Case:
    """A mutation of a bundle. name: its file; how: name of the function."""

    seed: str
    name: str
    how: str


def mutate(directory: Path, seed: str) -> Case:
    """Damages one file of a bundle, or its manifest, in place.

    The manifest gets the checksums of the damaged files.
    """
    rng = random.Random(seed)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    names = [name for name in sorted(manifest["files"]) if name != "report.html"]
    name = rng.choice((*names, "manifest.json", "ranker.txt"))
    if name == "manifest.json" and rng.random() < 0.8:
        path.write_text(json.dumps(mutate_manifest(manifest, rng)))
        return Case(seed, name, "mutate_manifest")
    how = (
        FILE_MUTATIONS[name]
        if name in FILE_MUTATIONS and rng.random() < 0.6
        else rng.choice(MUTATIONS)
    )
    body = (directory / name).read_bytes()
    for _ in range(rng.choice((1, 1, 1, 3))):
        body = how(body, rng)
    (directory / name).write_bytes(body)
    if name != "manifest.json":
        from shortlist.recsys.store.release_files import sha256_of

        manifest["files"][name] = {"size": len(body), "sha256": sha256_of(directory / name)}
        path.write_text(json.dumps(manifest))
    return Case(seed, name, how.__name__)


def attempt(directory: Path) -> str:
    """Loads a bundle as the API does, and asks it for recommendations.

    Gives "refused", or "answered", or "an unsound answer".
    """
    from shortlist.recsys.errors import BrokenRelease

    try:
        is_sound = _answers_soundly(directory)
    except BrokenRelease:
        return "refused"
    return "answered" if is_sound else "an unsound answer"


def _answers_soundly(directory: Path) -> bool:
    """Whether all answers are non-empty lists of different items with finite scores."""
    from dataclasses import replace

    from shortlist.lambda_handler import live
    from shortlist.lambda_handler.answers import Filters, Options
    from shortlist.recsys.settings import Settings
    from shortlist.recsys.store.records import UserRecord

    settings = replace(Settings.from_env({}), artefacts=str(directory.parent))
    path = live.LivePath(settings)
    loaded = path._bundle(directory.name)
    ids = loaded.bundle.catalogue.ids
    known = UserRecord(
        tuple(ids[:5]), (1, 2, 3, 4, 5), (1.0, None, 5.0, 2.0, 3.0), 5, (), {"age": 30}
    )
    version, every = directory.name, Filters()
    answers = [
        path.recommend(version, user, 10, every, options)
        for user in (known, UserRecord())
        for options in (Options(), Options(diversity=0.5, explain=True))
    ]
    answers += [
        path.popular(version, 10, every),
        path.trending(version, 10, every),
        path.similar(version, ids[0], 10, every),
        path.rank(version, known, ids[:8], every),
    ]
    json.dumps(path.info(version), allow_nan=False)
    return all(_is_sound(answer) for answer in answers)


def _is_sound(answer: Any) -> bool:
    ids = [item.id for item in answer.items]
    scores = (*answer.scores, *answer.retrieval)
    return len(set(ids)) == len(ids) > 0 and all(map(math.isfinite, scores))


def campaign(bundle: Path, seed: int, count: int) -> Iterator[tuple[Case, str]]:
    """Each case with its outcome: "refused", "answered", or a description of the problem."""
    with tempfile.TemporaryDirectory() as work:
        version = json.loads((bundle / "manifest.json").read_text())["version"]
        copy = Path(work) / version
        worker = _Worker(copy)
        try:
            for number in range(count):
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(bundle, copy)
                case = mutate(copy, f"{seed}-{number}")
                outcome = worker.outcome()
                if outcome not in ("refused", "answered"):
                    worker.stop()
                    worker = _Worker(copy)
                yield case, outcome
        finally:
            worker.stop()


class _Worker:
    """A process that loads one directory repeatedly, with a limit on its memory."""

    def __init__(self, directory: Path) -> None:
        environ = os.environ | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(Path.cwd()),
        }
        command = [sys.executable, __file__, "--worker", str(directory)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environ
        )

    def outcome(self) -> str:
        """Loads the directory, and gives the outcome, or how the process died."""
        import select

        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018 - both are pipes
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return f"died with {self._process.wait()}"
        if not select.select([self._process.stdout], [], [], PATIENCE_SECONDS)[0]:
            return "hung"
        line = self._process.stdout.readline().strip()
        return line or f"died with {self._process.wait()}"

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()


def work(directory: Path) -> None:
    """Runs a worker: writes an outcome for each line that it reads."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("error")  # an overflow in the arithmetic is a finding
    for _ in sys.stdin:
        try:
            outcome = attempt(directory)
        except BaseException as error:  # noqa: BLE001 - any exception of another kind is a finding
            outcome = f"raised {type(error).__name__}: {str(error)[:200]!r} at {_where(error)}"
        sys.stdout.write(outcome.replace("\n", " ") + "\n")
        sys.stdout.flush()


def _where(error: BaseException) -> str:
    """File and line where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def main() -> None:
    """Runs a campaign, or a worker of one."""
    if sys.argv[1] == "--worker":
        work(Path(sys.argv[2]))
        return
    bundle, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    outcomes: dict[str, Counter[str]] = {}
    for case, outcome in campaign(bundle, seed, count):
        known = outcome if outcome in ("refused", "answered") else "wrong"
        outcomes.setdefault(case.name, Counter())[known] += 1
        if known == "wrong":
            sys.stderr.write(f"{case}: {outcome}\n")
    sys.stdout.write(json.dumps(outcomes, indent=2) + "\n")


if __name__ == "__main__":
    main()
