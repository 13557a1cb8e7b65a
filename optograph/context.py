"""Who is asking: the facts about the current call that travel with it, in a context variable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any

from optograph.telemetry import span


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


_current: ContextVar[CallContext | None] = ContextVar("optograph_call_context", default=None)
_EMPTY = CallContext()


def current_context() -> CallContext:
    """Return the context of the running call (an empty one outside any)."""
    return _current.get() or _EMPTY


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


def enter_node(node: str) -> Token[CallContext | None]:
    """Begin a node inside the present one: the quick form of `call_context` for what runs very often.

    Returns:
        What `leave_node` takes, in the same task.
    """
    now = _current.get() or _EMPTY
    return _current.set(CallContext(now.run, now.role, now.candidate, now.example, now.repeat, node, parent=now.node))


def leave_node(token: Token[CallContext | None]) -> None:
    """Go back to the node before."""
    _current.reset(token)
