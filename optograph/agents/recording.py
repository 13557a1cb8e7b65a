"""Hanging each model call under the op that made it, so that raw calls and steps alike show in the trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from optograph.graphs import annotate
from optograph.serving import CallEvent, observing

_recording: ContextVar[bool] = ContextVar("optograph_recording_calls", default=False)


@contextmanager
def recording_calls() -> Iterator[None]:
    """Note every model call made within the block on the value of the op that made it; nesting records once."""
    if _recording.get():
        yield
        return
    token = _recording.set(True)
    try:
        with observing(_note):
            yield
    finally:
        _recording.reset(token)


def _note(event: CallEvent) -> None:
    note: dict[str, Any] = {
        "model": event.model,
        "messages": [one.to_json() for one in event.request.messages],
    }
    if event.request.prompt is not None:
        note["prompt"] = event.request.prompt
    if event.completion is not None:
        done = event.completion
        note["texts"] = list(done.texts)
        note["finish_reasons"] = list(done.finish_reasons)
        note["usage"] = [done.usage.prompt_tokens, done.usage.completion_tokens]
        note["latency_s"] = done.latency_s
        note["identity"] = done.identity.to_json()
        if any(ids is not None for ids in done.token_ids):
            note["token_ids"] = [None if ids is None else list(ids) for ids in done.token_ids]
    if event.error is not None:
        note["error"] = f"{type(event.error).__name__}: {event.error}"
    annotate(calls=[note])
