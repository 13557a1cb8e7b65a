"""The model server of the kill test: its answers are a function of the request, and it logs every request it gets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks.kills.workload import TEAMS, TONES, ticket_number, truth
from optograph.storage import canonical_json
from optograph.testing.answers import answer
from optograph.testing.fastserver import deterministic_text
from optograph.testing.faults import good_reply
from optograph.testing.http import Connection, HttpRequest, JsonObject, Listener, Reply, error_reply, json_reply

MODEL = "loopback"
WORDS = ("sender", "matter", "order", "account", "parcel", "invoice", "password", "refund", "delay", "praise", "update")


@dataclass(slots=True)
class Logged:
    """A request for a completion.

    Attributes:
        call: Hash of what was asked (`call_name`).
        kind: ``"tone"``, ``"route"`` or ``"propose"``.
        answered: Whether the answer has been sent.
    """

    call: str
    kind: str
    answered: bool = False


def call_name(messages: Any) -> str:
    """Return the hash by which a call is known on both sides: of its messages, which no two calls of a run share."""
    return hashlib.sha256(canonical_json(messages).encode()).hexdigest()


class LoggingServer:
    """Serves on 127.0.0.1, in a thread with its own loop, while a ``with`` block runs.

    A completion takes between half and one and a half times the latency, drawn anew for each request, so that answers
    come back in another order in every run.

    Attributes:
        latency_s: Mean time of a completion, in seconds; may be changed at any time.
        log: Every request in the order of arrival, killed clients' too.
    """

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.log: list[Logged] = []
        self._draw = random.Random()
        self._listener = Listener(self._handle)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kill-test-server", daemon=True)

    @property
    def url(self) -> str:
        """The base URL, which ends in ``/v1``."""
        return f"http://127.0.0.1:{self._listener.port}/v1"

    def __enter__(self) -> LoggingServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listener.open(), self._loop).result(timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._listener.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def settle(self) -> None:
        """Wait until what killed clients had sent has been read: a dead client's bytes are in the socket already."""
        for _ in range(4):  # a connection is accepted in one turn of the loop, and read in the next
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001), self._loop).result(timeout=10)

    def _handle(self, request: HttpRequest, connection: Connection) -> None:
        if request.method == "POST" and request.path == "/v1/chat/completions":
            body = json.loads(request.content)
            entry = Logged(call_name(body["messages"]), kind_of(body))
            self.log.append(entry)
            reply = good_reply(body, answer(body, [text_for(body)], chat=True))
            wait = self.latency_s * self._draw.uniform(0.5, 1.5)
            self._loop.call_later(wait, self._finish, entry, connection, reply)
        elif request.path == "/v1/models":
            connection.send(json_reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        else:
            connection.send(error_reply(404, "no such path"))

    @staticmethod
    def _finish(entry: Logged, connection: Connection, reply: Reply) -> None:
        entry.answered = True
        connection.send(reply)


def kind_of(body: JsonObject) -> str:
    """Say what a request is for."""
    choices = tuple((body.get("structured_outputs") or {}).get("choice") or ())
    return {TONES: "tone", TEAMS: "route"}.get(choices, "propose")


def text_for(body: JsonObject) -> str:
    """Return the answer, as a function of the messages alone.

    A prompt has a skill, by its hash; a ticket is answered rightly where its own luck is below that. So candidates
    differ, and the acceptance test has something to find.
    """
    kind, messages = kind_of(body), body["messages"]
    name = call_name(messages)
    if kind == "tone":
        return _pick(TONES, name)
    if kind == "route":
        number = ticket_number(messages[-1]["content"])
        skill = 0.3 + 0.6 * _share("skill", call_name(messages[:-1]))
        return truth(number) if _share(f"luck/{number}", name) < skill else _pick(TEAMS, name)
    form = body.get("response_format") or {}
    if form.get("type") != "json_schema":
        return f"Here it is:\n```\n{_instruction(name)}\n```"
    data = json.loads(deterministic_text(body, name))
    if isinstance(data.get("suggestion"), dict):
        data |= {"answer": "CHANGE", "suggestion": {key: _instruction(name + key) for key in data["suggestion"]}}
    return json.dumps(data)


def _instruction(name: str) -> str:
    first, second, third = (_pick(WORDS, f"{name}/{k}") for k in range(3))
    return f"Look at the {first}, then at the {second} and the {third}, and give one of the allowed answers."


def _share(*parts: str) -> float:
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:8], "big") / 2**64


def _pick(options: tuple[str, ...], name: str) -> str:
    return options[int(_share("pick", name) * len(options))]
