"""What is going on in this thread or task: the running op, the open scopes; all in one context variable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.graphs.candidate import Candidate
from optograph.graphs.shown import shown

if TYPE_CHECKING:
    from optograph.graphs.value import Value
    from optograph.sandbox import Sandbox


class Tape:
    """Every value that ops made within one `tracing` scope, in the order of their making.

    Attributes:
        values: The values; the tape holds them, so dead branches stay as long as the tape does.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: list[Value] = []

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)


class Applied:
    """The values of the candidates in force, and the leaves made when they were first read."""

    __slots__ = ("leaves", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.leaves: dict[int, Value] = {}


@dataclass(frozen=True, slots=True)
class Scope:
    """The scopes that are open here: recording or not, tapes, candidates, where changed code runs."""

    recording: bool = True
    tapes: tuple[Tape, ...] = ()
    applied: Applied | None = None
    unsandboxed: bool = False
    sandbox: Sandbox | None = None

    def hear(self, value: Value) -> None:
        """Put a value on every tape."""
        for tape in self.tapes:
            tape.values.append(value)


class Frame:
    """One running op, or the outside of all ops.

    Attributes:
        scope: The scopes that are open.
        reads: Values read by the running op, as the keys of a dict (in order, without duplicates); None where
            nobody listens.
        info: Notes on the running op, or None.
    """

    __slots__ = ("info", "reads", "scope")

    def __init__(self, scope: Scope, reads: dict[Value, None] | None = None) -> None:
        self.scope = scope
        self.reads = reads
        self.info: dict[str, Any] | None = None


class InnerFrame(Frame):
    """A scope opened inside an op (or outside all ops).

    Attributes:
        holder: The frame that the notes belong to.
    """

    __slots__ = ("holder",)

    def __init__(self, scope: Scope, reads: dict[Value, None] | None, outer: Frame) -> None:
        super().__init__(scope, reads)
        self.holder: Frame = _holder(outer)


def _holder(frame: Frame) -> Frame:
    return frame.holder if isinstance(frame, InnerFrame) else frame


_frame: ContextVar[Frame] = ContextVar("optograph_frame", default=Frame(Scope()))  # noqa: B039 - never changed
current: Callable[[], Frame] = _frame.get
enter: Callable[[Frame], Any] = _frame.set
leave: Callable[[Any], None] = _frame.reset


@contextmanager
def _scoped(silent: bool = False, **changes: Any) -> Iterator[None]:
    outer = current()
    token = enter(InnerFrame(replace(outer.scope, **changes), None if silent else outer.reads, outer))
    try:
        yield
    finally:
        leave(token)


@contextmanager
def tracing() -> Iterator[Tape]:
    """Record ops within this block, and hold every value that they make on the tape it yields.

    Recording is on by default; the tape adds the dead branches that no output refers to.
    """
    tape = Tape()
    with _scoped(recording=True, tapes=(*current().scope.tapes, tape)):
        yield tape


@contextmanager
def no_tracing() -> Iterator[None]:
    """Record nothing within this block: ops still return values, but these have no parents."""
    with _scoped(silent=True, recording=False):
        yield


@contextmanager
def applying(candidate: Candidate | Mapping[str, Any]) -> Iterator[Candidate]:
    """Let every parameter that the candidate names have the candidate's value within this block.

    Only this task or thread sees it, with the tasks it starts and what it hands to `asyncio.to_thread`. Within
    an inner block the inner candidate wins and the outer one fills the gaps.

    Args:
        candidate: A candidate, or a mapping from parameter names to values.

    Raises:
        UserError: When a parameter is read whose spec refuses the candidate's value.
    """
    if not isinstance(candidate, Candidate):
        if not isinstance(candidate, Mapping):
            raise UserError(f"applying() takes a Candidate or a mapping of values, got {shown(candidate)}")
        candidate = Candidate(candidate)
    outer = current().scope.applied
    values = candidate.values if outer is None else {**outer.values, **candidate.values}
    with _scoped(applied=Applied(values)):
        yield candidate


@contextmanager
def allow_unsandboxed() -> Iterator[None]:
    """Let changed code of trainable ops run in this very process within this block."""
    with _scoped(unsandboxed=True):
        yield


@contextmanager
def sandboxed_in(sandbox: Sandbox) -> Iterator[None]:
    """Let changed code of trainable ops run in this sandbox within this block: with its limits and its imports.

    Args:
        sandbox: The sandbox; without this, one of the process's own is used.
    """
    with _scoped(sandbox=sandbox, unsandboxed=False):
        yield


def annotate(**info: Any) -> None:
    """Hang notes on the running op; they become its value's `info`. Outside any op, do nothing.

    A later note replaces an earlier one of the same name; a list is added to an earlier list.
    """
    frame = _holder(current())
    if frame.reads is None:
        return
    if frame.info is None:
        frame.info = {}
    for name, note in info.items():
        earlier = frame.info.get(name)
        joined = isinstance(earlier, list) and isinstance(note, list)
        frame.info[name] = [*earlier, *note] if joined else note  # type: ignore[misc]
