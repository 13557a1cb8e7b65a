"""Who is asking: the facts about the current call that travel with it, in a context variable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any

from optograph.telemetry import current_spans, span


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where in a run a model call belongs; recorded with every call.

    Attributes:
        run: Run name, or None outside a run.
        role: Who pays: ``"task"``, ``"optimizer"`` or ``"judge"``.
        candidate: Identifier of the candidate that is being evaluated.
        example: Identifier of the example.
        repeat: Which repetition of the example this is, from 0.
        node: Name of the step or graph node that calls.
        parent: Name of the caller's caller, where steps nest.
    """

    run: str | None = None
    role: str = "task"
    candidate: str | None = None
    example: str | None = None
    repeat: int = 0
    node: str | None = None
    parent: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}


_EMPTY = CallContext()
_Kept = CallContext | tuple[Any, str]
"""A context; or the one around a node and the node's name, of which it is made where somebody asks for it."""
_current: ContextVar[_Kept] = ContextVar("optograph_call_context", default=_EMPTY)

Entered = Token[_Kept] | tuple[Token[_Kept], AbstractContextManager[Any]]
"""A node that was begun: the context before it, and its span where one is made."""


def current_context() -> CallContext:
    """Return the context of the running call (an empty one outside any)."""
    return _made(_current.get())


def _made(kept: _Kept) -> CallContext:
    if isinstance(kept, CallContext):
        return kept
    outer = _made(kept[0])
    return CallContext(outer.run, outer.role, outer.candidate, outer.example, outer.repeat, kept[1], parent=outer.node)


@contextmanager
def call_context(**changes: Any) -> Iterator[CallContext]:
    """Change some fields of the call context within a ``with`` block; naming a node makes it a span of the run."""
    context = replace(current_context(), **changes)
    token = _current.set(context)
    node = changes.get("node")
    try:
        if node is None:
            yield context
        else:
            with span("node", node, context):
                yield context
    finally:
        _current.reset(token)


def enter_node(node: str) -> Entered:
    """Begin a node inside the present one: the quick form of `call_context` for what runs very often.

    Returns:
        What `leave_node` takes, in the same task.
    """
    token = _current.set((_current.get(), node))
    spans = current_spans()
    if spans is None:
        return token
    opened = spans.span("node", node, current_context())
    opened.__enter__()
    return token, opened


def leave_node(entered: Entered, error: BaseException | None = None) -> None:
    """Go back to the node before.

    Args:
        entered: What `enter_node` gave.
        error: What the node failed with, for its span.
    """
    if isinstance(entered, tuple):
        entered, opened = entered
        opened.__exit__(None if error is None else type(error), error, None)
    _current.reset(entered)
