"""Views of a node's state: equal to the state in every way, but for noting which keys are read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

Reads = dict[str, None]
"""The keys that were read, in order."""


class DictView(dict[str, Any]):
    """A dict that notes the keys that are read; what gets at several keys at once reads all of them."""

    __slots__ = ("_reads",)

    def __init__(self, state: dict[str, Any], reads: Reads) -> None:
        super().__init__(state)
        self._reads = reads

    def __getitem__(self, key: str) -> Any:
        self._reads[key] = None
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Read a key."""
        self._reads[key] = None
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._reads[str(key)] = None
        return super().__contains__(key)

    def _all(self) -> None:
        self._reads.update(dict.fromkeys(super().keys()))

    def __iter__(self) -> Iterator[str]:
        # Names alone are no reads. That this method is here makes `dict(state)` and `{**state}` ask for each key.
        return super().__iter__()

    def values(self) -> Any:
        """Read all."""
        self._all()
        return super().values()

    def items(self) -> Any:
        """Read all."""
        self._all()
        return super().items()

    def pop(self, key: str, *default: Any) -> Any:
        """Read a key, and take it out of this node's copy."""
        self._reads[key] = None
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Read a key, and set it in this node's copy where it is not there."""
        self._reads[key] = None
        return super().setdefault(key, default)

    def copy(self) -> dict[str, Any]:
        """Read all."""
        self._all()
        return dict(super().items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __eq__(self, other: object) -> bool:
        self._all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        self._all()
        return super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (self.copy(),)


def view_of(state: Any, reads: Reads) -> Any:
    """Return a view of a state that notes what is read of it.

    Args:
        state: A dict, a dataclass or a pydantic model.
        reads: Where to note; a state of another kind is read as a whole, under the key ``"__root__"``.
    """
    kind: Any = type(state)
    view: Any
    if kind is dict:
        return DictView(state, reads)
    if isinstance(state, BaseModel):
        view = object.__new__(_view_class(kind))
        for name in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"):
            object.__setattr__(view, name, getattr(state, name))
    elif dataclasses.is_dataclass(state) and not isinstance(state, type):
        view = object.__new__(_view_class(kind))
        for field in dataclasses.fields(state):
            object.__setattr__(view, field.name, getattr(state, field.name))
    else:
        reads["__root__"] = None
        return state
    object.__setattr__(view, _SLOT, reads)
    return view


def plain(output: Any) -> Any:
    """Return what a node gave back, without views: a node may give back the state that it got."""
    if type(output) is DictView:
        return output.copy()
    if type(output) is dict:
        for key, item in output.items():
            if type(item) is DictView:
                return {**output, key: item.copy()} | {k: v.copy() for k, v in output.items() if type(v) is DictView}
    return output


_SLOT = "_optograph_reads"


@functools.lru_cache(maxsize=256)
def _view_class(kind: Any) -> Any:
    """Return a subclass that looks like its base and notes the fields that are read."""
    names = kind.model_fields if issubclass(kind, BaseModel) else [one.name for one in dataclasses.fields(kind)]
    fields = frozenset(names)

    def __getattribute__(self: Any, name: str) -> Any:
        if name in fields or name == "__dict__":
            try:
                reads = object.__getattribute__(self, _SLOT)
            except AttributeError:  # a copy that the node made
                reads = {}
            reads.update(dict.fromkeys(fields if name == "__dict__" else (name,)))
        return kind.__getattribute__(self, name)

    members: dict[str, Any] = {
        "__slots__": (_SLOT,),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__getattribute__": __getattribute__,
    }
    if not issubclass(kind, BaseModel):
        members["__class__"] = property(lambda self: kind)
    make: Callable[..., type] = type(kind)
    return make(kind.__name__, (kind,), members)
