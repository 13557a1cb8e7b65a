"""The raw OpenAI client: a view of it that notes each call of a model on the running node."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from optograph.agents.langgraph.sites import Site
from optograph.graphs import annotate
from optograph.telemetry import called

Path = tuple[str, ...]

_CALLS: set[Path] = {
    ("chat", "completions", "create"),
    ("chat", "completions", "parse"),
    ("beta", "chat", "completions", "create"),
    ("beta", "chat", "completions", "parse"),
    ("completions", "create"),
    ("responses", "create"),
    ("responses", "parse"),
}
_COPIES = {"copy", "with_options"}
_RESOURCES: Mapping[str, Path] = {
    "openai.resources.chat.chat": ("chat",),
    "openai.resources.chat.completions.completions": ("chat", "completions"),
    "openai.resources.completions": ("completions",),
    "openai.resources.responses.responses": ("responses",),
}


def client_site(thing: Any) -> Site | None:
    """Return the site of an ``OpenAI`` or ``AsyncOpenAI`` client or of a part of one, or None for other objects."""
    if hasattr(thing, "chat") and hasattr(thing, "base_url"):
        return _ClientSite(thing, ())
    path = _RESOURCES.get(type(thing).__module__)
    return None if path is None else _ClientSite(thing, path)


class _ClientSite(Site):
    def __init__(self, thing: Any, path: Path) -> None:
        self.view = _View(thing, path)

    def now(self) -> Any:
        """Return the view."""
        return self.view


class _View:
    """Stands for an attribute path of a client; calls that ask a model are noted."""

    def __init__(self, thing: Any, path: Path) -> None:
        self.__dict__.update(_thing=thing, _path=path)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._thing)

    def __getattr__(self, name: str) -> Any:
        thing = getattr(self._thing, name)
        path = (*self._path, name)
        if path in _CALLS:
            return _noted(thing)
        if path[0] in _COPIES:
            return lambda *args, **kwargs: _View(thing(*args, **kwargs), ())
        return _View(thing, path) if any(one[: len(path)] == path for one in _CALLS) else thing

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._thing, name, value)

    def __enter__(self) -> Any:
        self._thing.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._thing.__exit__(*error)

    async def __aenter__(self) -> Any:
        await self._thing.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._thing.__aexit__(*error)


def _noted(create: Any) -> Callable[..., Any]:
    """Return a method of the client that notes what it is asked and what it gives."""
    if inspect.iscoroutinefunction(inspect.unwrap(create)):

        async def anoted(*args: Any, **kwargs: Any) -> Any:
            call = _Call(kwargs)
            try:
                answer = await create(*args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            return call.answered(answer)

        return anoted

    def noted(*args: Any, **kwargs: Any) -> Any:
        call = _Call(kwargs)
        try:
            answer = create(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        return call.answered(answer)

    return noted


class _Call:
    """One call, hung on the running node as soon as there is an answer; a streamed one grows in its place.

    Args:
        asked: The arguments; messages that can be read only once are kept in a list.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self._started = time.monotonic()
        self._ended = False
        if "messages" in asked and not isinstance(asked["messages"], list | tuple):
            asked["messages"] = list(asked["messages"])
        self.note: dict[str, Any] = {"model": str(asked.get("model", "")), "messages": _messages(asked)}
        if asked.get("prompt") is not None:
            self.note["prompt"] = str(asked["prompt"])

    def answered(self, answer: Any) -> Any:
        """Note an answer, and return it; a stream is returned as one that notes what is read from it."""
        from openai import AsyncStream, Stream

        self._measure()
        if isinstance(answer, Stream | AsyncStream):
            annotate(calls=[self.note])
            return _Stream(answer, self) if isinstance(answer, Stream) else _AsyncStream(answer, self)
        self.note |= _facts(answer)
        annotate(calls=[self.note])
        self.end()
        return answer

    def failed(self, error: BaseException) -> None:
        """Note that there is no answer."""
        self._measure()
        self.note["error"] = f"{type(error).__name__}: {error}"
        annotate(calls=[self.note])
        self.end()

    def event(self, event: Any) -> None:
        """Take in a piece of a streamed answer."""
        self._measure()
        if hasattr(event, "response"):  # the last event of a response holds all of it
            self.note |= _facts(event.response)
            return
        for choice in getattr(event, "choices", None) or ():
            _grow(self.note, choice)
        usage = _usage(event)
        if usage is not None:
            self.note["usage"] = usage

    def broken(self, error: BaseException) -> None:
        """Note that a stream broke off."""
        self.note["error"] = f"{type(error).__name__}: {error}"
        self.end()

    def end(self) -> None:
        """Tell of the call, once."""
        if not self._ended:
            self._ended = True
            called("openai", self.note)

    def _measure(self) -> None:
        self.note["latency_s"] = time.monotonic() - self._started


