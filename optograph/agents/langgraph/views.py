"""Views of a node's state: equal to the state in every way, but for noting which keys are read."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from langgraph.types import Command, Send
from pydantic import BaseModel

from optograph.agents.langgraph.containers import LiveDict, LiveList
from optograph.agents.langgraph.objects import Quiet
from optograph.graphs.packing import SCALARS

_DEEPEST = 4
_item_of = dict.__getitem__  # every node asks: half the time of super()

Reads = dict[str, None]
"""The keys that were read, in order."""


class DictView(dict[str, Any]):
    """A dict that notes the keys that are read; what gets at several keys at once reads all of them."""

    __slots__ = ("_reads",)
    _reads: Reads

    def __getitem__(self, key: str) -> Any:
        self._reads[key] = None
        return _item_of(self, key)

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
    if kind is dict or kind is DictView:
        view = DictView(state)
        view._reads = reads
        return view
    if isinstance(state, BaseModel):
        view = object.__new__(_view_class(kind))
        for name in _PARTS:
            object.__setattr__(view, name, getattr(state, name))
    elif dataclasses.is_dataclass(state) and not isinstance(state, type):
        view = object.__new__(_view_class(kind))
        _fill(view, state)
    else:
        reads["__root__"] = None
        return state
    object.__setattr__(view, _SLOT, reads)
    return view


def plain(output: Any, depth: int = 0) -> Any:
    """Return what a node gave back, without views: a node may give back the state that it got, or a part of its own.

    Args:
        output: A dict, a list, a `Send`, a `Command` or anything else; views deep inside data are not looked for.
        depth: How deep in the output this is.
    """
    kind: Any = type(output)
    if kind in SCALARS or depth > _DEEPEST:
        return output
    if kind is dict:
        for one in output.values():  # of the common kinds, made quick
            of = type(one)
            if of not in SCALARS and not (of is list and SCALARS.issuperset(map(type, one))):
                break
        else:
            return output
        changed = {key: new for key, one in output.items() if (new := plain(one, depth + 1)) is not one}
        return {**output, **changed} if changed else output
    if kind is list or kind is tuple:
        if not _may_hold_views(output):
            return output
        items = [plain(one, depth + 1) for one in output]
        return output if all(new is one for new, one in zip(items, output, strict=True)) else kind(items)
    return _opened(output, depth) if _is_opened(kind) else output


def _may_hold_views(items: Any) -> bool:
    return any(map(_is_opened, set(map(type, items)) - SCALARS))


@functools.lru_cache(maxsize=1024)
def _is_opened(kind: type) -> bool:
    return kind in (dict, list, tuple, DictView, LiveDict, LiveList, Send, Command) or _SLOT in vars(kind)


def _opened(output: Any, depth: int) -> Any:
    if isinstance(output, DictView | LiveDict):
        return plain(dict(output.items()), depth)
    if isinstance(output, LiveList):
        return plain(list(output), depth)
    if isinstance(output, Send):
        arg = plain(output.arg, depth + 1)
        if arg is output.arg:
            return output
        made = copy.copy(output)
        made.arg = arg
        return made
    if isinstance(output, Command):
        changed = {name: plain(getattr(output, name), depth + 1) for name in ("update", "goto")}
        same = all(one is getattr(output, name) for name, one in changed.items())
        return output if same else dataclasses.replace(output, **changed)
    return _real(output)


def _real(view: Any) -> Any:
    """Return an object of the state's own class in the place of its view: all of it counts as read."""
    made = object.__new__(view.__class__)
    if isinstance(view, BaseModel):
        for name in _PARTS:
            object.__setattr__(made, name, getattr(view, name))
    else:
        _fill(made, view)
    return made


def _fill(made: Any, state: Any) -> None:
    """Give a dataclass's object what another one has, also what it has beside its fields."""
    if hasattr(state, "__dict__"):
        object.__getattribute__(made, "__dict__").update(vars(state))
    for field in dataclasses.fields(state):
        object.__setattr__(made, field.name, getattr(state, field.name))


_SLOT = "_optograph_reads"
_PARTS = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")


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
        "__class__": property(lambda self: kind),
        "__reduce_ex__": lambda self, protocol: _real(self).__reduce_ex__(protocol),
    }
    if issubclass(kind, BaseModel):  # which makes copies of its own type
        members["__copy__"] = lambda self: copy.copy(_real(self))
        members["__deepcopy__"] = lambda self, memo=None: copy.deepcopy(_real(self), memo)
    make: Callable[..., type] = type(kind)
    return make(kind.__name__, (Quiet, kind), members)
