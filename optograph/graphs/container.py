"""ParameterContainer: an object whose parameters can be listed, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optograph.errors import UserError
from optograph.graphs.parameter import Parameter


class ParameterContainer:
    """Base class of whatever holds parameters.

    It finds the parameters among its attributes, in lists, tuples and dicts there, in other containers there, and
    the code of trainable ops that are its attributes or methods. A parameter's own name is its name everywhere.

    Example:
        >>> class Greeter(ParameterContainer):
        ...     def __init__(self):
        ...         self.word = Parameter("Hello", name="greeter.word")
        >>> Greeter().state_dict()
        {'greeter.word': 'Hello'}
    """

    def parameters(self) -> list[Parameter]:
        """Return every parameter once, in the order of the attributes."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, Parameter]:
        """Return the parameters by their names.

        Raises:
            UserError: Two different parameters have the same name.
        """
        found: dict[str, Parameter] = {}
        for parameter in _walk(self):
            if found.setdefault(parameter.name, parameter) is not parameter:
                raise UserError(
                    f"two parameters are named {parameter.name!r}: give each its own name, "
                    "since candidates and prompts know them by name"
                )
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters' own values by name, as JSON data."""
        return {name: p.spec.to_json(p.base) for name, p in self.named_parameters().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter from what `state_dict` returned; all are checked before any is set.

        Raises:
            UserError: A name is missing or unknown, or a spec refuses a value; nothing changed.
        """
        parameters = self.named_parameters()
        missing, unknown = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
        if missing or unknown:
            raise UserError(f"state does not fit: missing {missing!r}, unknown {unknown!r}")
        values = {name: parameter._valid(state[name]) for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            parameter.set(values[name])


def _walk(root: ParameterContainer) -> Iterator[Parameter]:
    stack: list[Any] = [root]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, Parameter):
            if id(item) not in seen:
                seen.add(id(item))
                yield item
            continue
        if isinstance(code := getattr(item, "__dict__", {}).get("parameter"), Parameter):
            stack.append(code)  # a trainable op
        if id(item) in seen or not isinstance(item, ParameterContainer | list | tuple | dict):
            continue
        seen.add(id(item))
        stack.extend(reversed(_members(item)))


def _members(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple):
        return list(item)
    members = list(vars(item).values())
    names = dict.fromkeys(name for cls in type(item).__mro__ for name in vars(cls))
    for name in names:
        member = next(vars(cls)[name] for cls in type(item).__mro__ if name in vars(cls))
        members.append(getattr(member, "__func__", member))  # through classmethod and staticmethod
    return members
