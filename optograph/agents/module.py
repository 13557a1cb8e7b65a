"""Modules: workflows that own parameters and steps, and can be saved, loaded and exported to plain files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optograph.agents.saving import load_parameters, save_parameters
from optograph.errors import UserError
from optograph.graphs import CodeSpec, Parameter, ParameterContainer, TextSpec

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def _no_forward(self: Module, **inputs: Any) -> Any:
    raise UserError(f"{type(self).__name__} has no forward method: define `def forward(self, ...)`")


class Module(ParameterContainer):
    """Base class of workflows: assign parameters, steps and other modules to attributes, then define ``forward``.

    Calling the module calls ``forward``. ``parameters()``, ``state_dict()`` and ``load_state_dict()`` come from the
    container: they find everything held in attributes, lists and dicts.
    """

    def __call__(self, **inputs: Any) -> Any:
        """Run ``forward``."""
        return self.forward(**inputs)

    forward: Callable[..., Any] = _no_forward
    """Define the workflow here; the keyword arguments are an example's input fields."""

    def modules(self) -> Iterator[Module]:
        """Yield this module and every module below it, each once, found in attributes, lists, tuples and dicts."""
        stack: list[Any] = [self]
        seen: set[int] = set()
        while stack:
            item = stack.pop()
            if id(item) in seen or not isinstance(item, Module | list | tuple | dict):
                continue
            seen.add(id(item))
            if isinstance(item, Module):
                yield item
                stack.extend(vars(item).values())
            else:
                stack.extend(item.values() if isinstance(item, dict) else item)

    def save(self, path: str | Path) -> Path:
        """Write the parameters' own values to one JSON file, whole or not at all; an older file is replaced.

        Args:
            path: The file, such as ``"workflow.json"``; missing folders are made.

        Raises:
            UserError: A value holds an API key, or the path is a folder.
            StorageError: The file cannot be written.
        """
        return save_parameters(self.named_parameters(), path)

    def load(self, path: str | Path) -> None:
        """Set the parameters from a file that `save` wrote; everything is checked before any is set.

        Raises:
            UserError: The file is missing or no such file, a name is missing or unknown, or a parameter refuses its
                value; nothing has changed then.
        """
        load_parameters(self.named_parameters(), path)

    def export(self, directory: str | Path) -> list[Path]:
        """Write each parameter to a plain file: text as ``.txt``, code as ``.py``, everything else as ``.json``.

        Args:
            directory: Where to write; made if it is missing.

        Returns:
            The files, in the order of the parameters.
        """
        return export_parameters(self.named_parameters(), directory)


def export_parameters(parameters: Mapping[str, Parameter], directory: str | Path) -> list[Path]:
    """Write parameters to plain files, one each, named after the parameter."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    written = []
    for name, parameter in parameters.items():
        value = parameter.spec.to_json(parameter.base)
        if isinstance(parameter.spec, TextSpec | CodeSpec):
            path, text = root / f"{_file_name(name)}.{_suffix(parameter.spec)}", str(value)
        else:
            path, text = root / f"{_file_name(name)}.json", json.dumps(value, ensure_ascii=False, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
        written.append(path)
    return written


def _file_name(name: str) -> str:
    return _UNSAFE.sub("_", name).lstrip(".") or "parameter"


def _suffix(spec: TextSpec | CodeSpec) -> str:
    return "py" if isinstance(spec, CodeSpec) else "txt"
