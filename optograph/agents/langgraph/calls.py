"""Model calls of LangChain's chat models: a callback handler that hangs each one on the node that made it."""

from __future__ import annotations

import functools
import time
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from optograph.agents.langgraph.flow import running
from optograph.context import current_context
from optograph.graphs import annotate
from optograph.graphs.state import current
from optograph.telemetry import called


class _CallRecorder(BaseCallbackHandler):
    """Notes each call on the running op; calls of our own models are noted where they are made."""

    run_inline = True  # in the caller's own context, also where the model is async
    ignore_chain = True
    ignore_retriever = True
    ignore_agent = True

    def __init__(self) -> None:
        self._open: dict[UUID, tuple[dict[str, Any], float]] = {}

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Take in what a chat model is asked."""
        if not _is_ours(serialized):
            asked = [{"role": _role(one), "content": _content(one)} for one in messages[0]]
            self._open[run_id] = ({"model": _name(serialized, kwargs), "messages": asked}, time.monotonic())

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """Take in what a completion model is asked."""
        if not _is_ours(serialized):
            note = {"model": _name(serialized, kwargs), "messages": [], "prompt": prompts[0]}
            self._open[run_id] = (note, time.monotonic())

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the call with its answer."""
        known = self._open.pop(run_id, None)
        if known is None:
            return
        note, started = known
        answers = response.generations[0] if response.generations else []
        note["texts"] = [str(one.text) for one in answers]
        note["latency_s"] = time.monotonic() - started
        note |= _facts(answers)
        annotate(calls=[note])
        called("langchain", note)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the call with its error."""
        known = self._open.pop(run_id, None)
        if known is not None:
            note = known[0] | {"error": f"{type(error).__name__}: {error}", "latency_s": time.monotonic() - known[1]}
            annotate(calls=[note])
            called("langchain", note)


_ROLES = {"human": "user", "ai": "assistant"}
_recorder = _CallRecorder()


class _Hearing:
    """Stands for the context variable that LangChain asks for a handler: within a node of a recorded run, there is one.

    A variable of its own would have to be set and reset by each node, and a handler that hears a whole graph costs
    every step of it.
    """

    def get(self, default: Any = None) -> _CallRecorder | Any:
        """Return the handler, or `default`."""
        hears = running.get() is not None and current().reads is not None and current_context().node is not None
        return _recorder if hears else default


@functools.cache
def hear_langchain() -> None:
    """Have the calls of LangChain's models noted on the nodes that make them, from now on."""
    register_configure_hook(cast(Any, _Hearing()), inheritable=True)


def _is_ours(serialized: dict[str, Any] | None) -> bool:
    return bool(((serialized or {}).get("id") or [""])[0] == "optograph")


def _role(message: BaseMessage) -> str:
    return _ROLES.get(message.type, message.type)


def _content(message: BaseMessage) -> str:
    return message.content if isinstance(message.content, str) else str(message.content)


def _name(serialized: dict[str, Any] | None, kwargs: dict[str, Any]) -> str:
    asked = kwargs.get("invocation_params") or {}
    found = asked.get("model") or asked.get("model_name") or (kwargs.get("metadata") or {}).get("ls_model_name")
    return str(found or (serialized or {}).get("name") or "model")


def _facts(answers: list[Any]) -> dict[str, Any]:
    """Return usage, reasons to end, and token ids, as far as the model tells them."""
    facts: dict[str, Any] = {}
    messages = [one.message for one in answers if getattr(one, "message", None) is not None]
    told = [one.response_metadata for one in messages]
    reasons = [str(one["finish_reason"]) for one in told if one.get("finish_reason")]
    if reasons:
        facts["finish_reasons"] = reasons
    usage = [one.usage_metadata for one in messages if getattr(one, "usage_metadata", None)]
    if usage:
        facts["usage"] = [usage[0]["input_tokens"], sum(one["output_tokens"] for one in usage)]
    ids = [one.get("token_ids") for one in told]
    if any(one is not None for one in ids):
        facts["token_ids"] = ids
    return facts
