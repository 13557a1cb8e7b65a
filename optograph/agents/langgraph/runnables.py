"""LangChain's objects that hold texts: prompt templates, messages, sequences, bound models, tools."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import BasePromptTemplate
from langchain_core.prompts.chat import BaseChatPromptTemplate, ChatPromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate
from langchain_core.prompts.string import StringPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
)
from langchain_core.runnables.config import run_in_executor
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.pregel import Pregel

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.containers import ContainerSite
from optograph.agents.langgraph.places import Place
from optograph.agents.langgraph.sites import CopySite, Site, calling
from optograph.agents.langgraph.views import DictView

if TYPE_CHECKING:
    from optograph.agents.langgraph.searching import Search

_ROLES = {"human": "user", "ai": "assistant"}


def look_langchain(search: Search, thing: Any, place: Place) -> Site | None:
    """Return the site of one of LangChain's or LangGraph's objects, or None."""
    if isinstance(thing, Pregel):
        return search.graph(thing, place)
    if isinstance(thing, BaseMessage):
        return _copy(search, thing, place.below(_role(thing), "content", "message"), "content")
    if isinstance(thing, BasePromptTemplate | BaseMessagePromptTemplate):
        return _with_partials(search, thing, place, _template(search, thing, place))
    if compat.is_task(thing):
        site = search.look(thing.func, place)
        return None if site is None else _LambdaSite(thing, {"func": site}, own_async=False)
    if isinstance(thing, RunnableSequence):
        return _sequence(search, thing, place)
    if isinstance(thing, RunnableParallel):
        branches = ContainerSite(thing.steps__, _items(search, thing.steps__, place))
        return CopySite(thing, {"steps__": branches}) if branches.sites else None
    if isinstance(thing, RunnableLambda):
        return lambda_site(search, thing, place)
    if isinstance(thing, RunnableBinding):
        return _binding(search, thing, place)
    if isinstance(thing, BaseTool):
        return _tool(search, thing, place)
    return None


def _role(message: Any) -> str:
    kind = str(getattr(message, "type", "") or type(message).__name__)
    return _ROLES.get(kind, kind)


def _copy(search: Search, thing: Any, place: Place, *attributes: str) -> Site | None:
    sites = {one: site for one in attributes if (site := search.look(getattr(thing, one), place)) is not None}
    return CopySite(thing, sites) if sites else None


def _items(search: Search, items: Mapping[str, Any], place: Place) -> dict[Any, Site]:
    return {key: site for key, one in items.items() if (site := search.look(one, place.below(key, key))) is not None}


def _template(search: Search, thing: Any, place: Place) -> Site | None:
    if isinstance(thing, StringPromptTemplate):
        return (
            _copy(search, thing, place.below("template", "template", "template"), "template")
            if hasattr(thing, "template")
            else None
        )
    if isinstance(thing, BaseMessagePromptTemplate):
        prompt = getattr(thing, "prompt", None)  # a placeholder for messages has none
        if not hasattr(prompt, "template"):
            return None
        role = type(thing).__name__.removesuffix("MessagePromptTemplate").lower() or "message"
        at = place.below(_ROLES.get(role, role), role, "template")
        inner = _copy(search, prompt, at, "template")
        return None if inner is None else CopySite(thing, {"prompt": inner})
    if isinstance(thing, ChatPromptTemplate) or (
        isinstance(thing, BaseChatPromptTemplate) and hasattr(thing, "messages")
    ):
        sites: dict[Any, Site] = {}
        for number, message in enumerate(thing.messages):
            site = search.look(
                message, Place(place.node, place.path, "template", place.file, place.line, (*place.key, number))
            )
            if site is not None:
                sites[number] = site
        return CopySite(thing, {"messages": ContainerSite(thing.messages, sites)}) if sites else None
    return None


def _with_partials(search: Search, thing: Any, place: Place, found: Site | None) -> Site | None:
    """Add the texts that a template was given beforehand."""
    given = getattr(thing, "partial_variables", None)
    if not given:
        return found
    at = Place(place.node, place.path, "partial", place.file, place.line, place.key)
    sites = _items(search, given, at)
    if not sites:
        return found
    more = {"partial_variables": ContainerSite(given, sites)}
    return CopySite(thing, {**(found.sites if isinstance(found, CopySite) else {}), **more})


class _Narrow(Runnable[Any, Any]):
    """A prompt template in a chain: it reads its own variables of the state, and no others."""

    def __init__(self, template: Any) -> None:
        self.name = template.get_name()
        self._template = template
        self._names = (*template.input_variables, *getattr(template, "optional_variables", ()))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Fill the template in."""
        return self._template.invoke(self._narrowed(input), config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Fill the template in."""
        return await self._template.ainvoke(self._narrowed(input), config, **kwargs)

    def _narrowed(self, given: Any) -> Any:
        return {name: given[name] for name in self._names if name in given} if type(given) is DictView else given


class _NarrowSite(Site):
    def __init__(self, original: Any, site: Site | None) -> None:
        self._site = site
        self._plain = _Narrow(original)
        self._original = original

    def now(self) -> Any:
        """Return what fills the template in."""
        template = self._original if self._site is None else self._site.now()
        return self._plain if template is self._original else _Narrow(template)


def _sequence(search: Search, thing: Any, place: Place) -> Site | None:
    """Look into each step of ``a | b | c``; the steps are no part of the names, where they can be told apart."""
    sites: dict[str, Site] = {}
    first = search.look(thing.first, _at(place, "first"))
    if isinstance(thing.first, BasePromptTemplate):
        first = _NarrowSite(thing.first, first)
    last = search.look(thing.last, _at(place, "last"))
    middle = {i: site for i, one in enumerate(thing.middle) if (site := search.look(one, _at(place, i))) is not None}
    if first is not None:
        sites["first"] = first
    if middle:
        sites["middle"] = ContainerSite(thing.middle, middle)
    if last is not None:
        sites["last"] = last
    return CopySite(thing, sites) if sites else None


def _at(place: Place, key: Any) -> Place:
    return Place(place.node, place.path, place.where, place.file, place.line, (*place.key, key))


def _binding(search: Search, thing: Any, place: Place) -> Site | None:
    sites: dict[str, Site] = {}
    bound = search.look(thing.bound, _at(place, "bound"))
    if bound is not None:
        sites["bound"] = bound
    at = Place(place.node, place.path, "bound", place.file, place.line, place.key)
    keywords = _items(search, dict(thing.kwargs), at)
    if keywords:
        sites["kwargs"] = ContainerSite(dict(thing.kwargs), keywords)
    return CopySite(thing, sites) if sites else None


def _tool(search: Search, thing: Any, place: Place) -> Site | None:
    sites: dict[str, Site] = {}
    if isinstance(thing, StructuredTool):
        for name in ("func", "coroutine"):
            function = getattr(thing, name)
            site = None if function is None else search.look(function, _at(place, name))
            if site is not None:
                sites[name] = site
    for name in search.finder.settings_below(place):
        setting = search.look(getattr(thing, name, None), place.below(name, name, "attribute"))
        if setting is not None:
            sites[name] = setting
    return CopySite(thing, sites) if sites else None


def lambda_site(search: Search, thing: Any, place: Place) -> Site | None:
    """Return the site of a runnable that holds a function, sync, async or both, as ``func`` and ``afunc``."""
    sites: dict[str, Site] = {}
    func, afunc = getattr(thing, "func", None), getattr(thing, "afunc", None)
    own_async = afunc is not None and not _runs(afunc, func)
    if func is not None and (site := search.look(func, place)) is not None:
        sites["func"] = site
    if own_async and (site := search.look(afunc, _at(place, "async"))) is not None:
        sites["afunc"] = site
    return _LambdaSite(thing, sites, own_async) if sites else None


def _runs(afunc: Any, func: Any) -> bool:
    """Whether an async function is only the sync one, run in an executor."""
    return isinstance(afunc, functools.partial) and func in afunc.args


class _LambdaSite(Site):
    """A runnable with functions, made once: it looks up at each call those that may change."""

    fixed = True

    def __init__(self, original: Any, sites: dict[str, Site], own_async: bool) -> None:
        self.view = copy.copy(original)
        self.view.__dict__.pop("deps", None)
        for name, site in sites.items():
            setattr(self.view, name, calling(site, getattr(original, name)))
        if "func" in sites and not own_async and getattr(original, "afunc", None) is not None:
            self.view.afunc = functools.partial(run_in_executor, None, self.view.func)

    def now(self) -> Any:
        """Return the runnable."""
        return self.view
