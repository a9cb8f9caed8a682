"""Checks infra/monitoring's compose file, without a container engine."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.compose import schema_errors, unescaped, valkey_programs
from tests.prometheus import MONITORING

ROOT = MONITORING.parents[1]
TEXT = (MONITORING / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE: str = SERVICES["api"]["build"]["dockerfile_inline"]


def test_the_file_is_sound_compose() -> None:
    """The specification's own schema has nothing against it."""
    assert schema_errors(MONITORING / "docker-compose.yml") == ""


def test_ports_are_local_and_passwords_required() -> None:
    """Every port is bound to loopback, and compose requires passwords, without defaults."""
    assert set(SERVICES) == {"valkey", "api", "prometheus", "grafana"}
    assert all(
        port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service["ports"]
    )
    assert SERVICES["valkey"]["environment"]["VALKEY_PASSWORD"].startswith("${VALKEY_PASSWORD:?")
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith(
        "${GRAFANA_PASSWORD:?"
    )
    assert "${VALKEY_PASSWORD:?" in SERVICES["api"]["environment"]["REDIS_URL"]
    assert not re.search(r"\$\{\w+(:?-[^}]*)?\}", TEXT)


def test_every_image_is_pinned() -> None:
    """To a version, with its base; one that moves by itself would be another next month."""
    images = [service["image"] for service in SERVICES.values() if "image" in service] + re.findall(
        r"^FROM (\S+)", DOCKERFILE
    )
    assert len(images) == len(SERVICES)
    assert [
        image for image in images if not re.search(r":v?\d+\.\d+(\.\d+|-slim-\w+)", image)
    ] == []


def test_what_is_mounted_or_copied_exists() -> None:
    """Files of this repository, and declared volumes; the batch makes the artefacts."""
    mounted = [
        volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]
    ]
    files = [MONITORING / path for path in mounted if path.startswith("./")]
    copied = [
        ROOT / path
        for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
        for path in line.split()
    ]
    assert (len(files), len(copied)) == (4, 9)
    assert [path for path in files + copied if not path.exists()] == []
    assert {path for path in mounted if not path.startswith(".")} == set(COMPOSE["volumes"])


def test_services_find_each_other() -> None:
    """Whoever is called by name is a service, at the port where it listens."""
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0][
        "static_configs"
    ][0]["targets"]
    source = yaml.safe_load(
        (MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    redis_at = SERVICES["api"]["environment"]["REDIS_URL"].rpartition("@")[2]
    addresses = [*scraped, source["url"].removeprefix("http://"), redis_at]
    published = {
        f"{name}:{port.rsplit(':', 1)[1]}"
        for name, service in SERVICES.items()
        for port in service["ports"]
    }
    assert addresses == ["api:8000", "prometheus:9090", "valkey:6379"]
    assert set(addresses) <= published
    assert {name for service in SERVICES.values() for name in service.get("depends_on", [])} <= set(
        SERVICES
    )


def test_the_dashboards_lie_where_grafana_looks() -> None:
    """The provider's directory is mounted, and Prometheus finds its rules."""
    provider = yaml.safe_load(
        (MONITORING / "grafana/provisioning/dashboards/shortlist.yml").read_text()
    )["providers"][0]
    assert (
        f"./grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    )
    at = {
        Path(volume.split(":")[1]).name: Path(volume.split(":")[1]).parent
        for volume in SERVICES["prometheus"]["volumes"]
    }
    assert at["alerts.yml"] == at["prometheus.yml"]


@pytest.fixture
def programs(tmp_path) -> tuple[dict[str, str], int]:
    """Real `valkey-server` and `valkey-cli` on a free port: their environment, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"PATH": valkey_programs(tmp_path, port), "VALKEY_PASSWORD": "secret1"}, port


def test_valkey_starts_and_is_healthy(programs) -> None:
    """The service's command needs the password, is bounded, and passes its own health check."""
    environ, port = programs
    service = SERVICES["valkey"]
    kind, check = service["healthcheck"]["test"]
    command = [unescaped(part) for part in service["command"]]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("Ready to accept connections" in line for line in process.stdout or ())
            checks = [
                subprocess.run(
                    ["/bin/sh", "-c", unescaped(check)],
                    env=environ | {"VALKEY_PASSWORD": password},
                    check=False,
                )
                for password in ("secret1", "another")
            ]
            with redis.Redis(port=port, password="secret1") as client:  # noqa: S106 - of this test
                limits = client.config_get("maxmemory*")
        finally:
            process.terminate()
    assert (kind, [done.returncode for done in checks]) == ("CMD-SHELL", [0, 1])
    assert (limits["maxmemory"], limits["maxmemory-policy"]) == (str(2**30), "volatile-ttl")
