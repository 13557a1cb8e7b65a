"""Lists, tuples and dicts with texts in them: read with the candidate's texts, written where the app's own stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from optograph.agents.langgraph.sites import Found, Seen, Site, changes, seen_in


class ContainerSite(Site):
    """A list, tuple or dict with sites in it.

    Args:
        original: The container.
        sites: Sites of its items, by key or number.
        live: Whether the app's own code gets it, so that what it writes must reach the original.
    """

    def __init__(self, original: Any, sites: Found, *, live: bool = False) -> None:
        self.original = original
        self.sites = sites
        self._seen: Seen = seen_in(original, sites)
        self._live = live

    def now(self) -> Any:
        """Return the container, or a copy of it; what is written to the copy of a live one is written to both."""
        changed = changes(self.original, self._seen)
        if not changed:
            return self.original
        if isinstance(self.original, dict):
            items = {**self.original, **changed}
            return LiveDict(items, self.original, changed) if self._live else type(self.original)(items)
        given = [changed.get(number, item) for number, item in enumerate(self.original)]
        if self._live and type(self.original) is list:
            return LiveList(given, self.original, changed)
        return type(self.original)(given)


class LiveDict(dict[Any, Any]):
    """A copy of a dict with other texts: what is written to it is written to the original too.

    Args:
        items: What it holds.
        original: The dict.
        changed: The candidate's texts in it.
    """

    __slots__ = ("_changed", "_original")

    def __init__(self, items: Mapping[Any, Any], original: dict[Any, Any], changed: Mapping[Any, Any]) -> None:
        super().__init__(items)
        self._original = original
        self._changed = changed

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if not _is_made_of(value, self._changed.get(key)):
            self._original[key] = unwrapped(value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._original.pop(key, None)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take an item out of both."""
        found = super().pop(key, *default)
        self._original.pop(key, None)
        return found

    def popitem(self) -> tuple[Any, Any]:
        """Take the last item out of both."""
        key, value = super().popitem()
        self._original.pop(key, None)
        return key, value

    def clear(self) -> None:
        """Empty both."""
        super().clear()
        self._original.clear()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return an item, or set it in both."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *given: Any, **named: Any) -> None:
        """Set items in both."""
        for key, value in dict(*given, **named).items():
            self[key] = value

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)


class LiveList(list[Any]):
    """A copy of a list with other texts: what is written to it is written to the original too.

    Args:
        items: What it holds.
        original: The list.
        changed: The candidate's texts in it, by number.
    """

    __slots__ = ("_changed", "_original")

    def __init__(self, items: Iterable[Any], original: list[Any], changed: Mapping[Any, Any]) -> None:
        super().__init__(items)
        self._original = original
        self._changed = changed

    def _both(self, name: str, *args: Any, **options: Any) -> Any:
        found = getattr(super(), name)(*args, **options)
        with suppress(IndexError, ValueError):  # the original has changed meanwhile: this is for the copy alone
            getattr(self._original, name)(*args, **options)
        return found

    def append(self, item: Any) -> None:
        """Put an item at the end of both."""
        super().append(item)
        self._original.append(unwrapped(item))

    def extend(self, items: Iterable[Any]) -> None:
        """Put items at the end of both."""
        for item in list(items):
            self.append(item)

    def __iadd__(self, items: Any) -> Any:  # type: ignore[misc]
        self.extend(items)
        return self

    def insert(self, index: Any, item: Any) -> None:
        """Put an item into both."""
        super().insert(index, item)
        self._original.insert(index, unwrapped(item))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            value = list(value)
        super().__setitem__(index, value)
        if not _is_made_of(value, self._changed.get(index) if isinstance(index, int) else None):
            self._write(index, value)

    def _write(self, index: Any, value: Any) -> None:
        given = [unwrapped(one) for one in value] if isinstance(index, slice) else unwrapped(value)
        if isinstance(index, slice) or -len(self._original) <= index < len(self._original):
            self._original[index] = given

    def __delitem__(self, index: Any) -> None:
        self._both("__delitem__", index)

    def pop(self, index: Any = -1) -> Any:
        """Take an item out of both."""
        return self._both("pop", index)

    def remove(self, item: Any) -> None:
        """Take an item out of both: the one at the same place."""
        del self[self.index(item)]

    def clear(self) -> None:
        """Empty both."""
        self._both("clear")

    def reverse(self) -> None:
        """Turn both round."""
        self._both("reverse")

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort both."""
        self._both("sort", key=key, reverse=reverse)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (list(self),)


def unwrapped(value: Any) -> Any:
    """Return what a copy stands for, or the value itself."""
    return value._original if type(value) is LiveDict or type(value) is LiveList else value


def _is_made_of(value: Any, text: Any) -> bool:
    """Whether what is written is a candidate's text, perhaps trimmed or longer: the app's own must not hold it."""
    if not (isinstance(value, str) and isinstance(text, str)):
        return False
    return text.strip() in value or (bool(value.strip()) and value.strip() in text)
