"""Sites: objects of a foreign app that hold texts, and that are given anew with the texts of the candidate in force."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from optograph.graphs import Parameter


class Site(ABC):
    """Something that holds texts.

    ``now`` gives it with the values that its parameters have here and now: the original object itself where no value
    is another one. Reading is noted, so that the running node depends on the parameters.
    """

    @abstractmethod
    def now(self) -> Any:
        """Return the object of this moment."""


Found = Mapping[Any, Site]


class ParameterSite(Site):
    """A text or a setting."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter

    def now(self) -> Any:
        """Return the parameter's value."""
        return self.parameter.data


class ContainerSite(Site):
    """A list, tuple or dict with sites in it."""

    def __init__(self, original: Any, sites: Found) -> None:
        self.original = original
        self.sites = sites

    def now(self) -> Any:
        """Return the container, or a copy of it."""
        changed = changes(self.original, self.sites)
        if not changed:
            return self.original
        if isinstance(self.original, dict):
            return type(self.original)({**self.original, **changed})
        return type(self.original)(changed.get(number, item) for number, item in enumerate(self.original))


class CopySite(Site):
    """An object of which a copy is made where attributes differ: a pydantic model, or one that can be copied."""

    def __init__(self, original: Any, sites: Found) -> None:
        self.original = original
        self.sites = sites

    def now(self) -> Any:
        """Return the object, or a copy of it."""
        changed = {name: new for name, site in self.sites.items() if (new := site.now()) is not self._get(name)}
        if not changed:
            return self.original
        made = self.original.model_copy() if hasattr(self.original, "model_copy") else copy.copy(self.original)
        for name, value in changed.items():
            object.__setattr__(made, name, value) if _is_frozen(made) else setattr(made, name, value)
        return made

    def _get(self, name: str) -> Any:
        return getattr(self.original, name)


class PartialSite(Site):
    """A `functools.partial`."""

    def __init__(self, original: functools.partial[Any], function: Site | None, args: Found, keywords: Found) -> None:
        self.original = original
        self.function = function
        self.args = args
        self.keywords = keywords

    def now(self) -> Any:
        """Return the partial, or one with other arguments."""
        old = self.original
        function = old.func if self.function is None else self.function.now()
        args, keywords = changes(old.args, self.args), changes(old.keywords, self.keywords)
        if function is old.func and not args and not keywords:
            return old
        return functools.partial(
            function, *(args.get(i, one) for i, one in enumerate(old.args)), **{**old.keywords, **keywords}
        )


class ModuleSite(Site):
    """A module of the user's that holds texts: a view of it, made once."""

    def __init__(self, module: ModuleType, sites: Found) -> None:
        self.view = _ModuleView(module, sites)

    def now(self) -> Any:
        """Return the view."""
        return self.view


class _ModuleView:
    def __init__(self, module: ModuleType, sites: Found) -> None:
        self.__dict__.update(_module=module, _sites=sites)

    def __getattr__(self, name: str) -> Any:
        site = self._sites.get(name)
        return getattr(self._module, name) if site is None else site.now()

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


class ClassSite(Site):
    """A class of the user's that holds texts: a subclass, made once, whose own class answers for them."""

    def __init__(self, original: type, sites: Found) -> None:
        kind: Any = type(original)
        members = {name: _class_attribute(site) for name, site in sites.items()}
        same = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
        self.view = type(kind.__name__, (kind,), members)(original.__name__, (original,), same)

    def now(self) -> Any:
        """Return the subclass."""
        return self.view


class InstanceSite(Site):
    """An object of the user's: another one that shares its state, of a subclass with the sites as properties.

    Args:
        original: The object.
        attributes: Sites of its attributes.
        methods: Sites of its class's methods, by name.
    """

    def __init__(self, original: Any, attributes: Found, methods: Found) -> None:
        members: dict[str, Any] = {
            name: _attribute(name, site, getattr(original, name)) for name, site in attributes.items()
        }
        members |= {name: _method(site, getattr(type(original), name)) for name, site in methods.items()}
        cls: Any = type(original)
        view: Any = type(
            cls.__name__, (cls,), {"__module__": cls.__module__, "__qualname__": cls.__qualname__, **members}
        )
        self.view = object.__new__(view)
        object.__setattr__(self.view, "__dict__", vars(original))

    def now(self) -> Any:
        """Return the other object."""
        return self.view


class MethodSite(Site):
    """A bound method of an object that is a site."""

    def __init__(self, owner: Site, name: str) -> None:
        self.owner = owner
        self.name = name

    def now(self) -> Any:
        """Return the method of the object of this moment."""
        return getattr(self.owner.now(), self.name)


def changes(original: Any, sites: Found) -> dict[Any, Any]:
    """Return the items that are not the original's, by key or number."""
    return {key: new for key, site in sites.items() if (new := site.now()) is not original[key]}


def _is_frozen(model: Any) -> bool:
    return bool(getattr(type(model), "model_config", {}).get("frozen"))


def _class_attribute(site: Site) -> property:
    return property(lambda cls: site.now())


def _attribute(name: str, site: Site, original: Any) -> property:
    def read(self: Any) -> Any:
        own = vars(self).get(name, original)
        return site.now() if own is original else own  # the app's own code may have set another one

    def write(self: Any, value: Any) -> None:
        vars(self)[name] = value

    return property(read, write)


def _method(site: Site, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return site.now()(self, *args, **kwargs)

    return method
