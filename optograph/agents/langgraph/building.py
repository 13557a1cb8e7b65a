"""Rebuilding a compiled graph: each node's code is searched, and each node becomes an op."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from optograph.agents.langgraph import compat
from optograph.agents.langgraph.calls import hear_langchain
from optograph.agents.langgraph.finding import Finder
from optograph.agents.langgraph.nodes import TracedNode, TracedRouter, TracedSubgraph
from optograph.agents.langgraph.places import Place
from optograph.agents.langgraph.runnables import lambda_site
from optograph.agents.langgraph.runner import GraphRunner
from optograph.agents.langgraph.searching import Search
from optograph.agents.langgraph.sites import Site
from optograph.agents.langgraph.unexplained import Unexplained
from optograph.graphs import OpInfo


class Builder:
    """Rebuilds a graph and the graphs in it, for one finder.

    Args:
        finder: Keeps the parameters.
        unexplained: Told what models are asked.
    """

    def __init__(self, finder: Finder, unexplained: Unexplained) -> None:
        self.finder = finder
        self.unexplained = unexplained
        self.async_only = False
        hear_langchain()

    def runner(self, app: Any, path: str = "") -> GraphRunner:
        """Return what stands for a graph where it is called."""
        return GraphRunner(app, self.graph(app, path), path)

    def graph(self, app: Any, path: str) -> Any:
        """Return the rebuilt copy of a graph."""
        self.finder.words |= compat.names_in(app)
        nodes = {name: self._node(app, name, node, path) for name, node in compat.nodes_of(app).items()}
        return compat.rebuilt(app, nodes, lambda name, found, ends: self._route(name, found, ends, path))

    def _node(self, app: Any, name: str, node: Any, path: str) -> Any:
        bound, whole = compat.bound_of(node), f"{path}{name}"
        if compat.is_compiled(bound):
            graph = self.graph(bound, f"{whole}/")
            shared = compat.channel_names(app) & compat.channel_names(bound)
            return TracedSubgraph(name, f"{whole}/", graph, compat.reducing_channels(bound), shared)
        if compat.is_async_only(bound):
            self.async_only = True
        site = self._site(bound, Place(whole, (), "constant", *where_of(bound), (whole,)))
        info = OpInfo(whole.replace("/", "_"), _described(bound))
        return TracedNode(name, whole, bound if site is None else site, info, self.unexplained)

    def _route(self, name: str, found: Any, ends: Mapping[Any, str] | None, path: str) -> Any:
        whole = f"{path}{name}"
        if compat.is_async_only(found):
            self.async_only = True
        place = Place(whole, (found.get_name(),), "constant", *where_of(found), (whole, found.get_name()))
        site = self._site(found, place)
        info = OpInfo(
            f"route_{whole.replace('/', '_').strip('_')}", f"Chooses what follows {whole}. {_described(found)}"
        )
        router = TracedRouter(name, f"{whole}?", found if site is None else site, info, self.unexplained)
        router.ends = ends
        return router

    def _site(self, bound: Any, place: Place) -> Site | None:
        search = Search(self.finder, self._called)
        return lambda_site(search, bound, place) if compat.is_function(bound) else search.look(bound, place)

    def _called(self, graph: Any, place: Place) -> Site | None:
        """Return the site of a graph that a node's code calls."""
        if not compat.is_compiled(graph):
            return None
        return _RunnerSite(self.runner(graph, f"{place.node}/"))


class _RunnerSite(Site):
    def __init__(self, runner: GraphRunner) -> None:
        self.runner = runner

    def now(self) -> Any:
        """Return what stands for the graph."""
        return self.runner


def _function(bound: Any) -> Any:
    if not compat.is_function(bound):
        return None
    found = bound.func or bound.afunc
    while hasattr(found, "func") and not inspect.isfunction(found):  # partials
        found = found.func
    return found if inspect.isroutine(found) else vars(type(found)).get("__call__")


def where_of(bound: Any) -> tuple[str, int]:
    """Return the file and the first line of a node's function, or an empty string and 0."""
    code = getattr(inspect.unwrap(_function(bound)) if _function(bound) else None, "__code__", None)
    return ("", 0) if code is None else (code.co_filename, code.co_firstlineno)


def _described(bound: Any) -> str:
    """Return the first line of what a node's function says of itself."""
    function = _function(bound)
    text = inspect.getdoc(function) if inspect.isfunction(function) or inspect.ismethod(function) else None
    return (text or "").strip().partition("\n")[0]
