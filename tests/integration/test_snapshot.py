"""Tests the hooks of SnapStart, with a fork in place of a restored snapshot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = """
before, after = [], []

def register_before_snapshot(function, *args, **kwargs):
    before.append((function, args, kwargs))

def register_after_restore(function, *args, **kwargs):
    after.append((function, args, kwargs))
"""
"""Stands in for the module of hooks that Lambda's runtime has."""

PROGRAM = """
import json, os, random, socket, sys
import snapshot_restore_py as runtime
from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler.handler import handler

class Context:
    aws_request_id = "restored"

def answer(**more):
    event = http_event("POST", "/recommend", {"user_id": sys.argv[1], **more})
    return json.loads(handler(event, Context())["body"])

def connections():
    # Inodes of the sockets that lead to another process: those of Redis.
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as opened:
                if opened.getpeername():
                    inodes.add(os.fstat(opened.fileno()).st_ino)
        except OSError:
            pass  # a file, or the directory that is read here
    return inodes

def facts(**more):
    body = answer(**more)
    new = sorted(set(sys.modules) - prepared)
    return {
        "source": body["source"],
        "id": body["recommendation_id"],
        "chance": [random.random(), live._sampler._rng.random()],
        "connections": sorted(connections()),
        "imported": [name for name in new if name.partition(".")[0] in ("faiss", "boto3")],
    }

live = runtime.after[0][1][-1]
for function, args, kwargs in reversed(runtime.before):
    function(*args, **kwargs)
prepared, state = set(sys.modules), random.getstate()
out = {"prepared": sorted(prepared & {"faiss", "shortlist.lambda_handler.live"})}
out["at_rest"] = sorted(connections())
out["shared"] = facts()["connections"]  # a connection that copies would share
copies = []
for _ in range(2):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        random.setstate(state)  # Python seeds it anew after a fork, but not after a snapshot
        for function, args, kwargs in runtime.after:
            function(*args, **kwargs)
        os.write(write, json.dumps(facts(use_cache=False)).encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    copies.append(json.loads(os.read(read, 1 << 16)))
out["copies"], out["later"] = copies, facts()
print(json.dumps(out), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def restored(published, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process tells of itself before a snapshot, in two copies, and later."""
    runtime = tmp_path_factory.mktemp("runtime")
    (runtime / "snapshot_restore_py.py").write_text(RUNTIME)
    path = os.pathsep.join([str(runtime), str(Path(__file__).parents[2])])
    environ = os.environ | published.environ | {"PYTHONPATH": path}
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    command = [sys.executable, "-c", PROGRAM, user]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


def test_snapshot_has_the_live_path(restored) -> None:
    """It is imported before the snapshot, and nothing is read from Redis then."""
    assert restored["prepared"] == ["faiss", "shortlist.lambda_handler.live"]
    assert restored["at_rest"] == []


def test_first_live_answer_imports_nothing(restored) -> None:
    """A copy answers from the models at once, without importing the heavy libraries."""
    for copy in restored["copies"]:
        assert (copy["source"], copy["imported"]) == ("live", [])


def test_copies_share_no_connection(restored) -> None:
    """Each opens its own, and that of the first process goes on."""
    first, second = (set(copy["connections"]) for copy in restored["copies"])
    shared = set(restored["shared"])
    assert min(map(len, (first, second, shared))) > 0
    assert first.isdisjoint(shared)
    assert second.isdisjoint(shared | first)
    assert set(restored["later"]["connections"]) == shared
    assert restored["later"]["source"] == "batch"


def test_copies_differ_by_chance(restored) -> None:
    """Their ids and random numbers are not the same."""
    first, second = restored["copies"]
    assert first["id"] != second["id"]
    for one, other in zip(first["chance"], second["chance"], strict=True):
        assert one != other


def test_s3_is_opened_before(published, s3_environ, bucket, tmp_path) -> None:
    """With bundles in S3 its client, too, is imported before the snapshot."""
    (tmp_path / "snapshot_restore_py.py").write_text(RUNTIME)
    code = """
import sys
import snapshot_restore_py as runtime
import shortlist.lambda_handler.handler
assert "botocore.client" not in sys.modules
for function, args, kwargs in reversed(runtime.before):
    function(*args, **kwargs)
assert "botocore.client" in sys.modules
"""
    place = {"SHORTLIST_ARTEFACTS": f"s3://{bucket}/artefacts", "PYTHONPATH": str(tmp_path)}
    environ = os.environ | published.environ | s3_environ | place
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
