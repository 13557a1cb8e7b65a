"""Places in the user's own code: where a search stands, and what counts as the user's."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal

Where = Literal["global", "closure", "constant", "partial", "template", "attribute", "default", "message", "bound"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the search stands.

    Attributes:
        node: The node.
        path: The variables that lead here.
        where: What holds the object.
        file: File of the code that reads it.
        line: Line.
        key: What makes it the same place when another node reads it too.
    """

    node: str
    path: tuple[str, ...]
    where: Where
    file: str
    line: int
    key: tuple[Hashable, ...]

    def below(self, name: str, key: Hashable, where: Where | None = None) -> Place:
        """Return the place one step further in."""
        return replace(self, path=(*self.path, name), where=where or self.where, key=(*self.key, key))

    @property
    def variable(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


_LIBRARIES = tuple(
    {str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")}
)
_PACKAGES = re.compile(r"[/\\](site|dist)-packages[/\\]")


def is_users(thing: Any) -> bool:
    """Whether a function, a class or a module is the user's own: neither Python's nor an installed package's."""
    if isinstance(thing, FunctionType):
        file: str | None = thing.__code__.co_filename
    elif isinstance(thing, ModuleType):
        file = getattr(thing, "__file__", None)
    else:
        if str(getattr(thing, "__module__", "")).partition(".")[0] == "optograph":
            return False
        file = getattr(sys.modules.get(getattr(thing, "__module__", "")), "__file__", None)
        if file is None:  # a module that was run from a path leaves no entry
            files = [m.__code__.co_filename for m in vars(thing).values() if isinstance(m, FunctionType)]
            file = files[0] if files else None
    if file is None or file.startswith("<"):
        return file is not None and file.startswith(("<stdin", "<ipython", "<string"))
    return not (_PACKAGES.search(file) or str(Path(file).resolve()).startswith(_LIBRARIES))
