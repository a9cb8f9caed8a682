"""Publishes a release in a process killed at a message.

The process dies in the middle of its Nth message to S3 or Redis. One that is not killed says how
many messages there are, and which of them flips the pointer.

A message is what is given to a socket in one go. Half of the Nth leaves: S3 drops a request that is
cut short, and Redis runs those commands of a pipeline that have arrived.

Arguments: the bundle, the lists, N (0 for none).
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import socket
import sys
from pathlib import Path

from rich.console import Console

from shortlist.batch.progress import ProgressReporter
from shortlist.batch.publish import publish
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import redis

BUNDLE, LISTS, LAST = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
FLIP = redis._FLIP_UNDER_LEASE.encode()
sent, flips = itertools.count(1), []
whole, some = socket.socket.sendall, socket.socket.send


def count(self: socket.socket, data: bytes) -> None:
    """Counts the message; of the last one half is sent and no more."""
    number = next(sent)
    if FLIP in bytes(data):
        flips.append(number)
    if number == LAST:
        whole(self, memoryview(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)


def sendall(self: socket.socket, data: bytes) -> None:
    """As the socket's own, which S3's client calls."""
    count(self, data)
    whole(self, data)


def send(self: socket.socket, data: bytes, *flags: int) -> int:
    """As the socket's own, which Redis's client calls."""
    count(self, data)
    return some(self, data, *flags)


socket.socket.sendall = sendall  # type: ignore[method-assign]
socket.socket.send = send  # type: ignore[method-assign]
publish(BUNDLE, LISTS, Settings.from_env(os.environ), ProgressReporter(Console(file=io.StringIO())))
sys.stdout.write(f"{next(sent) - 1} {flips[-1]}\n")
