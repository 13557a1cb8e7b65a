"""Arguments apart: from values (also inside lists, tuples and dicts) to plain data and frozen shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from optograph.errors import UserError

if TYPE_CHECKING:
    from optograph.graphs.value import Value

SCALARS = frozenset({str, int, float, bool, type(None), bytes, complex})
"""Types that cannot hold a value and need no look inside."""

_CONTAINERS = frozenset({list, tuple, dict})


class Traceable:
    """What stands for a value: a `Value`, or a `Parameter` with its value of the moment."""

    __slots__ = ()

    def _node(self) -> Value:
        raise NotImplementedError


class Packed(NamedTuple):
    """A list, tuple or dict argument with values in it, as it was when the op was called.

    Attributes:
        kind: ``"list"``, ``"tuple"`` or ``"dict"``.
        keys: The keys of a dict, else None.
        items: The items: values, plain data, or packed containers.
    """

    kind: str
    keys: tuple[Any, ...] | None
    items: tuple[Any, ...]


def unwrap(arg: Any) -> tuple[Any, Any]:
    """Return `arg` as plain data and as a node: a value, a `Packed`, or (where no value is in it) `arg` itself.

    Raises:
        UserError: A container with values in it contains itself.
    """
    if isinstance(arg, Traceable):
        node = arg._node()
        return node._data, node
    if type(arg) in _CONTAINERS and _holds_values(arg):
        return _rebuild(arg)
    return arg, arg


def unwrap_all(args: Iterable[Any]) -> tuple[tuple[Any, ...], list[Any]]:
    """Return the arguments as nodes, and as plain data."""
    nodes, plain = [], []
    for arg in args:
        data, node = (arg, arg) if type(arg) in SCALARS else unwrap(arg)
        nodes.append(node)
        plain.append(data)
    return tuple(nodes), plain


def inside(node: Any) -> Iterator[Value]:
    """Yield the values of a node from `unwrap`, first to last."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, Traceable):
            yield item._node()
        elif type(item) is Packed:
            stack.extend(reversed(item.items))


def _items(container: Any) -> Any:
    return container.values() if type(container) is dict else container


def _holds_values(root: Any) -> bool:
    stack, seen = [root], {id(root)}
    while stack:
        items = _items(stack.pop())
        if SCALARS.issuperset(map(type, items)):
            continue
        for item in items:
            if isinstance(item, Traceable):
                return True
            if type(item) in _CONTAINERS and id(item) not in seen:
                seen.add(id(item))
                stack.append(item)
    return False


def _rebuild(root: Any) -> tuple[Any, Any]:
    done: dict[int, tuple[Any, Any]] = {}
    opened: set[int] = set()
    stack = [root]
    while stack:
        container = stack[-1]
        items = _items(container)
        waiting = [item for item in items if type(item) in _CONTAINERS and id(item) not in done]
        if waiting:
            if id(container) in opened:
                raise UserError("a container with traced values in it contains itself: pass it without the cycle")
            opened.add(id(container))
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        pairs = [done[id(item)] if type(item) in _CONTAINERS else unwrap(item) for item in items]
        done[id(container)] = _build(container, pairs)
    return done[id(root)]


def _build(container: Any, pairs: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    if all(plain is node for plain, node in pairs):
        return container, container
    nodes = tuple(node for _, node in pairs)
    kind = type(container)
    if kind is dict:
        plain = {key: data for key, (data, _) in zip(container, pairs, strict=True)}
        return plain, Packed("dict", tuple(container), nodes)
    return kind(data for data, _ in pairs), Packed(kind.__name__, None, nodes)
