"""The search: from a node's code to everything that it reads, as far as it is the user's own."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from optograph.agents.langgraph.containers import ContainerSite
from optograph.agents.langgraph.finding import Finder, looks_like_prompt, names_prompts
from optograph.agents.langgraph.functions import FunctionSite, TextSite, global_names, stored_cells, writes_globals
from optograph.agents.langgraph.objects import ClassSite, InstanceSite
from optograph.agents.langgraph.places import Place, is_users
from optograph.agents.langgraph.pools import pool_site
from optograph.agents.langgraph.rewriting import braces, rewrite
from optograph.agents.langgraph.sites import (
    CopySite,
    MethodSite,
    ModelSite,
    ModuleSite,
    ParameterSite,
    PartialSite,
    Site,
)
from optograph.graphs.value import Traced

_MOST_ITEMS = 32
_DEEPEST = 12
GraphSearch = Callable[[Any, Place], Site | None]


class Search:
    """Finds the sites of one node.

    Args:
        finder: Keeps the parameters.
        graphs: Makes the site of a compiled graph that the code calls.
    """

    def __init__(self, finder: Finder, graphs: GraphSearch) -> None:
        self.finder = finder
        self._graphs = graphs
        self._seen: dict[int, tuple[Any, Site | None]] = {}

    def look(self, thing: Any, place: Place) -> Site | None:
        """Return the site of anything, or None where nothing in it can be learned."""
        setting = self.finder.setting(thing, place)
        if setting is not None:
            return ParameterSite(setting)
        if type(thing) is str:
            return self._text(thing, place)
        if thing is None or isinstance(thing, str | int | float | bytes) or len(place.path) > _DEEPEST:
            return None
        if isinstance(thing, type):
            return pool_site(thing)
        known = self._seen.get(id(thing))
        if known is not None:
            return known[1]
        self._seen[id(thing)] = (thing, None)
        found = self._object(thing, place)
        if found is None:
            found = self._settings(thing, place)
        self._seen[id(thing)] = (thing, found)
        return found

    def _object(self, thing: Any, place: Place) -> Site | None:
        if isinstance(thing, types.FunctionType):
            return self.function(thing, place) if is_users(thing) else self._wrapped(thing, place)
        if isinstance(thing, types.MethodType):
            return self._method(thing, place)
        if isinstance(thing, functools.partial):
            return self._partial(thing, place)
        if type(thing) in (list, tuple, dict):
            return self._container(thing, place)
        if isinstance(thing, types.ModuleType):
            return None  # looked into where the code says which of its names it reads
        if type(thing).__module__.startswith("concurrent."):
            return pool_site(thing)
        if type(thing).__module__.partition(".")[0] in ("langchain_core", "langgraph") or _is_langchain(thing):
            from optograph.agents.langgraph.runnables import look_langchain

            return look_langchain(self, thing, place)
        if type(thing).__module__.partition(".")[0] == "openai":
            from optograph.agents.langgraph.clients import client_site

            return client_site(thing)
        return self._instance(thing, place) if is_users(type(thing)) else None

    def graph(self, graph: Any, place: Place) -> Site | None:
        """Return the site of a compiled graph."""
        return self._graphs(graph, place)

    def _text(self, text: str, place: Place) -> Site | None:
        if not looks_like_prompt(text):
            return None
        parameter = self.finder.text(text, place, braces(text))
        return None if parameter is None else ParameterSite(parameter)

    # -- functions --------------------------------------------------------------------------------

    def function(self, function: types.FunctionType, place: Place) -> Site | None:
        """Return the site of a function of the user's."""
        code = function.__code__
        self.finder.files.add(code.co_filename)
        site = FunctionSite(function)
        self._seen[id(function)] = (function, site)  # it may call itself
        here = Place(place.node, place.path, place.where, code.co_filename, code.co_firstlineno, place.key)
        names: dict[str, Site] = {}
        new = code
        if not writes_globals(code):
            names = self._globals(function, here)
            rewritten = rewrite(function)
            if rewritten is not None:
                new, texts = rewritten
                names |= self._texts(texts, here)
                new = new if any(one.key in names for one in texts) else code
        cells = self._cells(function, here)
        defaults, named = self._defaults(function, here)
        if not (names or cells or defaults or named):
            return None
        site.build(new, names, cells, defaults, named)
        return site

    def _texts(self, texts: Any, here: Place) -> dict[str, Site]:
        sites: dict[str, Site] = {}
        for number, text in enumerate(texts):
            name = "text" if number == 0 else f"text{number + 1}"
            at = Place(here.node, (*here.path, name), "constant", here.file, text.line, (here.file, text.line, number))
            parameter = self.finder.text(text.text, at, text.placeholders)
            formatted = text.called
            sites[text.key] = (
                _FixedText(text.text, text.placeholders, formatted)
                if parameter is None
                else TextSite(parameter, text.placeholders, formatted=formatted)
            )
        return sites

    def _globals(self, function: types.FunctionType, here: Place) -> dict[str, Site]:
        module = function.__globals__
        wanted = global_names(function.__code__)
        sites: dict[str, Site] = {}
        for name in sorted(wanted & module.keys()):
            thing = module[name]
            at = Place(here.node, (*here.path, name), "global", here.file, here.line, (id(module), name))
            if isinstance(thing, types.ModuleType):
                site = self._module(thing, wanted, at)
            else:
                site = (self._class(thing, wanted, at) if isinstance(thing, type) else None) or self.look(thing, at)
            if site is not None:
                sites[name] = site
        return sites

    def _module(self, module: types.ModuleType, wanted: set[str], at: Place) -> Site | None:
        if not is_users(module):
            return pool_site(module)
        sites: dict[Any, Site] = {}
        for name in sorted(wanted & vars(module).keys()):
            below = Place(at.node, (*at.path, name), "global", at.file, at.line, (id(vars(module)), name))
            site = self.look(vars(module)[name], below)
            if site is not None:
                sites[name] = site
        return ModuleSite(module, sites) if sites else None

    def _class(self, cls: type, wanted: set[str], at: Place) -> Site | None:
        """Look at the texts of a class that only holds some; of other classes their objects are looked into."""
        texts = {name: one for name, one in vars(cls).items() if isinstance(one, str) and not name.startswith("__")}
        if not is_users(cls) or type(cls) is not type or "__init__" in vars(cls):
            return None
        sites: dict[Any, Site] = {}
        for name in sorted(wanted & texts.keys()):
            site = self.look(
                texts[name], Place(at.node, (*at.path, name), "attribute", at.file, at.line, (id(cls), name))
            )
            if site is not None:
                sites[name] = site
        if not sites or issubclass(cls, BaseException):
            return None
        return ClassSite(cls, sites)

    def _cells(self, function: types.FunctionType, here: Place) -> dict[Any, Site]:
        sites: dict[Any, Site] = {}
        stored = stored_cells(function)
        for number, (name, cell) in enumerate(
            zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        ):
            thing = _content(cell)
            if thing is None or id(cell) in stored:  # not set yet, or set by the function itself
                continue
            path = (
                here.path if isinstance(thing, types.FunctionType) and _wraps(function, thing) else (*here.path, name)
            )
            at = Place(here.node, path, "closure", here.file, here.line, (id(cell),))
            site = self.look(thing, at)
            if site is not None:
                sites[number] = site
        return sites

    def _defaults(self, function: types.FunctionType, here: Place) -> tuple[dict[Any, Site], dict[Any, Site]]:
        code, defaults = function.__code__, function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        positional: dict[Any, Site] = {}
        named: dict[Any, Site] = {}
        for number, (name, value) in enumerate(zip(names, defaults, strict=True)):
            site = self.look(value, here.below(name, name, "default"))
            if site is not None:
                positional[number] = site
        for name, value in (function.__kwdefaults__ or {}).items():
            site = self.look(value, here.below(name, name, "default"))
            if site is not None:
                named[name] = site
        return positional, named

    def _wrapped(self, function: types.FunctionType, place: Place) -> Site | None:
        """Look through a library's decorator, for the function that it holds in its closure."""
        if not any(isinstance(_content(cell), types.FunctionType) for cell in function.__closure__ or ()):
            return None
        site = FunctionSite(function)
        cells = {
            number: found
            for number, cell in enumerate(function.__closure__ or ())
            if isinstance(_content(cell), types.FunctionType) and is_users(_content(cell))
            if (found := self.look(_content(cell), place)) is not None
        }
        if not cells:
            return None
        site.build(function.__code__, {}, cells, {}, {})
        return site

    def _partial(self, thing: functools.partial[Any], place: Place) -> Site | None:
        function = self.look(thing.func, place)
        args = {i: site for i, one in enumerate(thing.args) if (site := self._argument(one, f"arg{i}", place))}
        keywords = {name: site for name, one in thing.keywords.items() if (site := self._argument(one, name, place))}
        return PartialSite(thing, function, args, keywords) if function or args or keywords else None

    def _argument(self, thing: Any, name: str, place: Place) -> Site | None:
        return self.look(thing, place.below(name, name, "partial"))

    # -- objects ----------------------------------------------------------------------------------

    def _container(self, thing: Any, place: Place) -> Site | None:
        """Look into a small container; plain texts in it count where its name says that they are prompts."""
        if len(thing) > _MOST_ITEMS:
            return None
        texts = isinstance(thing, dict) or names_prompts(place.variable)
        items = thing.items() if isinstance(thing, dict) else enumerate(thing)
        sites: dict[Any, Site] = {}
        for key, item in items:
            if isinstance(item, str) and not texts:
                continue
            site = self.look(item, place.below(str(key), key))
            if site is not None:
                sites[key] = site
        return ContainerSite(thing, sites, live=True) if sites else None

    def _method(self, thing: types.MethodType, place: Place) -> Site | None:
        if isinstance(thing.__self__, type):
            return None
        owner = self.look(thing.__self__, place)
        return None if owner is None else MethodSite(owner, thing.__func__.__name__)

    def _instance(self, thing: Any, place: Place) -> Site | None:
        """Look into an object of the user's: its attributes, its class's texts, its methods."""
        if not hasattr(thing, "__dict__") or isinstance(thing, Traced):
            return None
        if hasattr(type(thing), "model_fields"):
            return self._model(thing, place)
        key = (*place.key, id(thing))
        here = Place(place.node, place.path, "attribute", place.file, place.line, key)
        classes = [cls for cls in type(thing).__mro__ if cls is not object and is_users(cls)]
        methods: dict[Any, Site] = {}
        values: dict[str, Any] = {}
        for cls in reversed(classes):
            for name, member in vars(cls).items():
                function = _function_in(member)
                methods.pop(name, None)
                values.pop(name, None)
                if function is not None and name != "__init__":
                    site = self.look(function, here.below(name, name) if name != "__call__" else here)
                    if site is not None:
                        methods[name] = site
                elif isinstance(member, str) and not name.startswith("__"):
                    values[name] = member
        values |= {name: one for name, one in vars(thing).items() if not _is_kept(thing, name, one)}
        attributes = {
            name: site
            for name, value in values.items()
            if (site := self.look(value, here.below(name, name))) is not None
        }
        if not (attributes or methods):
            return None
        try:
            return InstanceSite(thing, attributes, methods, self.finder.copies)
        except TypeError:  # a class that allows no subclass, or whose objects cannot be made without their own data
            return None

    def _model(self, thing: Any, place: Place) -> Site | None:
        """Look at the texts of a pydantic model of the user's."""
        sites: dict[Any, Site] = {}
        for name in type(thing).model_fields:
            value = vars(thing).get(name)
            at = Place(place.node, (*place.path, name), "attribute", place.file, place.line, (id(thing), name))
            if type(value) is str and (site := self.look(value, at)) is not None:
                sites[name] = site
        return ModelSite(thing, sites, self.finder.copies) if sites else None

    def _settings(self, thing: Any, place: Place) -> Site | None:
        """Make a site of an object whose attributes the user has named as settings."""
        sites: dict[Any, Site] = {}
        for name in self.finder.settings_below(place):
            first = name.partition(".")[0]
            site = self.look(getattr(thing, first, None), place.below(first, first, "attribute"))
            if site is not None:
                sites[first] = site
        return CopySite(thing, sites) if sites else None


