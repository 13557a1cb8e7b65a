"""The line of a file that a text stands on."""

from __future__ import annotations

import ast
import functools
import linecache
import sys

from optograph.agents.langgraph.places import Place, is_users


def locate(text: str, place: Place) -> tuple[str, int]:
    """Return the file and line of a text: in the file of the code that reads it, else in another of the user's.

    Args:
        text: The text.
        place: Where it was found; its own file and line are the answer where the text stands in no file.
    """
    if place.where == "constant":
        return place.file, place.line
    for file in (place.file, *_files(text)):
        lines = _lines(file).get(text)
        if lines:
            name = place.path[-1] if place.path else ""
            named = [line for line in lines if name and name in linecache.getline(file, line)]
            return file, (named or lines)[0]
    return place.file, place.line


def _files(text: str) -> list[str]:
    """Return the files of the user's modules; first of those that hold this very text, not only an equal one."""
    modules = [one for one in list(sys.modules.values()) if str(getattr(one, "__file__", None)).endswith(".py")]
    users = [one for one in modules if is_users(one)]
    users.sort(key=lambda one: not any(value is text for value in list(vars(one).values())))
    return [str(one.__file__) for one in users]


@functools.lru_cache(maxsize=1024)
def _parsed(source: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found[node.value] = (*found.get(node.value, ()), node.lineno)
    return found


def _lines(file: str) -> dict[str, tuple[int, ...]]:
    """Return the lines of every text in a file."""
    source = "".join(linecache.getlines(file)) if file.endswith(".py") else ""
    return _parsed(source) if source else {}
