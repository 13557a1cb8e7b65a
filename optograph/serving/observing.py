"""Who is told about model calls: observers within a ``with`` block, and the block that announces a call to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from optograph.context import CallContext, current_context
from optograph.serving.types import Completion, Request
from optograph.telemetry import span


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A finished model call, as observers see it.

    Attributes:
        request: What was asked.
        completion: The answer, or None when the call failed.
        error: Why it failed, or None.
        context: Who asked.
        model: Name of the model.
    """

    request: Request
    completion: Completion | None
    error: BaseException | None
    context: CallContext
    model: str = ""


Observer = Callable[[CallEvent], None]

_observers: ContextVar[tuple[Observer, ...]] = ContextVar("optograph_call_observers", default=())
_inside: ContextVar[bool] = ContextVar("optograph_inside_call", default=False)


@contextmanager
def observing(callback: Observer) -> Iterator[None]:
    """Have `callback` told about every model call that finishes within a ``with`` block.

    The scope is a context variable: tasks and `asyncio.to_thread` inherit it, other threads do not see it. The callback
    runs in the caller's own thread and context, right after the call; where one model wraps another (a cache, say),
    only the outer call is announced. Observers nest; the outer one is told first.
    """
    token = _observers.set((*_observers.get(), callback))
    try:
        yield
    finally:
        _observers.reset(token)


def is_announced() -> bool:
    """Tell whether the caller is within a call that is announced, so that one of its own is not."""
    return _inside.get()


class Announced:
    """The block of a call that is announced: it is a span, calls within it are not announced, then observers are told.

    Args:
        name: Name of the model.
        request: What is asked.
    """

    __slots__ = ("_completion", "_name", "_request", "_span", "_token", "_told")

    def __init__(self, name: str, request: Request) -> None:
        self._name = name
        self._request = request
        self._completion: Completion | None = None

    def __enter__(self) -> Announced:
        self._span = span("call", self._name, self._request)
        self._told = self._span.__enter__()
        self._token = _inside.set(True)
        return self

    def ended(self, completion: Completion) -> Completion:
        """Take the answer, and give it back."""
        self._told.outcome(completion)
        self._completion = completion
        return completion

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _inside.reset(self._token)
        self._span.__exit__(kind, error, traceback)
        observers = _observers.get()
        if observers:
            event = CallEvent(self._request, self._completion, error, current_context(), self._name)
            for observer in observers:
                observer(event)
