"""The raw OpenAI client: a view of it that notes each chat completion on the running node."""

from __future__ import annotations

import inspect
import time
from typing import Any

from optograph.agents.langgraph.sites import Site
from optograph.graphs import annotate
from optograph.serving import Usage
from optograph.telemetry import called

_CALLS = {
    ("chat", "completions", "create"),
    ("completions", "create"),
    ("responses", "create"),
    ("chat", "completions", "parse"),
}


def client_site(client: Any) -> Site | None:
    """Return the site of an ``OpenAI`` or ``AsyncOpenAI`` client, or None for other objects of that package."""
    return _ClientSite(client) if hasattr(client, "chat") and hasattr(client, "base_url") else None


class _ClientSite(Site):
    def __init__(self, client: Any) -> None:
        self.view = _View(client, ())

    def now(self) -> Any:
        """Return the view."""
        return self.view


class _View:
    """Stands for an attribute path of a client; calls that ask a model are noted."""

    def __init__(self, thing: Any, path: tuple[str, ...]) -> None:
        self.__dict__.update(_thing=thing, _path=path)

    def __getattr__(self, name: str) -> Any:
        thing = getattr(self._thing, name)
        path = (*self._path, name)
        if path in _CALLS:
            return _noted(thing)
        return _View(thing, path) if any(one[: len(path)] == path for one in _CALLS) else thing

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._thing, name, value)


def _noted(create: Any) -> Any:
    if inspect.iscoroutinefunction(inspect.unwrap(create)):

        async def acall(*args: Any, **kwargs: Any) -> Any:
            started = time.monotonic()
            answer = await create(*args, **kwargs)
            _note(kwargs, answer, time.monotonic() - started)
            return answer

        return acall

    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        answer = create(*args, **kwargs)
        _note(kwargs, answer, time.monotonic() - started)
        return answer

    return call


def _note(asked: dict[str, Any], answer: Any, latency_s: float) -> None:
    """Hang a call on the running node; a streamed answer has no text yet."""
    note: dict[str, Any] = {"model": str(asked.get("model", "")), "latency_s": latency_s}
    note["messages"] = [_message(one) for one in asked.get("messages") or ()]
    if asked.get("prompt") is not None:
        note["prompt"] = str(asked["prompt"])
    choices = getattr(answer, "choices", None)
    if choices is not None:
        note["texts"] = [_text(one) for one in choices]
        note["finish_reasons"] = [str(one.finish_reason or "stop") for one in choices]
        usage = getattr(answer, "usage", None)
        counts = Usage(getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)
        note["usage"] = [counts.prompt_tokens, counts.completion_tokens]
        ids = [getattr(one, "token_ids", None) for one in choices]
        if any(one is not None for one in ids):
            note["token_ids"] = ids
    annotate(calls=[note])
    called("openai", note)


def _message(one: Any) -> dict[str, str]:
    role, content = (one.get("role"), one.get("content")) if isinstance(one, dict) else (one.role, one.content)
    return {"role": str(role), "content": content if isinstance(content, str) else str(content)}


def _text(choice: Any) -> str:
    message = getattr(choice, "message", None)
    return str((choice.text if message is None else message.content) or "")
