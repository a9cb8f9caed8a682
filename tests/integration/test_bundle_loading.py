"""Tests bundles that cannot be loaded.

They cost the requests of that moment, and never the process.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler import live as module
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import RELOAD_SECONDS, LivePath
from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    CorruptArtefact,
    InvalidSettings,
    LoadFailed,
    NoRoom,
)
from shortlist.recsys.models import bundle
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import release_files
from shortlist.recsys.store.artefacts_directory import DirectoryArtefacts
from shortlist.recsys.store.release_files import build_manifest

FAILURES: dict[str, Callable[[], BaseException]] = {
    "permission": lambda: PermissionError(13, "Permission denied", "index.faiss"),
    "full disk": lambda: OSError(28, "No space left on device"),
    "vanished": lambda: FileNotFoundError(2, "No such file or directory"),
    "memory": MemoryError,
    "a library's own": lambda: RuntimeError("Error in faiss::read_index"),
    "a bug": lambda: IndexError("list index out of range"),
    "an exit": lambda: SystemExit(1),
    "settings": lambda: InvalidSettings("SHORTLIST_ARTEFACTS='s3://' names no bucket"),
}


@dataclass
class Loading:
    """Stands in for the loading: raises what is planned, then loads."""

    planned: list[BaseException]
    tried: list[str] = field(default_factory=list)

    def __call__(self, settings: Settings, version: str) -> object:
        """As `_load`."""
        self.tried.append(version)
        if self.planned:
            raise self.planned.pop(0)
        return HONEST(settings, version)


HONEST = module._load


@dataclass
class Clock:
    """Moves when the test says so."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        """As `time.monotonic`."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """The process's clock."""
    return Clock()


@pytest.fixture
def live(published, clock: Clock) -> LivePath:
    """A process that has loaded nothing yet."""
    return LivePath(published.settings, clock=clock)


def plan(monkeypatch: pytest.MonkeyPatch, *errors: BaseException) -> Loading:
    """These errors come first."""
    loading = Loading(list(errors))
    monkeypatch.setattr(module, "_load", loading)
    return loading


