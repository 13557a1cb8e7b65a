"""The descriptions of Python's operators as ops."""

from __future__ import annotations

from typing import Any

from optograph.errors import UserError
from optograph.graphs.opinfo import OpInfo


def _infix(name: str, symbol: str, what: str) -> OpInfo:
    return OpInfo(name, f"x {symbol} y: {what}", ("x", "y"), style="infix", symbol=symbol)


def _prefix(name: str, symbol: str, what: str) -> OpInfo:
    return OpInfo(name, f"{symbol}x: {what}", ("x",), style="prefix", symbol=symbol)


ADD = _infix("add", "+", "the sum, or both sequences joined")
SUB = _infix("subtract", "-", "the difference")
MUL = _infix("multiply", "*", "the product, or the sequence repeated")
MATMUL = _infix("matmul", "@", "the matrix product")
DIV = _infix("divide", "/", "the quotient")
FLOORDIV = _infix("floordiv", "//", "the quotient rounded down")
MOD = _infix("mod", "%", "the remainder, or the formatted text")
POW = _infix("power", "**", "x to the power of y")
LSHIFT = _infix("lshift", "<<", "x shifted left by y bits")
RSHIFT = _infix("rshift", ">>", "x shifted right by y bits")
AND = _infix("bit_and", "&", "bitwise and, or the intersection")
OR = _infix("bit_or", "|", "bitwise or, or the union")
XOR = _infix("bit_xor", "^", "bitwise exclusive or")
LT = _infix("lt", "<", "whether x is less than y")
LE = _infix("le", "<=", "whether x is at most y")
GT = _infix("gt", ">", "whether x is greater than y")
GE = _infix("ge", ">=", "whether x is at least y")
EQ = _infix("eq", "==", "whether x equals y")
NE = _infix("ne", "!=", "whether x differs from y")
NEG = _prefix("neg", "-", "the negative")
POS = _prefix("pos", "+", "the number itself")
INVERT = _prefix("invert", "~", "bitwise not")
ABS = OpInfo("abs", "The absolute value.", ("x",))
DIVMOD = OpInfo("divmod", "The quotient rounded down, and the remainder.", ("x", "y"))
ROUND = OpInfo("round", "The number rounded to some digits.", ("x", "ndigits"))
FLOOR = OpInfo("floor", "The number rounded down.", ("x",))
CEIL = OpInfo("ceil", "The number rounded up.", ("x",))
TRUNC = OpInfo("trunc", "The number rounded towards zero.", ("x",))
ITEM = OpInfo("item", "x[key]: one item.", ("x", "key"), style="item")
SLICE = OpInfo("slice", "x[start:stop:step]: some items.", ("x", "start", "stop", "step"), style="slice")
ITER = OpInfo("element", "The element of x at a position, in the order of iteration.", ("x", "position"))
ATTRIBUTE = OpInfo("attribute", "x.name: an attribute.", ("x", "name"), style="attribute")
METHOD = OpInfo("method", "x.name(...): a method called.", ("x", "name"), vararg="args", style="method")
CALL = OpInfo("call", "function(...): a function called.", ("function",), vararg="args")

_CHANGING: dict[type, set[str]] = {
    list: {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"},
    dict: {"pop", "popitem", "clear", "update", "setdefault"},
    set: {"add", "discard", "remove", "pop", "clear", "update", "difference_update", "intersection_update"},
    bytearray: {"append", "extend", "insert", "pop", "remove", "clear", "reverse"},
}


def take_slice(data: Any, start: Any, stop: Any, step: Any) -> Any:
    """Return ``data[start:stop:step]``."""
    return data[start:stop:step]


def call_method(data: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Return ``data.name(...)``; a method that would change a built-in container in place is refused."""
    if name in _CHANGING.get(type(data), set()):
        raise UserError(
            f"a traced value is never changed in place, and {type(data).__name__}.{name} would: "
            "make a new value instead (`x + [item]`, `x | {key: item}`), or do it inside an op on a copy"
        )
    return getattr(data, name)(*args, **kwargs)


def call_function(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Return ``function(...)``."""
    return function(*args, **kwargs)
