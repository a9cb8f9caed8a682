"""Runs a Redis cluster, for tests and benchmarks.

ElastiCache Serverless is such a cluster, with TLS. It needs `redis-server`: an embedded Valkey has
no TLS.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import trustme

SLOTS = 16384
NODES = 3
MIN_VERSION = 7
"""Of redis-server; older ones have no ADDSLOTSRANGE."""


def server() -> str | None:
    """The path of a redis-server of version 7 or newer, or None."""
    executable = shutil.which("redis-server")
    if executable is None:
        return None
    command = [executable, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - from PATH
    version = re.search(r"v=(\d+)", done.stdout)
    is_new_enough = version is not None and int(version[1]) >= MIN_VERSION
    return executable if is_new_enough else None


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
def cluster(executable: str, directory: Path, *, tls: bool = True) -> Iterator[str]:
    """Yields the URL of a cluster of three nodes; clients trust `directory`/certificate.pem."""
    files = certificate(directory) if tls else None
    ports = _free_ports(2 * NODES)
    ports, buses = ports[:NODES], ports[NODES:]
    processes = [
        _node(executable, directory / str(port), (port, bus), files)
        for port, bus in zip(ports, buses, strict=True)
    ]
    try:
        trusted = {} if files is None else {"ssl": True, "ssl_ca_certs": str(files[0])}
        _join(ports, buses, trusted)
        if files is None:
            yield f"redis://127.0.0.1:{ports[0]}?cluster=true"
        else:
            yield f"rediss://127.0.0.1:{ports[0]}?cluster=true&ssl_ca_certs={files[0]}"
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
    executable: str, directory: Path, ports: tuple[int, int], files: tuple[Path, Path] | None
) -> subprocess.Popen[bytes]:
    """Starts a node. files: a certificate with its authority, and its key; None for no TLS."""
    directory.mkdir()
    options: dict[str, object] = {
        "port": 0 if files else ports[0],
        "cluster-port": ports[1],
        "bind": "127.0.0.1",
        "cluster-enabled": "yes",
        "cluster-node-timeout": 5000,
        "dir": directory,
        "save": "",
        "appendonly": "no",
    }
    if files is not None:
        options |= {
            "tls-port": ports[0],
            "tls-cert-file": files[0],
            "tls-key-file": files[1],
            "tls-ca-cert-file": files[0],
            "tls-auth-clients": "no",
            "tls-cluster": "yes",
            "tls-replication": "yes",
        }
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen([executable, *arguments], stdout=subprocess.PIPE)  # noqa: S603 - from PATH
    for line in process.stdout or ():
        if b"Ready to accept connections" in line:
            return process
    raise RuntimeError(f"{executable} did not start: see its own message above")


def _join(ports: list[int], buses: list[int], trusted: Mapping[str, Any]) -> None:
    """Shares the slots among the nodes, introduces them, and waits until each sees all others."""
    nodes: list[Any] = [
        redis.Redis("127.0.0.1", port, decode_responses=True, **trusted) for port in ports
    ]
    for number, node in enumerate(nodes):
        first, end = number * SLOTS // NODES, (number + 1) * SLOTS // NODES
        node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], buses[number])
    for node in nodes:
        while not _is_whole(node.execute_command("CLUSTER INFO")):
            node.ping()
        node.close()


def _is_whole(info: dict[str, str]) -> bool:
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", str(NODES))