@pytest.mark.parametrize("kind", FAILURES)
def test_one_failure(published, live: LivePath, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whatever it was, one request is refused with the reason, and the next one is answered."""
    plan(monkeypatch, FAILURES[kind]())
    with pytest.raises(LoadFailed, match=f"the bundle of {published.version} could not be loaded"):
        live.info(published.version)
    assert live.info(published.version)["version"] == published.version


@pytest.mark.parametrize("kind", FAILURES)
def test_lasting_failure(
    published, live: LivePath, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """From the second failure on it is tried every few seconds; then it heals by itself."""
    loading = plan(monkeypatch, *(FAILURES[kind]() for _ in range(3)))
    for _ in range(10):
        with pytest.raises(LoadFailed):
            live.info(published.version)
    assert len(loading.tried) == 2
    clock.seconds += RELOAD_SECONDS
    with pytest.raises(LoadFailed):
        live.info(published.version)
    clock.seconds += RELOAD_SECONDS
    assert live.info(published.version)["version"] == published.version


@pytest.mark.parametrize(
    "error", [ArtefactsUnavailable("S3 is away"), CorruptArtefact("another sha256")]
)
def test_store_failure(
    published, live: LivePath, clock: Clock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What costs a download or the reading of all files is not tried at each request."""
    loading = plan(monkeypatch, error)
    for _ in range(3):
        with pytest.raises(type(error), match=str(error)):
            live.info(published.version)
    assert len(loading.tried) == 1
    clock.seconds += RELOAD_SECONDS
    assert live.info(published.version)["version"] == published.version


def test_unreadable_file(published, live: LivePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the disk refuses is reported with its path; the next request reads it."""
    honest, refusals = release_files._check_file, [PermissionError(13, "Permission denied")]

    def refusing(*args: Any) -> None:
        if refusals:
            raise refusals.pop()
        honest(*args)

    monkeypatch.setattr(release_files, "_check_file", refusing)
    with pytest.raises(
        LoadFailed, match=r"cannot be read .*Permission denied.*mend its permissions"
    ):
        live.info(published.version)
    assert live.info(published.version)["version"] == published.version


def test_two_failing_releases(published, live: LivePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary's failure does not erase the serving release's failure, nor the reverse."""
    loading = plan(monkeypatch, *(CorruptArtefact("broken") for _ in range(9)))
    for _ in range(3):
        for version in ("serving", "canary"):
            with pytest.raises(CorruptArtefact):
                live.info(version)
    assert loading.tried == ["serving", "canary"]


def test_failures_do_not_gather_frames(
    published, live: LivePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that refuses for hours raises a new error each time, not one that grows."""
    plan(monkeypatch, CorruptArtefact("broken"))

    def frames() -> int:
        with pytest.raises(CorruptArtefact) as caught:
            live.info(published.version)
        return len(caught.traceback)

    frames()
    assert {frames() for _ in range(20)} == {frames()}


def test_no_thread(published, live: LivePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without another thread refuses one request, and not all that follow."""

    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(LoadFailed, match="can't start new thread"):
            live.info(published.version)
    assert live.info(published.version)["version"] == published.version


def test_waiting_for_one_while_another_fails(
    published, live: LivePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests for two releases at once: the failure of the one is not the outcome of the other."""
    entered, go = threading.Event(), threading.Event()

    def loading(settings: Settings, version: str) -> object:
        if version == "broken":
            entered.set()
            go.wait(30)
            raise CorruptArtefact("broken")
        return HONEST(settings, version)

    monkeypatch.setattr(module, "_load", loading)
    outcomes: dict[str, object] = {}

    def ask(version: str) -> None:
        try:
            outcomes[version] = live.info(version)["version"]
        except CorruptArtefact as error:
            outcomes[version] = str(error)

    first = threading.Thread(target=ask, args=("broken",))
    first.start()
    entered.wait(30)
    second = threading.Thread(target=ask, args=(published.version,))
    second.start()
    go.set()
    first.join()
    second.join()
    assert outcomes == {"broken": "broken", published.version: published.version}
    assert live.info(published.version)["version"] == published.version


def test_too_little_memory_beside_another(
    published, live: LivePath, release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two bundles are too many, the one that is loaded makes way."""
    live.info(published.version)
    for error in (MemoryError(), NoRoom("the disk is full")):
        loading = plan(monkeypatch, error)
        live._loaded.setdefault("older", next(iter(live._loaded.values())))
        live._loaded.pop(published.version, None)
        assert live.info(published.version)["version"] == published.version
        assert (loading.tried, list(live._loaded)) == ([published.version] * 2, [published.version])


def test_least_recently_used_goes(
    published, live: LivePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bundles are kept: the third takes the place of the one that was not used."""
    loaded = HONEST(published.settings, published.version)
    monkeypatch.setattr(module, "_load", lambda *_: loaded)
    for version in ("serving", "old canary", "serving", "new canary"):
        live.info(version)
    assert list(live._loaded) == ["serving", "new canary"]


@pytest.mark.parametrize("kind", ["permission", "memory"])
def test_answers(published, own, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Over HTTP: flagged popular items and 503 while it fails, then the live answer."""
    settings, store = own
    client = TestClient(create_app(settings, store, LivePath(settings)))
    item = published.dataset.catalogue.ids[3]
    honest, refusals = bundle.read, [FAILURES[kind]()]

    def refusing(release: Any) -> bundle.Bundle:
        if refusals:
            raise refusals.pop()
        return honest(release)

    monkeypatch.setattr(bundle, "read", refusing)
    first = client.post("/recommend", json={"user_id": "new", "history": [item]}).json()
    assert (first["source"], first["degraded"]) == ("popular", True)
    second = client.post("/recommend", json={"user_id": "new", "history": [item]}).json()
    assert (second["source"], second["degraded"]) == ("session", False)


def test_route_without_another_source(published, own, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and then the answer."""
    settings, store = own
    client = TestClient(create_app(settings, store, LivePath(settings)))
    plan(monkeypatch, PermissionError(13, "Permission denied"))
    path = f"/v1/items/{published.dataset.catalogue.ids[3]}/similar"
    refused = client.get(path)
    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
    assert client.get(path).status_code == 200


def test_manifest_with_nan(published, release) -> None:
    """A figure that is no number is null in the model's description, not an error."""
    made, _ = release("odd")
    fields = json.loads((made / "manifest.json").read_text())
    fields.pop("files")
    fields["metrics"]["two_stage"]["ndcg@10"]["value"] = float("nan")
    build_manifest(made, **fields)
    place = replace(published.settings, artefacts=str(made.parent / "place"))
    DirectoryArtefacts(made.parent / "place").publish(made)
    assert LivePath(place).info("odd")["metrics"]["two_stage"]["ndcg@10"]["value"] is None