class _FixedText(Site):
    """A text of the code that the user has frozen; its place was rewritten with the others."""

    def __init__(self, text: str, placeholders: tuple[str, ...], formatted: bool) -> None:
        from optograph.agents.langgraph.rewriting import fill

        self._thing: Any = text
        if formatted:
            self._thing = lambda *pieces: fill(text, placeholders, pieces)

    def now(self) -> Any:
        """Return the text, or what fills it."""
        return self._thing


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _wraps(outer: types.FunctionType, inner: types.FunctionType) -> bool:
    return getattr(outer, "__wrapped__", None) is inner
def _function_in(member: Any) -> types.FunctionType | None:
    """Return the function of a method, a static or class method, or a property, where it is the user's own."""
    found = member.__func__ if isinstance(member, staticmethod | classmethod) else member
    found = found.fget if isinstance(found, property) else found
    return found if isinstance(found, types.FunctionType) and (found is member or is_users(found)) else None


def _is_kept(thing: Any, name: str, value: Any) -> bool:
    """Whether a text is what an object has worked out and kept."""
    return isinstance(value, str) and isinstance(getattr(type(thing), name, None), functools.cached_property)




def _is_langchain(thing: Any) -> bool:
    """Whether an object is one of LangChain's, or of a class made from one of its."""
    core = sys.modules.get("langchain_core.runnables")
    return core is not None and isinstance(thing, core.Runnable)
