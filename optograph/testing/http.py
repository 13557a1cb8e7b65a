"""A small HTTP/1.1 server on asyncio streams of bytes, which can also break off, drip and hang on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

JsonObject = dict[str, Any]
Ending = Literal["keep", "close", "reset", "hang"]

_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came.

    Attributes:
        method: Such as ``"POST"``.
        path: Path with query.
        headers: Values by lower-case name.
        content: The body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes over the wire, in pieces.

    Attributes:
        parts: Bytes to send, in order, the head first.
        pause_s: Wait between two parts, in seconds.
        ending: What follows: the connection is kept, closed, reset, or left without a word (``"hang"``).
        delay_s: Wait before the first part, in seconds.
    """

    parts: tuple[bytes, ...]
    pause_s: float = 0.0
    ending: Ending = "keep"
    delay_s: float = 0.0


class Connection(asyncio.Protocol):
    """One client's connection: reads requests, hands them on, sends replies.

    Args:
        handle: Called with every request and this connection; sooner or later it calls `send`.
    """

    def __init__(self, handle: Callable[[HttpRequest, Connection], None]) -> None:
        self._handle = handle
        self._buffer = bytearray()
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport; replies under way end."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take in bytes, and hand on the request when it is whole."""
        self._buffer += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        stop = end + 4 + int(headers.get("content-length", "0"))
        if len(self._buffer) < stop:
            return
        method, path, _ = first.split(" ", 2)
        content = bytes(self._buffer[end + 4 : stop])
        del self._buffer[:stop]
        self._busy = True
        self._handle(HttpRequest(method, path, headers, content), self)

    def send(self, reply: Reply) -> None:
        """Send a reply, now or after its delay; the client may be gone."""
        if reply.delay_s > 0:
            self._loop.call_later(reply.delay_s, self._send_from, reply, 0)
        else:
            self._send_from(reply, 0)

    def _send_from(self, reply: Reply, start: int) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if reply.pause_s > 0 and start < len(reply.parts):
            transport.write(reply.parts[start])
            self._loop.call_later(reply.pause_s, self._send_from, reply, start + 1)
            return
        transport.write(b"".join(reply.parts[start:]))
        if reply.ending == "close":
            transport.close()
        elif reply.ending == "reset":
            connected: socket.socket = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif reply.ending == "keep":
            self._busy = False
            self._next()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


def head(
    status: int, length: int | None, kind: str = "application/json", more: Mapping[str, str] | None = None
) -> bytes:
    """Write the head of a response; without a length the body is sent in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    extra = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items())
    return (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\nContent-Type: {kind}\r\n{size}\r\n{extra}\r\n".encode()
    )


def chunk(content: bytes) -> bytes:
    """Write one chunk of a body that is sent in chunks; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def json_reply(
    data: JsonObject, status: int = 200, more: Mapping[str, str] | None = None, *, delay_s: float = 0.0
) -> Reply:
    """Make a reply of JSON data."""
    content = json.dumps(data).encode()
    return Reply((head(status, len(content), more=more), content), delay_s=delay_s)


def error_reply(status: int, message: str, more: Mapping[str, str] | None = None) -> Reply:
    """Make the reply for an error, in the form of the OpenAI API."""
    return json_reply({"error": {"message": message, "code": status}}, status, more)


@dataclass(slots=True)
class Listener:
    """Listens on 127.0.0.1 and keeps its connections.

    Attributes:
        handle: Called with every request.
        port: The port that was given by the system, or 0 before `open`.
        accepted: How many connections were made.
    """

    handle: Callable[[HttpRequest, Connection], None]
    port: int = 0
    accepted: int = 0
    _server: asyncio.Server | None = None
    _connections: set[Connection] = field(default_factory=set)

    async def open(self, port: int = 0) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", port, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._server is not None:
            self._server.close()
        for one in tuple(self._connections):
            one.abort()
        await asyncio.sleep(0)

    def _connect(self) -> Connection:
        self.accepted += 1
        connection = _Kept(self.handle, self._connections)
        self._connections.add(connection)
        return connection


class _Kept(Connection):
    """A connection that its listener knows."""

    def __init__(self, handle: Callable[[HttpRequest, Connection], None], kept: set[Connection]) -> None:
        super().__init__(handle)
        self._kept = kept

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._kept.discard(self)
