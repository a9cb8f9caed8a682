"""A cluster of Redis with TLS on this machine, as ElastiCache Serverless is one: for tests, where `redis-server` is installed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import trustme

SLOTS = 16384
NODES = 3
OLDEST = 7
"""Version of redis-server; older ones have no ADDSLOTSRANGE."""


def server() -> str | None:
    """A redis-server of version 7 or newer, or None; Debian's speaks TLS, an embedded Valkey does not."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603 - as found
    version = re.search(r"v=(\d+)", told)
    return found if version is not None and int(version[1]) >= OLDEST else None


def certificate(directory: Path) -> tuple[Path, Path]:
    """Writes a certificate of 127.0.0.1 with its authority, and its key; returns both paths."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    trusted, key = directory / "certificate.pem", directory / "key.pem"
    leaf.private_key_pem.write_to_path(key)
    # The chain and its authority in one file: servers present it, clients trust it.
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(trusted, append=True)
    authority.cert_pem.write_to_path(trusted, append=True)
    return trusted, key


@contextmanager
def cluster(executable: str, directory: Path) -> Iterator[str]:
    """The URL of a cluster of three nodes; what may connect trusts `directory`/certificate.pem."""
    made, key = certificate(directory)
    ports = _free_ports(2 * NODES)
    ports, buses = ports[:NODES], ports[NODES:]
    processes = [
        _node(executable, directory / str(port), (port, bus), made, key)
        for port, bus in zip(ports, buses, strict=True)
    ]
    try:
        _join(ports, buses, made)
        yield f"rediss://127.0.0.1:{ports[0]}?cluster=true&ssl_ca_certs={made}"
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _node(
    executable: str, directory: Path, ports: tuple[int, int], made: Path, key: Path
) -> subprocess.Popen[bytes]:
    directory.mkdir()
    options = {
        "port": 0,
        "tls-port": ports[0],
        "cluster-port": ports[1],
        "bind": "127.0.0.1",
        "tls-cert-file": made,
        "tls-key-file": key,
        "tls-ca-cert-file": made,
        "tls-auth-clients": "no",
        "tls-cluster": "yes",
        "tls-replication": "yes",
        "cluster-enabled": "yes",
        "cluster-node-timeout": 5000,
        "dir": directory,
        "save": "",
        "appendonly": "no",
    }
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen([executable, *arguments], stdout=subprocess.PIPE)  # noqa: S603 - as found
    for line in process.stdout or ():
        if b"Ready to accept connections" in line:
            return process
    raise RuntimeError(f"{executable} did not start with TLS: see its own message above")


def _join(ports: list[int], buses: list[int], made: Path) -> None:
    """Gives each node its share of the slots, acquaints them, and waits until each says that the cluster is whole."""
    nodes: list[Any] = [
        redis.Redis("127.0.0.1", port, ssl=True, ssl_ca_certs=str(made), decode_responses=True)
        for port in ports
    ]
    for number, node in enumerate(nodes):
        first, behind = number * SLOTS // NODES, (number + 1) * SLOTS // NODES
        node.execute_command("CLUSTER ADDSLOTSRANGE", first, behind - 1)
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], buses[number])
    for node in nodes:
        while not _whole(node.execute_command("CLUSTER INFO")):
            node.ping()
        node.close()


def _whole(info: dict[str, str]) -> bool:
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", str(NODES))
