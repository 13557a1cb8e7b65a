"""Spans: what begins and ends in a run, told to whoever exports it; nobody does unless the run was asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, Self

SpanKind = Literal["example", "node", "call"]


class Span(Protocol):
    """Something under way."""

    def outcome(self, result: Any) -> None:
        """Tell how it ended; an exception that leaves the span's block is told without that."""


class Spans(Protocol):
    """Makes spans."""

    def span(self, kind: SpanKind, name: str, about: Any) -> AbstractContextManager[Span]:
        """Return a span for a ``with`` block.

        Args:
            kind: What begins: the evaluation of an example, a node or step of the workflow, or a model call.
            name: Identifier of the example, name of the node, or name of the model.
            about: The ``Trial``, the ``CallContext`` or the ``Request``.
        """

    def called(self, provider: str, note: Mapping[str, Any]) -> None:
        """Make the span of a model call that has ended; see `called`."""


class _Nothing:
    """The span where nobody listens."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def outcome(self, result: Any) -> None:
        """Ignore it."""


_NOTHING = _Nothing()
_spans: ContextVar[Spans | None] = ContextVar("optograph_spans", default=None)


def span(kind: SpanKind, name: str, about: Any = None) -> AbstractContextManager[Span]:
    """Return a span for a ``with`` block; it costs next to nothing where nobody listens. See ``Spans.span``."""
    spans = _spans.get()
    return _NOTHING if spans is None else spans.span(kind, name, about)


def called(provider: str, note: Mapping[str, Any]) -> None:
    """Tell of a model call that another library made, and that has just ended.

    Args:
        provider: Where the call went, or the library that made it.
        note: What is known: ``model``, ``messages`` (``role`` and ``content`` each) or ``prompt``, and of the answer
            ``texts``, ``finish_reasons``, ``usage`` (tokens in, tokens out), ``latency_s``, or ``error``.
    """
    spans = _spans.get()
    if spans is not None:
        spans.called(provider, note)


current_spans: Callable[[], Spans | None] = _spans.get
"""Returns who makes the spans here, to be handed to a context that does not inherit this one."""


@contextmanager
def making_spans(spans: Spans | None) -> Iterator[None]:
    """Have `spans` make all spans within a ``with`` block, in its tasks and `asyncio.to_thread` threads too.

    Args:
        spans: Who makes them; None for nobody.
    """
    token = _spans.set(spans)
    try:
        yield
    finally:
        _spans.reset(token)
