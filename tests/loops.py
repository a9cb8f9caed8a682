"""Runs a coroutine in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_in_own_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine in a new thread, and gives its result, for synchronous tests."""
    # In this thread `asyncio.run` would drop the loop that Mangum set, which is then never closed.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
