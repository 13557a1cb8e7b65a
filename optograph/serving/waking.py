"""Waking coroutines that wait on any event loop, from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


def wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    """Finish futures that coroutines wait for; those of a loop that has ended are passed over."""
    for future in waiting:
        try:
            future.get_loop().call_soon_threadsafe(_finish, future)
        except RuntimeError:  # its loop has ended, and with it whoever waited
            continue


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
