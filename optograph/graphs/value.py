"""Value: the node that every op makes, with Python's operators as ops."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any, NamedTuple, NoReturn

from optograph.errors import UserError
from optograph.graphs import operators as ops
from optograph.graphs.failure import PASS_THROUGH, OpAttributeError, OpError, error_record, error_text
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.packing import SCALARS, Packed, Traceable, inside, unwrap, unwrap_all
from optograph.graphs.shown import shown
from optograph.graphs.state import Frame, current, enter, leave

_new = object.__new__


class Extra(NamedTuple):
    """What only some values have."""

    keys: tuple[str, ...] = ()
    reads: tuple[Value, ...] = ()
    name: str | None = None
    info: dict[str, Any] | None = None
    failed: bool = False


def _binary(info: OpInfo, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Traced, other: Any) -> Value:
        left = self if type(self) is Value else self._node()
        right = right_data = other
        if type(other) is Value:
            right_data = other._data
        elif type(other) not in SCALARS and isinstance(other, Traced):
            right = other._node()
            right_data = right._data
        try:
            data = function(left._data, right_data)
        except Exception as error:  # noqa: BLE001 - whatever the data raises becomes an OpError
            fail(info, (left, right), error)
        value = _new(Value)
        value._data = data
        value._op = info
        value._extra = None
        scope = current().scope
        if not scope.recording:
            value._args = ()
            return value
        value._args = (left, right)
        if scope.tapes:
            scope.hear(value)
        return value

    method.__doc__ = info.description
    return method


def _reflected(info: OpInfo, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Traced, other: Any) -> Value:
        right = self._node()
        return evaluate(info, function, (other, right), (other, right._data))

    method.__doc__ = info.description
    return method


def _unary(info: OpInfo, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: Traced) -> Value:
        node = self._node()
        return evaluate(info, function, (node,), (node._data,))

    method.__doc__ = info.description
    return method


class Traced(Traceable):
    """What `Value` and `Parameter` share: Python's operators, traced.

    Arithmetic, bits, comparison (``==`` and ``!=`` too), indexing, attributes, calls and rounding make new
    values. `hash` is identity. `bool`, `len`, ``in``, `str`, `format`, `int`, `float` and `index` must give plain
    Python objects: inside an op they count as reading the value, outside they leave the graph. Iteration gives
    the items as values. ``is``, ``and``, ``or`` and ``not`` cannot be traced. A value is never changed in place.
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy arrays leave the operators to us

    def _read(self) -> Any:
        """Return the plain data; inside an op, note that it was read."""
        node = self._node()
        reads = current().reads
        if reads is not None:
            reads[node] = None
        return node._data

    __add__, __radd__ = _binary(ops.ADD, operator.add), _reflected(ops.ADD, operator.add)
    __sub__, __rsub__ = _binary(ops.SUB, operator.sub), _reflected(ops.SUB, operator.sub)
    __mul__, __rmul__ = _binary(ops.MUL, operator.mul), _reflected(ops.MUL, operator.mul)
    __matmul__, __rmatmul__ = _binary(ops.MATMUL, operator.matmul), _reflected(ops.MATMUL, operator.matmul)
    __truediv__, __rtruediv__ = _binary(ops.DIV, operator.truediv), _reflected(ops.DIV, operator.truediv)
    __floordiv__ = _binary(ops.FLOORDIV, operator.floordiv)
    __rfloordiv__ = _reflected(ops.FLOORDIV, operator.floordiv)
    __mod__, __rmod__ = _binary(ops.MOD, operator.mod), _reflected(ops.MOD, operator.mod)
    __divmod__, __rdivmod__ = _binary(ops.DIVMOD, divmod), _reflected(ops.DIVMOD, divmod)
    __pow__, __rpow__ = _binary(ops.POW, operator.pow), _reflected(ops.POW, operator.pow)
    __lshift__, __rlshift__ = _binary(ops.LSHIFT, operator.lshift), _reflected(ops.LSHIFT, operator.lshift)
    __rshift__, __rrshift__ = _binary(ops.RSHIFT, operator.rshift), _reflected(ops.RSHIFT, operator.rshift)
    __and__, __rand__ = _binary(ops.AND, operator.and_), _reflected(ops.AND, operator.and_)
    __or__, __ror__ = _binary(ops.OR, operator.or_), _reflected(ops.OR, operator.or_)
    __xor__, __rxor__ = _binary(ops.XOR, operator.xor), _reflected(ops.XOR, operator.xor)
    __lt__, __le__ = _binary(ops.LT, operator.lt), _binary(ops.LE, operator.le)
    __gt__, __ge__ = _binary(ops.GT, operator.gt), _binary(ops.GE, operator.ge)
    __eq__, __ne__ = _binary(ops.EQ, operator.eq), _binary(ops.NE, operator.ne)
    __neg__, __pos__ = _unary(ops.NEG, operator.neg), _unary(ops.POS, operator.pos)
    __abs__, __invert__ = _unary(ops.ABS, abs), _unary(ops.INVERT, operator.invert)
    __floor__, __ceil__ = _unary(ops.FLOOR, math.floor), _unary(ops.CEIL, math.ceil)
    __trunc__ = _unary(ops.TRUNC, math.trunc)
    __hash__ = object.__hash__

    def __round__(self, ndigits: Any = None) -> Value:
        return apply(ops.ROUND, round, (self,) if ndigits is None else (self, ndigits))

    def __getitem__(self, key: Any) -> Value:
        if type(key) is slice:
            return apply(ops.SLICE, ops.take_slice, (self, key.start, key.stop, key.step))
        return apply(ops.ITEM, operator.getitem, (self, key))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return attribute(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Value:
        """Call the data, a function or a method, as an op."""
        node = self._node()
        if node._op is ops.ATTRIBUTE and node._args:
            return apply(ops.METHOD, ops.call_method, (*node._args, *args), kwargs)
        return apply(ops.CALL, ops.call_function, (node, *args), kwargs)

    def __iter__(self) -> Iterator[Value]:
        node = self._node()
        try:
            items = iter(node._data)
        except Exception as error:  # noqa: BLE001 - whatever the data raises becomes an OpError
            fail(ops.ITER, (node,), error)
        for index, item in enumerate(items):
            yield make(ops.ITER, (node, index), item)

    def __len__(self) -> int:
        return len(self._read())

    def __bool__(self) -> bool:
        return bool(self._read())

    def __contains__(self, item: Any) -> bool:
        return (item._read() if isinstance(item, Traced) else item) in self._read()

    def __str__(self) -> str:
        return str(self._read())

    def __format__(self, format_spec: str) -> str:
        return format(self._read(), format_spec)

    def __int__(self) -> int:
        return int(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __complex__(self) -> complex:
        return complex(self._read())

    def __index__(self) -> int:
        return operator.index(self._read())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise UserError(f"{type(self).__name__} is never pickled: use trace_to_json, or a state_dict")


class Value(Traced):
    """One immutable node: some data, and the op and the arguments that it came from.

    Args:
        data: Plain data.
        name: Name to show it under; ``x`` in ``Value(3, name="x")``.

    Raises:
        UserError: The data holds other values: hand those to an op instead.
    """

    __slots__ = ("__weakref__", "_args", "_data", "_extra", "_op")
    _data: Any
    _op: OpInfo | None
    _args: tuple[Any, ...]
    _extra: Extra | None

    def __init__(self, data: Any, *, name: str | None = None) -> None:
        plain, node = unwrap(data)
        if node is not plain:
            raise UserError(f"data must be plain, got {shown(data)}: combine values with an op")
        self._data = data
        self._op = None
        self._args = ()
        self._extra = None if name is None else Extra(name=name)

    def _node(self) -> Value:
        return self

    @property
    def data(self) -> Any:
        """The plain data. Reading it inside an op makes this value a parent of what the op returns."""
        reads = current().reads
        if reads is not None:
            reads[self] = None
        return self._data

    @property
    def op(self) -> OpInfo | None:
        """The op that made it; None for a leaf."""
        return self._op

    @property
    def parents(self) -> tuple[Value, ...]:
        """The values that the op was given (also inside lists and dicts) or read, each once."""
        return parents_of(self)

    @property
    def name(self) -> str:
        """The name given, else the op's; a subgraph makes it unique (``add_3``)."""
        if self._extra is not None and self._extra.name is not None:
            return self._extra.name
        if self._op is None:
            return "input"
        return str(self._args[1]) if self._op is ops.METHOD and self._args else self._op.name

    @property
    def info(self) -> dict[str, Any] | None:
        """The notes hung on the op while it ran (`annotate`), or None."""
        return None if self._extra is None else self._extra.info

    def __repr__(self) -> str:
        return f"Value({self.name}, {shown(self._data)})"

    def __copy__(self) -> Value:
        return self

    def __deepcopy__(self, memo: Any) -> Value:
        return self


def make(info: OpInfo, nodes: tuple[Any, ...], data: Any, extra: Extra | None = None) -> Value:
    """Return the value that an op made from its arguments; record it where recording is on."""
    scope = current().scope
    if not scope.recording:
        return bare(info, data)
    value = _new(Value)
    value._data = data
    value._op = info
    value._args = nodes
    value._extra = extra
    for tape in scope.tapes:
        tape.values.append(value)
    return value


def bare(info: OpInfo, data: Any) -> Value:
    """Return the value of an op without its history."""
    value = _new(Value)
    value._data = data
    value._op = info
    value._args = ()
    value._extra = None
    return value


def fail(
    info: OpInfo,
    nodes: tuple[Any, ...],
    error: BaseException,
    *,
    extra: Extra | None = None,
    code: CodeType | None = None,
    source: str = "",
) -> NoReturn:
    """Raise the `OpError` for an op that raised `error`; an inner op's failure keeps its record.

    The failed value counts as read by the op around it, which may catch the error and go on.
    """
    inner = error if isinstance(error, OpError) else None
    record = error_record(info.name, error, code, source) if inner is None else inner.value._data
    extra = (extra or Extra())._replace(failed=True)
    if inner is not None:
        extra = extra._replace(reads=tuple(dict.fromkeys((*extra.reads, inner.value))))
    value = make(info, nodes, record, extra)
    reads = current().reads
    if reads is not None:
        reads[value] = None
    kind = OpAttributeError if isinstance(error, AttributeError) and info is ops.ATTRIBUTE else OpError
    original = error if inner is None else inner.original
    raise kind(error_text(record), value=value, original=original) from error


def evaluate(info: OpInfo, function: Callable[..., Any], nodes: tuple[Any, ...], plain: tuple[Any, ...]) -> Value:
    """Run an op on plain data that cannot read other values (Python's operators)."""
    try:
        data = function(*plain)
    except PASS_THROUGH:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the data raises becomes an OpError
        fail(info, nodes, error)
    return make(info, nodes, data)


def apply(
    info: OpInfo, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Value:
    """Run any function as an op: unwrap its arguments, note what it reads, wrap its result."""
    kwargs = kwargs or {}
    keys = tuple(kwargs)
    nodes, plain = unwrap_all((*args, *kwargs.values()))
    frame = Frame(current().scope, {})
    token = enter(frame)
    error: Exception | None = None
    data = None
    try:
        data = function(*plain[: len(args)], **dict(zip(keys, plain[len(args) :], strict=True)))
    except PASS_THROUGH:
        raise
    except Exception as caught:  # noqa: BLE001 - whatever the function raises becomes an OpError
        error = caught
    finally:
        leave(token)
    if error is not None:
        fail(info, nodes, error, extra=close(frame, keys))
    if type(data) not in SCALARS:
        data = absorb(data, frame)
    return make(info, nodes, data, close(frame, keys))


def close(frame: Frame, keys: tuple[str, ...] = ()) -> Extra | None:
    """End a frame: return what its op read and noted, and let late readers (a stray task) change nothing."""
    reads, frame.reads = frame.reads, None
    if not (keys or reads or frame.info):
        return None
    return Extra(keys, tuple(reads or ()), None, frame.info)


def absorb(result: Any, frame: Frame) -> Any:
    """Return the plain data of an op's result; values in it count as read."""
    plain, node = unwrap(result)
    if node is not plain:
        for value in inside(node):
            if frame.reads is not None:
                frame.reads[value] = None
    return plain


def attribute(value: Traced, name: str) -> Any:
    """Return ``value.data.name`` as a value; for attributes that `Value` has itself (``data``, ``name``...)."""
    node = value._node()
    return evaluate(ops.ATTRIBUTE, getattr, (node, name), (node._data, name))


def parents_of(value: Value) -> tuple[Value, ...]:
    """Return the values among the arguments and reads of a value, each once."""
    args, extra = value._args, value._extra
    if extra is None:
        if len(args) == 1 and type(args[0]) is Value:  # the common cases, written out
            return args
        if len(args) == 2:
            left, right = args
            if type(left) is Value and type(right) in SCALARS:
                return (left,)
            if type(left) is Value and type(right) is Value:
                return (left,) if left is right else args
    found: dict[Value, None] = {}
    for arg in args:
        if isinstance(arg, Value):
            found[arg] = None
        elif type(arg) is Packed:
            found.update(dict.fromkeys(inside(arg)))
    if extra is not None:
        found.update(dict.fromkeys(extra.reads))
    return tuple(found)
