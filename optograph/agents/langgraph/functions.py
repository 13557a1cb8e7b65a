"""Functions of a foreign app: their globals, constants, closures and defaults are looked up anew at each call."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from optograph.agents.langgraph.rewriting import fill
from optograph.agents.langgraph.sites import Found, Seen, Site, changes, seen_in
from optograph.graphs import Parameter

_NONE = object()
_making: ContextVar[dict[int, types.FunctionType] | None] = ContextVar("optograph_functions", default=None)
"""The functions that are being made in this very call of ``now``: those that call each other are made once."""


class GlobalsView(dict[str, Any]):
    """The globals of a rebuilt function: the module's own, live, but for the names that are sites.

    The interpreter asks a mapping that is no plain dict for each global that it needs, so a text counts as read only
    where the code gets to it.
    """

    def __init__(self, module: dict[str, Any], sites: Found) -> None:
        # The body of a class inside the function, and imports there, read the dict itself.
        super().__init__(module)
        self._module = module
        # The texts of the code itself are in no module, so that nothing can be set in their place.
        self._sites = {name: (site.asked(), module.get(name, _NONE)) for name, site in sites.items()}

    def __getitem__(self, name: str) -> Any:
        known = self._sites.get(name)
        if known is None:
            return self._module[name]
        now, seen = known
        if seen is not _NONE and self._module.get(name, _NONE) is not seen:  # the app has set another one
            return self._module[name]
        return now()

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

    def asked(self) -> Callable[[], Any]:
        """Return the parameter's own function, where it is all there is to it."""
        return self.now if self.formatted else self.parameter._read


class FunctionSite(Site):
    """A function with sites in it.

    Attributes:
        original: The function.
    """

    def __init__(self, original: types.FunctionType) -> None:
        self.original = original
        self._cells: Seen = {}
        self._defaults: Seen = {}
        self._named: Seen = {}
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
        old = self.original
        self._code = code
        self._cells = {number: (site, (old.__closure__ or ())[number].cell_contents) for number, site in cells.items()}
        self._defaults, self._named = seen_in(old.__defaults__, defaults), seen_in(old.__kwdefaults__, named)
        if names:
            self._view = GlobalsView(old.__globals__, names)
        self._fixed = self._made(old.__closure__, old.__defaults__, old.__kwdefaults__)
        self.fixed = not (cells or defaults or named)

    def now(self) -> Any:
        """Return the function; one that has texts in its closure or defaults is made for this very call."""
        if not (self._cells or self._defaults or self._named):
            return self._fixed
        making = _making.get()
        if making is not None:
            return making.get(id(self)) or self._anew(making)
        making = {}
        token = _making.set(making)
        try:
            return self._anew(making)
        finally:
            _making.reset(token)

    def _anew(self, making: dict[int, types.FunctionType]) -> types.FunctionType:
        old = self.original
        closure, defaults, named = old.__closure__, old.__defaults__, old.__kwdefaults__
        if self._defaults and defaults is not None:
            changed = changes(defaults, self._defaults)
            defaults = tuple(changed.get(i, one) for i, one in enumerate(defaults))
        if self._named and named is not None:
            named = {**named, **changes(named, self._named)}
        cells: dict[Any, tuple[Site, types.CellType]] = {}
        if closure is not None:
            for number, (site, seen) in self._cells.items():
                if _content(closure[number]) is seen:  # else the app has set another one
                    cells[number] = (site, types.CellType())
            closure = tuple(cells[i][1] if i in cells else cell for i, cell in enumerate(closure))
        made = making[id(self)] = self._made(closure, defaults, named)
        for site, cell in cells.values():  # what they hold may call this function in turn
            cell.cell_contents = site.now()
        return made

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


def stored_cells(function: types.FunctionType) -> set[int]:
    """Return the ids of the cells that a function, or one that it calls from its closure, sets (``nonlocal``)."""
    found: set[int] = set()
    stack, seen = [function], {id(function)}
    while stack:
        one = stack.pop()
        names = _stored(one.__code__)
        for name, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True):
            if name in names:
                found.add(id(cell))
            inner = _content(cell)
            if isinstance(inner, types.FunctionType) and id(inner) not in seen:
                seen.add(id(inner))
                stack.append(inner)
    return found


def _stored(code: types.CodeType) -> set[str]:
    names = {one.argval for one in dis.get_instructions(code) if one.opname in ("STORE_DEREF", "DELETE_DEREF")}
    return names.union(*(_stored(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set
        return _NONE
