"""Runs what compose.yaml starts, without a container engine.

Its services' own commands run with their own environment. What the engine would provide is put in:
the volumes' directories, the services' names and the port.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import polars as pl
import pytest
import yaml

from tests.compose import schema_errors, unescaped, valkey_programs
from tests.exports import write_export
from tests.servers import SMALL
from tests.smallest import smallest_config

ROOT = Path(__file__).parents[2]
FILE = ROOT / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "infra" / "batch" / "Dockerfile").read_text()
GUIDE = (ROOT / "docs" / "containers.md").read_text()
ADMIN_KEY = "0123456789abcdef"
SECONDS = 120.0
"""Timeout after which a test fails rather than hangs."""


def test_the_file_is_sound_compose(tmp_path) -> None:
    """The specification's schema has nothing against it, and refuses a misspelt key."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("healthcheck:", "healtcheck:"))
    assert (schema_errors(FILE), "healtcheck" in schema_errors(wrong)) == ("", True)


def test_only_the_api_has_a_local_port() -> None:
    """Nothing else is published, and the API to this machine alone."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"api": ["127.0.0.1:8000:8000"]}


def test_whoever_may_promote_needs_a_key() -> None:
    """Compose refuses to start without an admin key; no default stands in the file."""
    assert SERVICES["api"]["environment"]["SHORTLIST_ADMIN_KEY"].startswith(
        "${SHORTLIST_ADMIN_KEY:?"
    )
    assert not re.search(r"\$\{\w+(:?-[^}]*)?\}", FILE.read_text())


def test_images_are_pinned_or_built_here() -> None:
    """Valkey's by its version; ours from the Dockerfile of the deployment."""
    assert re.fullmatch(r"valkey/valkey:\d+\.\d+\.\d+-alpine", SERVICES["valkey"]["image"])
    for name in ("api", "batch"):
        build = SERVICES[name]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()
        assert SERVICES[name]["platform"] == "linux/amd64"


def test_the_image_owns_what_it_writes() -> None:
    """A new volume takes the owner of the directory that the image has at its place."""
    [writable] = re.findall(r"mkdir (\S+) && chown shortlist", DOCKERFILE)
    for name in ("api", "batch"):
        service = SERVICES[name]
        assert f"work:{writable}" in service["volumes"]
        assert service["environment"]["SHORTLIST_ARTEFACTS"].startswith(f"{writable}/")
    assert set(COMPOSE["volumes"]) == {"work", "valkey"}


def test_valkey_keeps_what_serves() -> None:
    """Its policy is one that the publication accepts, and it saves to its volume."""
    command = " ".join(SERVICES["valkey"]["command"])
    assert "--maxmemory-policy volatile-ttl" in command
    assert ("--save 60 1" in command, SERVICES["valkey"]["volumes"]) == (True, ["valkey:/data"])


