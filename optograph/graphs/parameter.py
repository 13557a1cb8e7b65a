"""Parameter: a named leaf of the graph that an optimizer may change."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from optograph.errors import UserError
from optograph.graphs.shown import shown
from optograph.graphs.spec import Spec
from optograph.graphs.spec_data import infer_spec
from optograph.graphs.state import current
from optograph.graphs.value import Traced, Value


class ParameterValue(Value):
    """An immutable leaf: the value that a parameter had when it was read."""

    __slots__ = ("parameter",)
    parameter: Parameter

    def __init__(self, parameter: Parameter, data: Any) -> None:
        self._data = data
        self._op = None
        self._args = ()
        self._extra = None
        self.parameter = parameter

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.parameter.name


class Parameter(Traced):
    """A named value that can be learned: a prompt, a number, a choice, demonstrations, code.

    It takes Python's operators as a `Value` does. Inside `applying(candidate)` it has the candidate's value, for
    this task or thread only; its own value changes only by `set`: do not change a list or model that it gives.

    Args:
        data: The first value, valid for the spec.
        name: Its name, unique within a workflow; candidates, feedback and prompts know it by this name. Dots are
            welcome: ``classify.instruction``.
        spec: What it may hold; inferred from `data` where None.
        description: What it is for, in words that an optimizer reads.
        trainable: Whether optimizers may change it.

    Raises:
        UserError: The name is empty, or the spec refuses the data.
    """

    __slots__ = ("__weakref__", "_guards", "_leaf", "_lock", "description", "name", "spec", "trainable")

    def __init__(
        self, data: Any, *, name: str, spec: Spec | None = None, description: str = "", trainable: bool = True
    ) -> None:
        if not (isinstance(name, str) and name.strip() and "\n" not in name):
            raise UserError(f"a parameter needs a name of one line, got name={shown(name)}")
        if not (spec is None or isinstance(spec, Spec)):
            raise UserError(f"spec must be a Spec or None, got {shown(spec)}")
        if isinstance(data, Traced):
            data = data._node()._data
        self.name = name
        self.spec = infer_spec(data) if spec is None else spec
        self.description = description
        self.trainable = trainable
        self._guards = 0
        self._lock = threading.Lock()
        self._leaf: Value = ParameterValue(self, self._valid(data))

    def _valid(self, value: Any) -> Any:
        try:
            return self.spec.validate(value)
        except UserError as error:
            raise UserError(f"parameter {self.name!r}: {error}") from None

    def _node(self) -> Value:
        applied = current().scope.applied
        if applied is None:
            if self._guards:
                raise UserError(
                    f"parameter {self.name!r} was read outside any candidate while a run is on: read it inside "
                    "`with applying(candidate):`; a bare thread pool does not carry that scope, so use "
                    "asyncio.to_thread, or run contextvars.copy_context().run(function) in the thread"
                )
            return self._leaf
        leaf = applied.leaves.get(id(self))
        if leaf is None:
            if self.name not in applied.values:
                return self._leaf
            made = ParameterValue(self, self._valid(applied.values[self.name]))
            leaf = applied.leaves.setdefault(id(self), made)
        return leaf

    @property
    def data(self) -> Any:
        """The plain value: the candidate's inside `applying`, else its own. Inside an op, a read is noted."""
        return self._read()

    def _read(self) -> Any:
        frame = current()
        applied = frame.scope.applied
        leaf = None if applied is None else applied.leaves.get(id(self))
        if leaf is None:
            leaf = self._node()
        if frame.reads is not None:
            frame.reads[leaf] = None
        return leaf._data

    @property
    def base(self) -> Any:
        """Its own plain value, whatever candidate is applied; reading it leaves no trace."""
        return self._leaf._data

    def set(self, value: Any) -> None:
        """Change its own value; what was traced before keeps the old one.

        Raises:
            UserError: The spec refuses the value; nothing changed.
        """
        if isinstance(value, Traced):
            value = value._node()._data
        self._leaf = ParameterValue(self, self._valid(value))

    def _guard(self, step: int) -> None:
        with self._lock:
            self._guards += step

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {shown(self.base)})"

    def __copy__(self) -> Parameter:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copy = Parameter(
            self.spec.to_json(self.base),
            name=self.name,
            spec=self.spec,
            description=self.description,
            trainable=self.trainable,
        )
        memo[id(self)] = copy
        return copy


@contextmanager
def run_scope(parameters: Iterable[Parameter]) -> Iterator[None]:
    """Guard parameters during a run: a read outside `applying`, in any thread, raises `UserError`.

    So that a thread which lost the candidate fails loudly, instead of using the base value in silence. `base`
    and `set` stay free.
    """
    guarded = list(parameters)
    for parameter in guarded:
        if not isinstance(parameter, Parameter):
            raise UserError(f"run_scope() takes parameters, got {shown(parameter)}")
    for parameter in guarded:
        parameter._guard(1)
    try:
        yield
    finally:
        for parameter in guarded:
            parameter._guard(-1)
