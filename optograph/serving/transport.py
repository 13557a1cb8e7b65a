"""HTTP to one endpoint: pooled connections on the background loop, deadlines, a size limit, typed failures."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optograph.errors import ServingError
from optograph.secrets import scrub
from optograph.serving.retry import Deadline, RetryableError
from optograph.serving.stream import StreamAssembler
from optograph.serving.urls import is_loopback
from optograph.serving.wire import bad_response

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES = 64 * 1024 * 1024
_AFTER_END_S = 1.0  # a stream is read to its end, so that its connection can be used again, but hardly waited for
_KEEP_ALIVE_S = 4.0  # servers built on uvicorn, vLLM's among them, close idle connections after 5 s


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        text: The body, decoded; empty for a stream.
        retry_after: The header of that name, or None.
        streamed: What a stream of events came to, or None where the answer was one body.
    """

    status: int
    text: str
    retry_after: str | None = None
    streamed: dict[str, Any] | None = None


class Transport:
    """Posts JSON to one endpoint and reads what comes back; runs on the background loop.

    Redirects are not followed, cookies are not kept, no proxy is asked for this machine, and the number of connections
    is not limited here.

    Args:
        base_url: A checked URL without a trailing slash.
        headers: Sent with every request.
        deadline: How long to wait.
        max_body_bytes: Longest body that is read, after decompression.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.base_url = base_url
        self._headers = dict(headers)
        self._deadline = deadline
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: Mapping[str, Any], *, stream: StreamAssembler | None = None) -> HttpAnswer:
        """Send a JSON body and read the answer.

        Args:
            path: What follows the base URL, such as ``"/chat/completions"``.
            body: JSON data.
            stream: Takes the events where the server answers with a stream; None: none was asked for.

        Raises:
            ServingError: Of kind ``"connection"``, ``"timeout"`` or ``"bad_response"``.
        """
        content = json.dumps(body).encode()  # ASCII: whatever a prompt holds, the body is valid
        return await self._send("POST", self.base_url + path, content, stream)

    async def get(self, path: str, *, root: bool = False) -> HttpAnswer:
        """Read a resource.

        Args:
            path: What follows the base URL, or the server's root.
            root: Whether the path starts at the server's root, without the ``/v1`` of the base URL.

        Raises:
            ServingError: As `post` does.
        """
        base = self.base_url.removesuffix("/v1") if root else self.base_url
        return await self._send("GET", base + path, None, None)

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, method: str, url: str, content: bytes | None, stream: StreamAssembler | None) -> HttpAnswer:
        session = self._session
        if session is None or session.closed or self._loop is not asyncio.get_running_loop():
            session = self._open()
        try:
            async with session.request(method, url, data=content, allow_redirects=False) as response:
                if stream is not None and response.status == 200 and response.content_type == "text/event-stream":
                    return HttpAnswer(200, "", None, await self._read_events(response, stream))
                text = (await self._read(response)).decode("utf-8", "replace")
                return HttpAnswer(response.status, text, response.headers.get("Retry-After"))
        except ServingError:
            raise
        except (OSError, ValueError) as error:
            raise self._failure(error) from None
        except Exception as error:
            import aiohttp

            if not isinstance(error, aiohttp.ClientError):
                raise
            raise self._failure(error) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body up to the limit."""
        first = await response.content.readany()
        if response.content.at_eof():
            return first
        parts, size = [first], len(first)
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._max_body_bytes:
                raise bad_response(f"{self.base_url} answered with more than {self._max_body_bytes} bytes")
        return b"".join(parts)

    async def _read_events(self, response: aiohttp.ClientResponse, stream: StreamAssembler) -> dict[str, Any]:
        """Read a stream to its end, with its own two deadlines."""
        first_s, between_s = self._deadline.first_token_s, self._deadline.between_tokens_s
        loop = asyncio.get_running_loop()
        size = 0
        scope = asyncio.timeout(first_s)
        try:
            async with scope:
                async for part in response.content.iter_any():
                    size += len(part)
                    if size > self._max_body_bytes:
                        raise bad_response(f"{self.base_url} streamed more than {self._max_body_bytes} bytes")
                    if stream.feed(part):
                        wait_s = _AFTER_END_S if stream.done else between_s
                        scope.reschedule(None if wait_s is None else loop.time() + wait_s)
        except TimeoutError:
            if not scope.expired():
                raise
            if stream.done:
                return stream.result()
            what = (
                f"between_tokens_s={between_s:g}" if stream.events and between_s else f"first_token_s={first_s or 0:g}"
            )
            raise RetryableError(
                f"{self.base_url} began to stream an answer and stopped ({what})", kind="timeout"
            ) from None
        return stream.result()

    def _failure(self, error: Exception) -> ServingError:
        """Name what went wrong, for whoever must act."""
        import aiohttp

        said = scrub(f"{type(error).__name__}: {error}".rstrip(": "))
        if isinstance(error, TimeoutError):  # aiohttp's own are too
            return RetryableError(
                f"{self.base_url} was silent for too long (connect_s={self._deadline.connect_s}, "
                f"silence_s={self._deadline.silence_s})",
                kind="timeout",
                reached=not isinstance(error, aiohttp.ConnectionTimeoutError),
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return RetryableError(
                f"cannot reach {self.base_url} ({said}); check that the server runs and that the URL is right",
                kind="connection",
                reached=False,
            )
        if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
            return RetryableError(f"the connection to {self.base_url} broke off ({said})", kind="connection")
        return bad_response(f"{self.base_url} answered with something that is no HTTP ({said})")

    def _open(self) -> aiohttp.ClientSession:
        """Open the pool on the running loop."""
        import aiohttp

        loop = asyncio.get_running_loop()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            headers={**self._headers, "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._deadline.connect_s, sock_read=self._deadline.silence_s
            ),
            trust_env=not is_loopback(self.base_url),  # no proxy lies between this machine and itself
        )
        self._session, self._loop = session, loop
        at_exit = functools.partial(_close_from_outside, loop, session)
        atexit.register(at_exit)  # runs before the loop itself ends, as it is registered later
        weakref.finalize(self, _dismiss, at_exit).atexit = False
        return session


def _dismiss(at_exit: functools.partial[None]) -> None:
    atexit.unregister(at_exit)
    at_exit()


def _close_from_outside(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    """Close a session from any thread, without waiting for its server."""
    if not session.closed and loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop)