class _AnyStream:
    """What stands for a stream: it passes for it, and gives its attributes."""

    def __init__(self, stream: Any, call: _Call) -> None:
        self._stream = stream
        self._call = call

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Stream(_AnyStream):
    """Stands for a stream, and notes what is read from it."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            event = next(self._stream)
        except StopIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.broken(error)
            raise
        self._call.event(event)
        return event

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream."""
        self._call.end()
        self._stream.close()


class _AsyncStream(_AnyStream):
    """Stands for an async stream, and notes what is read from it."""

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            event = await anext(self._stream)
        except StopAsyncIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.broken(error)
            raise
        self._call.event(event)
        return event

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the stream."""
        self._call.end()
        await self._stream.close()


# -- notes ----------------------------------------------------------------------------------------


def _messages(asked: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what was asked; the responses API has it as instructions and input."""
    found = [_message(one) for one in asked.get("messages") or ()]
    if isinstance(asked.get("instructions"), str):
        found.append({"role": "system", "content": asked["instructions"]})
    given = asked.get("input")
    if isinstance(given, str):
        found.append({"role": "user", "content": given})
    elif isinstance(given, list):
        found += [_message(one) for one in given if isinstance(one, dict) and "role" in one]
    return found


def _message(one: Any) -> dict[str, str]:
    get: Any = one.get if isinstance(one, Mapping) else lambda name: getattr(one, name, None)
    return {"role": str(get("role")), "content": _content(get("content"))}


def _content(content: Any) -> str:
    """Return a message's text; of several parts, those that are text."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list | tuple):
        return "\n".join(str(one["text"]) for one in content if isinstance(one, Mapping) and "text" in one)
    return str(content)


def _facts(answer: Any) -> dict[str, Any]:
    """Return what an answer tells: texts, reasons to end, usage, token ids."""
    facts: dict[str, Any] = {}
    usage = _usage(answer)
    if usage is not None:
        facts["usage"] = usage
    choices = getattr(answer, "choices", None)
    if choices is None:
        text = getattr(answer, "output_text", None)  # of the responses API
        return facts if text is None else facts | {"texts": [str(text)]}
    facts["texts"] = [_text(one) for one in choices]
    reasons = [str(one.finish_reason) for one in choices if one.finish_reason]
    if reasons:
        facts["finish_reasons"] = reasons
    ids = [getattr(one, "token_ids", None) for one in choices]
    if any(one is not None for one in ids):
        facts["token_ids"] = ids
    return facts


def _text(choice: Any) -> str:
    message = getattr(choice, "message", None)
    return str((choice.text if message is None else message.content) or "")


def _usage(answer: Any) -> list[int] | None:
    usage = getattr(answer, "usage", None)
    if usage is None:
        return None
    read = getattr(usage, "prompt_tokens", None) or getattr(usage, "input_tokens", None)
    written = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None)
    return [read or 0, written or 0]


def _grow(note: dict[str, Any], choice: Any) -> None:
    """Add a piece of a streamed choice."""
    delta = getattr(choice, "delta", None)
    texts = note.setdefault("texts", [])
    texts += [""] * (choice.index + 1 - len(texts))
    texts[choice.index] += (choice.text if delta is None else delta.content) or ""
    ids = getattr(choice, "token_ids", None)
    if ids:
        known = note.setdefault("token_ids", [])
        known += [[] for _ in range(choice.index + 1 - len(known))]
        known[choice.index] += ids
    if choice.finish_reason:
        note.setdefault("finish_reasons", []).append(str(choice.finish_reason))
