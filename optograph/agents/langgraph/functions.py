"""Functions of a foreign app: their globals, constants, closures and defaults are looked up anew at each call."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

from optograph.agents.langgraph.rewriting import fill
from optograph.agents.langgraph.sites import Found, Site, changes
from optograph.graphs import Parameter


class GlobalsView(dict[str, Any]):
    """The globals of a rebuilt function: the module's own, live, but for the names that are sites.

    The interpreter asks a mapping that is no plain dict for each global that it needs, so a text counts as read only
    where the code gets to it.
    """

    def __init__(self, module: dict[str, Any], sites: Found) -> None:
        # The body of a class inside the function, and imports there, read the dict itself.
        super().__init__(module)
        self._module = module
        self._sites = sites

    def __getitem__(self, name: str) -> Any:
        site = self._sites.get(name)
        return self._module[name] if site is None else site.now()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a global, or `default`."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return name in self._module or name in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(self._module)

    def keys(self) -> Any:
        """Return the names in the module."""
        return self._module.keys()


class TextSite(Site):
    """A text in the code itself; an f-string is called with what it fills in."""

    def __init__(self, parameter: Parameter, placeholders: tuple[str, ...], *, formatted: bool) -> None:
        self.parameter = parameter
        self.placeholders = placeholders
        self.formatted = formatted

    def now(self) -> Any:
        """Return the text, or for an f-string the function that fills it."""
        if not self.formatted:
            return self.parameter.data
        text = self.parameter.data
        return lambda *pieces: fill(text, self.placeholders, pieces)


class FunctionSite(Site):
    """A function with sites in it.

    Attributes:
        original: The function.
    """

    def __init__(self, original: types.FunctionType) -> None:
        self.original = original
        self._ready = False
        self._cells: Found = {}
        self._defaults: Found = {}
        self._named: Found = {}
        self._fixed: types.FunctionType = original
        self._code = original.__code__
        self._view: dict[str, Any] = original.__globals__

    def build(self, code: types.CodeType, names: Found, cells: Found, defaults: Found, named: Found) -> None:
        """Set what was found.

        Args:
            code: The code, rewritten where texts are in it.
            names: Sites of globals and of rewritten texts, by name.
            cells: Sites of closure variables, by number.
            defaults: Sites of positional defaults, by number.
            named: Sites of keyword-only defaults, by name.
        """
        self._code, self._cells, self._defaults, self._named = code, cells, defaults, named
        if names:
            self._view = GlobalsView(self.original.__globals__, names)
        self._fixed = self._made(self.original.__closure__, self.original.__defaults__, self.original.__kwdefaults__)

    def now(self) -> Any:
        """Return the function; one that has texts in its closure or defaults is made for this very call."""
        if not (self._cells or self._defaults or self._named):
            return self._fixed
        old = self.original
        closure, defaults, named = old.__closure__, old.__defaults__, old.__kwdefaults__
        if self._cells and closure is not None:
            new = {number: site.now() for number, site in self._cells.items()}
            closure = tuple(types.CellType(new[i]) if i in new else cell for i, cell in enumerate(closure))
        if self._defaults and defaults is not None:
            changed = changes(defaults, self._defaults)
            defaults = tuple(changed.get(i, one) for i, one in enumerate(defaults))
        if self._named and named is not None:
            named = {**named, **changes(named, self._named)}
        return self._made(closure, defaults, named)

    def _made(
        self, closure: tuple[Any, ...] | None, defaults: tuple[Any, ...] | None, named: Mapping[str, Any] | None
    ) -> types.FunctionType:
        old = self.original
        made = types.FunctionType(self._code, self._view, old.__name__, defaults, closure)
        made.__kwdefaults__ = None if named is None else dict(named)
        made.__qualname__, made.__doc__, made.__module__ = old.__qualname__, old.__doc__, old.__module__
        made.__annotations__ = old.__annotations__
        made.__dict__.update({name: value for name, value in vars(old).items() if name != "__wrapped__"})
        return made


def global_names(code: types.CodeType) -> set[str]:
    """Return the names that a function and the functions in it look up outside, attributes among them.

    What the body of a class in it looks up is left out: the interpreter asks no view for that.
    """
    names = set(code.co_names) if code.co_flags & inspect.CO_OPTIMIZED else set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return names


def writes_globals(code: types.CodeType) -> bool:
    """Whether a function, or one in it, sets globals: then it must keep its own."""
    if any(one.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for one in dis.get_instructions(code)):
        return True
    return any(writes_globals(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
