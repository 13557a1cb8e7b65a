"""Framed messages over a pair of pipes, with a deadline and a limit on their size."""

from __future__ import annotations

import math
import os
import select
import struct
import time

from optograph.sandbox.inside.waiting import soon

_CHUNK = 1 << 16


class TooLarge(Exception):
    """A message announced more bytes than it may have."""


class Desynchronized(Exception):
    """More came than one message."""


class Channel:
    """The main process's end of a child's pipes.

    Args:
        requests: Descriptor to write to.
        replies: Descriptor to read from.
    """

    __slots__ = ("_readable", "_replies", "_requests")

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        os.set_blocking(requests, False)
        self._readable = select.poll()
        self._readable.register(replies, select.POLLIN)

    def send(self, payloads: list[bytes], deadline: float) -> None:
        """Write messages.

        Args:
            payloads: The messages.
            deadline: When to give up, by `time.monotonic`.

        Raises:
            TimeoutError: The other side did not take it in time.
            BrokenPipeError: The other side is gone.
        """
        data = b"".join([part for payload in payloads for part in (struct.pack("!I", len(payload)), payload)])
        sent = 0
        while True:
            try:
                sent += os.write(self._requests, data[sent:] if sent else data)
            except BlockingIOError:
                writable = select.poll()
                writable.register(self._requests, select.POLLOUT)
                if not writable.poll(_milliseconds(deadline)):
                    raise TimeoutError from None
            if sent == len(data):
                return

    def receive(self, limit: int, deadline: float, *, alone: bool = True) -> bytes:
        """Return the next message.

        Args:
            limit: Most bytes that it may have.
            deadline: When to give up, by `time.monotonic`.
            alone: Whether nothing may follow it yet.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The other side is gone.
            TooLarge: It announces more bytes than `limit`.
            Desynchronized: Something follows it that nobody asked for.
        """
        data = self._some(_CHUNK if alone else 4, deadline)
        while len(data) < 4:
            data += self._some(4 - len(data), deadline)
        size = int.from_bytes(data[:4], "big")
        if size > limit:
            raise TooLarge
        if len(data) < size + 4:
            parts, left = [data], size + 4 - len(data)
            while left:
                part = self._some(min(left, _CHUNK), deadline)
                parts.append(part)
                left -= len(part)
            data = b"".join(parts)
        if len(data) > size + 4:
            raise Desynchronized
        return data[4:]

    def _some(self, size: int, deadline: float) -> bytes:
        if not soon(self._readable) and not self._readable.poll(_milliseconds(deadline)):
            raise TimeoutError
        data = os.read(self._replies, size)
        if not data:
            raise EOFError
        return data

    def close(self) -> None:
        """Close both ends."""
        os.close(self._requests)
        os.close(self._replies)


def _milliseconds(deadline: float) -> int:
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))
