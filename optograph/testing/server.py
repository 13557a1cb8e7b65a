"""An OpenAI-compatible server on the loopback interface that says, and fails, what a test wants."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from optograph.errors import UserError
from optograph.testing.answers import Labels, answer
from optograph.testing.faults import FAULTS, FaultPlan, fault_reply, good_reply, request_key
from optograph.testing.http import Connection, HttpRequest, JsonObject, Listener, Reply, error_reply, head, json_reply

ReplyText = Callable[[JsonObject], str]

_THREADS = 128


@dataclass(frozen=True, slots=True)
class Received:
    """A request that reached the server.

    Attributes:
        path: Such as ``"/v1/chat/completions"``.
        body: The JSON body, empty for GET.
        authorization: The header of that name, or an empty string.
        fault: The fault that the server's fault rate gave it, or None.
    """

    path: str
    body: JsonObject
    authorization: str
    fault: str | None = None


class LoopbackServer:
    """Serve a scripted model on 127.0.0.1 while a ``with`` block runs.

    It knows ``/v1/chat/completions``, ``/v1/completions``, ``/v1/models`` and ``/health``; ``n``, ``stream``,
    log-probabilities, stop strings, token limits, ``response_format``, vLLM's ``structured_outputs`` and
    ``return_token_ids``. Tokens are words. A text that breaks a choice or a JSON schema is replaced by one that obeys.

    Args:
        reply: The text, or a function of the request's body that gives it (called in a thread, so it may block); one of
            `FAULTS` makes that fault.
        models: Names of the models served; a request for another one is answered 404.
        api_key: The key that is asked for, or None for none.
        labels: Gives the log-probabilities of the first token's alternatives.
        latency_s: Wait before each completion, in seconds.
        fault_rate: Share of completions that fail, from 0 to 1. Which fault a request gets is a function of its content
            and of how often it came before, so that runs can be repeated.
        faults: Which faults are drawn from.
        seed: Of the faults.
        capacity: Most completions at once; a further one is answered 429. None: no limit.
        metrics: Text of ``/metrics``, or a function that gives it; None: there is no such path.
        models_extra: Further fields of each entry of ``/v1/models``, such as ``{"pricing": …}``.
        port: Where to listen; 0: any free port.

    Attributes:
        received: The requests that arrived, in order.
        peak: Most completions that were under way at once.
    """

    def __init__(
        self,
        reply: str | ReplyText = "ok",
        *,
        models: tuple[str, ...] = ("test-model",),
        api_key: str | None = None,
        labels: Labels | None = None,
        latency_s: float = 0.0,
        fault_rate: float = 0.0,
        faults: Sequence[str] = FAULTS,
        seed: int = 0,
        capacity: int | None = None,
        metrics: str | Callable[[], str] | None = None,
        models_extra: JsonObject | None = None,
        port: int = 0,
    ) -> None:
        self.reply = reply
        self.models = models
        self.api_key = api_key
        self.labels = labels
        self.latency_s = latency_s
        self.plan = FaultPlan(fault_rate, faults, seed)
        self.capacity = capacity
        self.metrics = metrics
        self.models_extra = models_extra or {}
        self.port = port
        self.received: list[Received] = []
        self.in_flight = 0
        self.peak = 0
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """The base URL, which ends in ``/v1``."""
        if self._running is None:
            raise UserError("the server runs only within its `with` block")
        return f"http://127.0.0.1:{self._running.listener.port}/v1"

    @property
    def calls(self) -> int:
        """How many completions were asked for."""
        return sum(one.path.endswith("/completions") for one in self.received)

    def __enter__(self) -> LoopbackServer:
        self._running = _Running(self._handle, self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def _handle(self, request: HttpRequest, connection: Connection) -> None:
        """Answer a request; runs on the server's own loop."""
        path = request.path.partition("?")[0]
        body = json.loads(request.content) if request.content else {}
        completes = request.method == "POST" and path in ("/v1/chat/completions", "/v1/completions")
        key = request_key(body) if completes else ""
        authorized = self.api_key is None or request.headers.get("authorization") == f"Bearer {self.api_key}"
        fault = self.plan.draw(key) if completes and authorized else None
        self.received.append(Received(path, body, request.headers.get("authorization", ""), fault))
        if not completes:
            connection.send(self._other(request.method, path))
        elif not authorized:  # the key is echoed, as careless servers do
            connection.send(error_reply(401, f"bad key {request.headers.get('authorization')}"))
        elif body.get("model") not in self.models:
            connection.send(error_reply(404, f"The model {body.get('model')!r} does not exist."))
        elif self.capacity is not None and self.in_flight >= self.capacity:
            connection.send(error_reply(429, f"more than {self.capacity} requests at once"))
        else:
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            task = asyncio.get_running_loop().create_task(self._complete(path, body, fault, connection))
            if self._running is not None:
                self._running.keep(task)

    async def _complete(self, path: str, body: JsonObject, fault: str | None, connection: Connection) -> None:
        try:
            if self.latency_s > 0:
                await asyncio.sleep(self.latency_s)
            texts = [await self._text(body) for _ in range(body.get("n") or 1)]
        finally:
            self.in_flight -= 1
        wanted = texts[0] if texts[0] in FAULTS else fault
        if texts[0] in FAULTS:
            texts = ["alpha beta gamma delta"]
        good = answer(body, texts, chat="chat" in path, labels=self.labels)
        connection.send(good_reply(body, good) if wanted is None else fault_reply(wanted, body, good))

    async def _text(self, body: JsonObject) -> str:
        reply, running = self.reply, self._running
        if isinstance(reply, str) or running is None:
            return str(reply)
        return await asyncio.get_running_loop().run_in_executor(running.threads, reply, body)

    def _other(self, method: str, path: str) -> Reply:
        if method == "GET" and path == "/health":
            return json_reply({})
        if method == "GET" and path == "/v1/models":
            listed = [{"id": name, "object": "model", **self.models_extra} for name in self.models]
            return json_reply({"object": "list", "data": listed})
        if method == "GET" and path == "/metrics" and self.metrics is not None:
            text = (self.metrics if isinstance(self.metrics, str) else self.metrics()).encode()
            return _text_reply(text)
        return error_reply(404, "no such path")


def _text_reply(content: bytes) -> Reply:
    return Reply((head(200, len(content), "text/plain"), content))


class _Running:
    """A server's loop, in a thread of its own, with the threads that make its texts."""

    def __init__(self, handle: Callable[[HttpRequest, Connection], None], port: int) -> None:
        self.listener = Listener(handle)
        self.threads = ThreadPoolExecutor(_THREADS, "loopback-reply")
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback-server", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.listener.open(port), self._loop).result(timeout=10)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Drop the connections, end the loop and its thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def _close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.listener.close()
