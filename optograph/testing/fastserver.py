"""A fast, deterministic OpenAI-compatible server in a process of its own, for benchmarks and kill tests.

``python -m optograph.testing.fastserver --latency-ms 50`` prints its base URL (which ends in ``/v1``) as its first
line and serves until it is terminated. An answer is a function of the request's content and ``--seed`` alone: one of
the choices or enumeration values where the request has some, an instance of the JSON schema, or a word.

``GET /stats`` gives ``{"requests": n, "keys": {SHA-256 of the content: count}, "faults": {mode: count},
"in_flight": k, "most_in_flight": m}``; ``POST /reset`` sets the counts to zero.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections import Counter
from typing import Any

from optograph.errors import UserError
from optograph.testing.answers import answer
from optograph.testing.faults import FAULTS, FaultPlan, fault_reply, good_reply, request_key
from optograph.testing.http import Connection, HttpRequest, JsonObject, Listener, Reply, error_reply, json_reply

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "knoll", "lagoon")
_DEEPEST = 24


class FastServer:
    """Answers requests on one loop.

    Args:
        models: Names of the models served; empty: any.
        latency_s: Wait before each completion, in seconds.
        plan: Faults.
        seed: Of the answers.
    """

    def __init__(
        self, models: tuple[str, ...] = (), *, latency_s: float = 0.0, plan: FaultPlan | None = None, seed: int = 0
    ) -> None:
        self.models = models
        self.latency_s = latency_s
        self.plan = plan or FaultPlan()
        self.seed = seed
        self.in_flight = 0
        self.most_in_flight = 0
        self.faults: Counter[str] = Counter()
        self.listener = Listener(self._handle)

    def _handle(self, request: HttpRequest, connection: Connection) -> None:
        if request.method == "POST" and request.path in ("/v1/chat/completions", "/v1/completions"):
            self._complete(request, connection)
        else:
            connection.send(self._other(request))

    def _complete(self, request: HttpRequest, connection: Connection) -> None:
        body = json.loads(request.content)
        key = request_key(body)
        fault = self.plan.draw(key)
        if self.models and body.get("model") not in self.models:
            connection.send(error_reply(404, f"The model {body.get('model')!r} does not exist."))
            return
        texts = [deterministic_text(body, f"{self.seed}/{key}/{k}") for k in range(body.get("n") or 1)]
        data = answer(body, texts, chat=request.path == "/v1/chat/completions")
        if fault is None:
            reply = good_reply(body, data)
        else:
            self.faults[fault] += 1
            reply = fault_reply(fault, body, data)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.latency_s > 0:
            asyncio.get_running_loop().call_later(self.latency_s, self._finish, connection, reply)
        else:
            self._finish(connection, reply)

    def _finish(self, connection: Connection, reply: Reply) -> None:
        self.in_flight -= 1
        connection.send(reply)

    def _other(self, request: HttpRequest) -> Reply:
        if request.path == "/stats":
            return json_reply(self.stats())
        if request.path == "/reset" and request.method == "POST":
            self.plan.seen.clear()
            self.faults.clear()
            self.most_in_flight = self.in_flight
            return json_reply(self.stats())
        if request.path == "/health":
            return json_reply({})
        if request.path == "/v1/models":
            listed = [{"id": name, "object": "model"} for name in self.models or ("fast",)]
            return json_reply({"object": "list", "data": listed})
        return error_reply(404, "no such path")

    def stats(self) -> JsonObject:
        """Count what was asked."""
        seen = self.plan.seen
        return {
            "requests": seen.total(),
            "keys": dict(seen),
            "faults": dict(self.faults),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
        }


def deterministic_text(body: JsonObject, key: str) -> str:
    """Return the text that a request gets, as a function of `key`: a choice, an instance of its schema, or a word."""
    options = (body.get("structured_outputs") or {}).get("choice")
    if options:
        return str(_pick(options, key))
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        return json.dumps(instance(schema, key, schema))
    return str(_pick(_WORDS, key))


def instance(schema: Any, key: str, root: JsonObject, depth: int = 0) -> Any:
    """Make a value that obeys a JSON schema, as a function of `key`.

    Args:
        schema: The schema, or a part of it.
        key: Decides between what the schema allows.
        root: The whole schema, for references.
        depth: How deep `schema` lies in it.
    """
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    if "$ref" in schema:
        target: Any = root
        for step in str(schema["$ref"]).split("/")[1:]:  # the first is "#", the whole
            target = target[step]
        return instance(target, key, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _pick(schema["enum"], key)
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return instance(schema[name][0], key, root, depth + 1)
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = kind[0]
    return _plain(kind, schema, key, root, depth)


def _plain(kind: str, schema: JsonObject, key: str, root: JsonObject, depth: int) -> Any:
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: instance(inner, f"{key}/{name}", root, depth + 1) for name, inner in fields.items()}
    if kind == "array":
        count = max(1, int(schema.get("minItems", 1)))
        return [instance(schema.get("items", {}), f"{key}/{k}", root, depth + 1) for k in range(count)]
    if kind == "boolean":
        return _number(key) % 2 == 0
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        high = schema.get("maximum", low + 9)
        return int(low) + _number(key) % max(1, int(high - low) + 1)
    if kind == "null":
        return None
    return f"{_pick(_WORDS, key)} {_pick(_WORDS, key + '/2')}"


def _pick(options: Any, key: str) -> Any:
    return options[_number(key) % len(options)]


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


async def serve(server: FastServer, port: int = 0) -> None:
    """Listen, print the base URL, and serve until cancelled."""
    await server.listener.open(port)
    sys.stdout.write(f"http://127.0.0.1:{server.listener.port}/v1\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main(arguments: list[str] | None = None) -> int:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m optograph.testing.fastserver", description="Serve for benchmarks.")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each completion")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of completions that fail")
    parser.add_argument("--faults", default=",".join(FAULTS), help="faults to draw from, with commas between them")
    parser.add_argument("--seed", type=int, default=0, help="of answers and faults")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--models", default="", help="names of the models served, with commas; empty: any name")
    given = parser.parse_args(arguments)
    try:
        plan = FaultPlan(given.fault_rate, tuple(given.faults.split(",")), given.seed)
    except UserError as error:
        parser.error(str(error))
    models = tuple(name for name in given.models.split(",") if name)
    server = FastServer(models, latency_s=given.latency_ms / 1000, plan=plan, seed=given.seed)
    try:
        asyncio.run(serve(server, given.port))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
