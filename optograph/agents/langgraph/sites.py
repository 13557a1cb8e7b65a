"""Sites: objects of a foreign app that hold texts, and that are given anew with the texts of the candidate in force."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from optograph.graphs import Parameter
from optograph.graphs.state import current

_MOST_COPIES = 256


class Site(ABC):
    """Something that holds texts.

    ``now`` gives it with the values that its parameters have here and now: the original object itself where no value
    is another one. Reading is noted, so that the running node depends on the parameters.

    Attributes:
        fixed: Whether ``now`` gives the very same object from here on, so that nobody needs to ask again.
    """

    fixed: bool = False

    @abstractmethod
    def now(self) -> Any:
        """Return the object of this moment."""

    def asked(self) -> Callable[[], Any]:
        """Return the quickest function that does what ``now`` does."""
        return self.now


Found = Mapping[Any, Site]
Seen = Mapping[Any, tuple[Site, Any]]


class ParameterSite(Site):
    """A text or a setting."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter

    def now(self) -> Any:
        """Return the parameter's value."""
        return self.parameter.data

    def asked(self) -> Callable[[], Any]:
        """Return the parameter's own function."""
        return self.parameter._read


class CopySite(Site):
    """An object of which a copy is made where attributes differ: a pydantic model, or one that can be copied."""

    def __init__(self, original: Any, sites: Found) -> None:
        self.original = original
        self.sites = sites
        self._seen = {name: getattr(original, name) for name in sites}

    def now(self) -> Any:
        """Return the object, or a copy of it."""
        changed = {}
        for name, site in self.sites.items():
            own = getattr(self.original, name)
            if _is_same(own, self._seen[name]) and (new := site.now()) is not own:
                changed[name] = new
        return self._copied(changed) if changed else self.original

    def _copied(self, changed: Mapping[str, Any]) -> Any:
        made = self.original.model_copy() if hasattr(self.original, "model_copy") else copy.copy(self.original)
        for name, value in changed.items():
            object.__setattr__(made, name, value) if _is_frozen(made) else setattr(made, name, value)
        return made


class ModelSite(CopySite):
    """A pydantic model of the user's: each candidate has one copy of it, which keeps what the app sets there.

    Args:
        original: The model.
        sites: Sites of its fields.
        copies: The copies that the sites of the same model share.
    """

    def __init__(self, original: Any, sites: Found, copies: Copies) -> None:
        super().__init__(original, sites)
        self._copies = copies

    def now(self) -> Any:
        """Return the model, or the candidate's copy."""
        applied = current().scope.applied
        if applied is None:
            return super().now()
        for site in self.sites.values():
            site.now()  # the node depends on them
        return self._copies.of(self.original, applied.values, super().now)


class PartialSite(Site):
    """A `functools.partial`."""

    def __init__(self, original: functools.partial[Any], function: Site | None, args: Found, keywords: Found) -> None:
        self.original = original
        self.function = function
        self._args = seen_in(original.args, args)
        self._keywords = seen_in(original.keywords, keywords)

    def now(self) -> Any:
        """Return the partial, or one with other arguments."""
        old = self.original
        function = old.func if self.function is None else self.function.now()
        args, keywords = changes(old.args, self._args), changes(old.keywords, self._keywords)
        if function is old.func and not args and not keywords:
            return old
        return functools.partial(
            function, *(args.get(i, one) for i, one in enumerate(old.args)), **{**old.keywords, **keywords}
        )


class ModuleSite(Site):
    """A module of the user's that holds texts: a view of it, made once."""

    fixed = True

    def __init__(self, module: ModuleType, sites: Found) -> None:
        self.view = _ModuleView(module, sites)

    def now(self) -> Any:
        """Return the view."""
        return self.view


class _ModuleView:
    def __init__(self, module: ModuleType, sites: Found) -> None:
        self.__dict__.update(_module=module, _sites=seen_in(vars(module), sites))

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._module, name)
        known = self._sites.get(name)
        return known[0].now() if known is not None and known[1] is own else own

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


class MethodSite(Site):
    """A bound method of an object that is a site."""

    def __init__(self, owner: Site, name: str) -> None:
        self.owner = owner
        self.name = name

    def now(self) -> Any:
        """Return the method of the object of this moment."""
        return getattr(self.owner.now(), self.name)


class Copies:
    """Keeps a copy of an object for each candidate, for the last so many: a candidate's copy has its own state.

    What an object keeps back of a text that it once read would else reach the other candidates, and the app itself.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, OrderedDict[int, tuple[Any, Any]]]] = {}
        self._lock = threading.Lock()

    def of(self, original: Any, values: Any, make: Callable[[], Any]) -> Any:
        """Return the copy of an object for a candidate.

        Args:
            original: What is copied.
            values: The candidate's values: the same ones get the same copy.
            make: Makes the copy.
        """
        with self._lock:
            copies = self._known.setdefault(id(original), (original, OrderedDict()))[1]
            known = copies.get(id(values))
            if known is not None:
                copies.move_to_end(id(values))
                return known[1]
        made = make()
        with self._lock:
            made = copies.setdefault(id(values), (values, made))[1]
            while len(copies) > _MOST_COPIES:
                copies.popitem(last=False)
        return made


def seen_in(original: Any, sites: Found) -> Seen:
    """Return sites with what stands in their place now: the app may put something else there as it runs."""
    return {key: (site, original[key]) for key, site in sites.items()}


def changes(original: Any, seen: Seen) -> dict[Any, Any]:
    """Return the items that are not the original's, by key or number; what the app has replaced is left as it is."""
    found: dict[Any, Any] = {}
    for key, (site, was) in seen.items():
        try:
            own = original[key]
        except (KeyError, IndexError):  # taken out
            continue
        if own is was and (new := site.now()) is not own:
            found[key] = new
    return found


def calling(site: Site, original: Any) -> Any:
    """Return a function that calls what a site holds at that moment, of the same kind and signature as the original."""
    if site.fixed:
        return site.now()
    called = getattr(original, "__call__", None)  # noqa: B004 - an object may be called too
    for is_kind, make in _KINDS:
        if is_kind(original) or is_kind(called):
            made = make(site)
            break
    else:
        made = _calling(site)
    functools.update_wrapper(made, original)
    made.__signature__ = inspect.signature(original)
    return made


def _calling(site: Site) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return site.now()(*args, **kwargs)

    return call


def _calling_coroutine(site: Site) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await site.now()(*args, **kwargs)

    return call


def _calling_generator(site: Site) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return (yield from site.now()(*args, **kwargs))

    return call


def _calling_async_generator(site: Site) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        async for item in site.now()(*args, **kwargs):
            yield item

    return call


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Site], Any]], ...] = (
    (inspect.iscoroutinefunction, _calling_coroutine),
    (inspect.isasyncgenfunction, _calling_async_generator),
    (inspect.isgeneratorfunction, _calling_generator),
)


def _is_frozen(model: Any) -> bool:
    return bool(getattr(type(model), "model_config", {}).get("frozen"))


def _is_same(own: Any, was: Any) -> bool:
    """Whether an attribute is what it was; one that is worked out anew counts by its value."""
    return own is was or (type(own) is type(was) and type(own) in (int, float, str, bool) and own == was)
