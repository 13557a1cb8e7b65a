"""Call a function for each item of lists and dicts, as numpy does for arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optograph.errors import UserError
from optograph.graphs.shown import shown


def broadcast(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` once for each item of the lists, tuples or dicts among its arguments.

    Other arguments (values, text, numbers) are the same in each call. One level deep. To go through the items of
    a value that holds a list, pass ``list(value)``. The calls of an async op are awaited together by
    ``await asyncio.gather(*broadcast(op, items))``.

    Example:
        >>> broadcast(op(max), [Value(1), Value(5)], 3)
        [Value(max, 3), Value(max, 5)]

    Args:
        function: An op, or any function.
        *args: Arguments by position.
        **kwargs: Arguments by name.

    Returns:
        The results: a dict with the same keys, or else a list.

    Raises:
        UserError: There is no list or dict, or they differ in length or keys.
    """
    everything = [*args, *kwargs.values()]
    containers = [arg for arg in everything if isinstance(arg, list | tuple | dict)]
    if not containers:
        raise UserError(f"broadcast() needs a list, tuple or dict among its arguments, got {shown(args)}")
    keys = _keys(containers[0])
    for container in containers[1:]:
        if isinstance(container, dict) != isinstance(containers[0], dict) or _keys(container) != keys:
            raise UserError(f"broadcast() needs equal lengths or keys, got {keys!r} and {_keys(container)!r}")
    results = [
        function(*(_pick(arg, key) for arg in args), **{name: _pick(arg, key) for name, arg in kwargs.items()})
        for key in keys
    ]
    return dict(zip(keys, results, strict=True)) if isinstance(containers[0], dict) else results


def _keys(container: Any) -> list[Any]:
    return list(container) if isinstance(container, dict) else list(range(len(container)))


def _pick(arg: Any, key: Any) -> Any:
    return arg[key] if isinstance(arg, list | tuple | dict) else arg