class Engine:
    """Starts services as an engine would, in a directory of this machine."""

    def __init__(self, directory: Path) -> None:
        with contextlib.ExitStack() as free:
            listeners = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "12"]
            self.valkey, self.api = [listener.getsockname()[1] for listener in listeners]
        self._directory = directory
        for volume in ("data", "work", "valkey"):
            (directory / volume).mkdir()
        self._path = valkey_programs(directory / "valkey", self.valkey)

    def place(self, text: str) -> str:
        """A word of the file, with this machine's names for the engine's."""
        here = {
            "/data": f"{self._directory}/data",
            "/work": f"{self._directory}/work",
            "valkey:6379": f"127.0.0.1:{self.valkey}",
            "8000": str(self.api),
        }
        pattern = rf"(?<!\w)({'|'.join(map(re.escape, here))})"
        return re.sub(pattern, lambda match: here[match[0]], unescaped(text))

    def environ(self, service: str) -> dict[str, str]:
        """What a service sees; the sizes are a small world's, and the key is in the file .env."""
        own = {
            name: self.place(value)
            for name, value in SERVICES[service].get("environment", {}).items()
        }
        if "SHORTLIST_ADMIN_KEY" in own:
            own["SHORTLIST_ADMIN_KEY"] = ADMIN_KEY
        return {"PATH": self._path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | SMALL | own

    def start(self, service: str, arguments: list[str] | None = None) -> subprocess.Popen[str]:
        """A service's process; its command may be replaced, as `run` does."""
        command = [self.place(word) for word in arguments or SERVICES[service]["command"]]
        if service != "valkey":  # the image's entry point
            command = [sys.executable, "-m", "shortlist", *command]
        return subprocess.Popen(
            command,
            cwd=self._directory / "work",
            env=self.environ(service),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, service: str, arguments: list[str]) -> str:
        """What a service prints that ends by itself, and well."""
        learn = [*SERVICES[service]["command"], "--config", str(smallest_config(self._directory))]
        process = self.start(service, arguments or learn)
        said = process.communicate(timeout=SECONDS)[0]
        assert process.returncode == 0, said
        return str(said)

    @contextlib.contextmanager
    def up(self, service: str, ready: str) -> Iterator[None]:
        """A service that goes on; ready: what it says when it is."""
        with self.start(service) as process:
            reader = None
            try:
                assert any(ready in line for line in process.stdout or ()), service
                assert process.stdout is not None
                reader = threading.Thread(target=process.stdout.read)  # the pipe never fills
                reader.start()
                yield
            finally:
                process.terminate()
                if reader is not None:
                    reader.join()

    def healthy(self, service: str) -> bool:
        """Whether a service passes its own health check."""
        kind, *check = SERVICES[service]["healthcheck"]["test"]
        words = [self.place(word) for word in check]
        is_shell = kind == "CMD-SHELL"
        done = subprocess.run(
            ["/bin/sh", "-c", *words] if is_shell else [sys.executable, *words[1:]],
            env=self.environ(service),
            check=False,
            capture_output=True,
        )
        return done.returncode == 0


@pytest.fixture
def engine(tmp_path, tables) -> Engine:
    """With a small export in ./data."""
    made = Engine(tmp_path)
    write_export(tables, tmp_path / "data")
    return made


def guided() -> list[tuple[str, list[str]]]:
    """The guide's calls of compose: the service, and the arguments in place of its command."""
    blocks = re.findall(r"<!-- run: containers -->\n```sh\n(.*?)```", GUIDE, re.DOTALL)
    calls = []
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)
        assert words[:2] == ["docker", "compose"], line
        rest = [word for word in words[3:] if word not in ("--rm", "--detach")]
        calls.append((rest[0], rest[1:]))
    return calls


def test_the_guide_leads_to_answers(engine, tables) -> None:
    """Each call of docs/containers.md runs; then lists are served, and the studio to the key."""
    calls = guided()
    assert [service for service, _ in calls[:3]] == ["batch", "batch", "api"]
    with engine.up("valkey", "Ready to accept connections"):
        assert engine.healthy("valkey")
        for service, arguments in calls:
            if service == "batch":
                engine.run(service, arguments)
        with engine.up("api", "Uvicorn running"):
            user = pl.read_parquet(tables / "interactions.parquet")["user_id"][0]
            address = f"http://127.0.0.1:{engine.api}/v1/users/{user}/recommendations?k=3"
            assert json.loads(text_of(address))["source"] == "batch"
            assert engine.healthy("api")
            assert "<title>" in text_of(f"http://127.0.0.1:{engine.api}/")
            facts = f"http://127.0.0.1:{engine.api}/studio/api/overview"
            with pytest.raises(HTTPError, match=r"40[13]"):
                text_of(facts)
            overview = json.loads(text_of(facts, {"X-Shortlist-Admin-Key": ADMIN_KEY}))
            assert overview["n_users"] > 0
        assert not engine.healthy("api")


def text_of(address: str, headers: dict[str, str] | None = None) -> str:
    """What an address of this machine answers."""
    with urlopen(Request(address, headers=headers or {})) as answer:  # noqa: S310 - loopback
        return str(answer.read().decode())
