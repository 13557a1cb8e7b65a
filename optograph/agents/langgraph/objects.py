"""Classes and objects of the user's that hold texts: views of them that the app's code gets in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from optograph.agents.langgraph.places import is_users
from optograph.agents.langgraph.sites import Copies, Found, Site, calling
from optograph.graphs.state import current

_NONE = object()
_VIEW = "_optograph_view"


class Quiet:
    """Keeps the hooks that a class has for its subclasses from hearing of its views."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Tell nobody."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Tell nobody."""


class ClassSite(Site):
    """A class of the user's that only holds texts: a view of it, made once, that answers for them.

    Raises:
        TypeError: It allows no view: exceptions are caught by their own class.
    """

    def __init__(self, original: type, sites: Found) -> None:
        if issubclass(original, BaseException):
            raise TypeError(f"{original!r} is an exception")
        members: dict[str, Any] = {name: _class_attribute(original, name, site) for name, site in sites.items()}
        self.view = _subclass(original, {}, {**members, **_standing_for(original)})

    def now(self) -> Any:
        """Return the view."""
        return self.view


class InstanceSite(Site):
    """An object of the user's: another one of a subclass, whose texts and methods are the sites.

    Outside any candidate it shares the object's state. Each candidate has a copy of the state, made when it is first
    read: what the object keeps of a text (a lazily built prompt, say) stays with the candidate.

    Args:
        original: The object.
        attributes: Sites of its attributes.
        methods: Sites of its class's methods, by name.
        copies: The copies that the sites of the same object share.

    Raises:
        TypeError: The object has a part that no other one can share, or its class allows no subclass.
    """

    def __init__(self, original: Any, attributes: Found, methods: Found, copies: Copies) -> None:
        cls: Any = type(original)
        if _has_slots(cls):
            raise TypeError(f"{cls!r} has slots")
        members: dict[str, Any] = {
            name: _Attribute(cls, name, site, getattr(original, name)) for name, site in attributes.items()
        }
        members |= {name: _member(cls, name, site) for name, site in methods.items()}
        if hasattr(cls, "__del__"):
            members["__del__"] = lambda view: None  # the object itself is not gone
        self.original = original
        self.class_view = _subclass(cls, members, {})
        self.view = self._made(vars(original))
        self._copies = copies

    def now(self) -> Any:
        """Return the other object."""
        applied = current().scope.applied
        if applied is None:
            return self.view
        return self._copies.of(self, applied.values, self._copied)

    def _copied(self) -> Any:
        applied = current().scope.applied
        values = None if applied is None else applied.values
        return self._made(self._copies.of(self.original, values, lambda: _state(self.original)))

    def _made(self, state: dict[str, Any]) -> Any:
        view = object.__new__(self.class_view)
        object.__setattr__(view, "__dict__", state)
        return view


class _Attribute:
    """A text of an object or of its class; both can be asked for it.

    Args:
        cls: The object's class.
        name: The attribute.
        site: The site.
        seen: What the object had: the app's own code may set something else, which then counts.
    """

    def __init__(self, cls: Any, name: str, site: Site, seen: Any) -> None:
        self._cls, self._name, self._site, self._seen = cls, name, site, seen

    def __get__(self, thing: Any, cls: Any = None) -> Any:
        own = _NONE if thing is None else vars(thing).get(self._name, _NONE)
        if own is _NONE:
            own = getattr(self._cls, self._name)
        return self._site.now() if own is self._seen else own

    def __set__(self, thing: Any, value: Any) -> None:
        vars(thing)[self._name] = value

    def __delete__(self, thing: Any) -> None:
        if self._name not in vars(thing):
            raise AttributeError(self._name)
        del vars(thing)[self._name]


def _standing_for(original: Any) -> dict[str, Callable[..., Any]]:
    """Return what makes a view of a class do as the class does: its objects are the class's own."""

    def make(view: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    def is_instance(view: Any, thing: Any) -> bool:
        return isinstance(thing, original)

    def is_subclass(view: Any, cls: Any) -> bool:
        return issubclass(cls, original)

    def equals(view: Any, other: Any) -> bool:
        return other is view or other is original

    def hashed(view: Any) -> int:
        return hash(original)

    return {
        "__call__": make,
        "__instancecheck__": is_instance,
        "__subclasscheck__": is_subclass,
        "__eq__": equals,
        "__hash__": hashed,
    }


def _class_attribute(original: type, name: str, site: Site) -> property:
    seen = getattr(original, name)

    def read(view: Any) -> Any:
        own = getattr(original, name)
        return site.now() if own is seen else own

    return property(read)


def _member(cls: Any, name: str, site: Site) -> Any:
    """Return a method, static method, class method or property that calls what a site holds."""
    found = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    if isinstance(found, staticmethod | classmethod):
        return type(found)(calling(site, found.__func__))
    if isinstance(found, property):
        return property(calling(site, found.fget), found.fset, found.fdel, found.__doc__)
    return calling(site, found)


def _subclass(cls: Any, members: Mapping[str, Any], of_class: Mapping[str, Any]) -> Any:
    """Return a subclass that looks like its base, and passes on what is set on it.

    Args:
        cls: The class.
        members: What its objects have.
        of_class: What the subclass itself has.
    """
    kind: Any = type(cls)
    if is_users(kind):
        raise TypeError(f"{kind!r} would hear of a class that is not the app's")

    def set_on(view: Any, name: str, value: Any) -> None:
        own = name.startswith(("__", "_abc_")) or _VIEW not in vars(view)  # what the making of a class sets
        kind.__setattr__(view if own else cls, name, value)

    def delete_on(view: Any, name: str) -> None:
        kind.__delattr__(cls if _VIEW in vars(view) else view, name)

    meta = type(kind.__name__, (kind,), {"__setattr__": set_on, "__delattr__": delete_on, **of_class})
    same = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, _VIEW: True}
    return meta(cls.__name__, (Quiet, cls), {**same, **members})


def _has_slots(cls: type) -> bool:
    slots: list[str] = []
    for base in cls.__mro__:
        given = vars(base).get("__slots__", ())
        slots += [given] if isinstance(given, str) else list(given)
    return any(one not in ("__dict__", "__weakref__") for one in slots)


def _state(original: Any) -> dict[str, Any]:
    """Return a copy of an object's attributes, less the texts that it has worked out and kept."""
    return {
        name: value
        for name, value in dict(vars(original)).items()
        if not (isinstance(value, str) and isinstance(getattr(type(original), name, None), cached_property))
    }
