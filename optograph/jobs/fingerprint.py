"""What a run was started with: settings, data and source, so that a later process goes on or says what changed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from optograph.agents import Module
from optograph.evals import Example, Task
from optograph.graphs import Parameter
from optograph.optimizers import InSequence, Optimizer
from optograph.storage import canonical_json, content_hash

MOST_LINES = 40
"""Lines of a source difference that are shown."""


class Fingerprint(BaseModel):
    """The inputs of a run.

    Attributes:
        settings: Values by dotted name, as canonical JSON.
        data: Id and hash of each example in order, by split.
        source: Text of each source file or object, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, str]
    data: dict[str, list[tuple[str, str]]]
    source: dict[str, str]


def fingerprint_of(
    workflow: Any,
    task: Task,
    parameters: Mapping[str, Parameter],
    settings: Mapping[str, Any],
    source: Mapping[str, str],
) -> Fingerprint:
    """Gather the inputs of a run.

    Args:
        workflow: Its source is taken where there is no file in ``source``.
        task: Its examples are hashed; the test split is hashed unseen.
        parameters: Their starting values and constraints are settings.
        settings: Further settings, as nested JSON data.
        source: Texts of the files that the workflow and the scorer come from.
    """
    flat = _flatten(settings)
    for name, one in parameters.items():
        flat[f"parameters.{name}"] = canonical_json([one.spec.to_json(one.base), one.spec.describe()])
    splits = {"train": task.train, "dev": task.dev, "test": task.test.peek()}
    found = dict(source) or _source_of(workflow, task.scorer)
    return Fingerprint(
        settings=flat,
        data={split: _hashes(rows) for split, rows in splits.items()},
        source=found | _source_of_apps(workflow, found),
    )


def local_sources(base: Path) -> dict[str, str]:
    """Return the text of every loaded module whose file lies under ``base``, by its path there."""
    root = base.resolve()
    found: dict[str, str] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
        if not file or f"{os.sep}site-packages{os.sep}" in file:  # thousands, where torch is loaded
            continue
        path = Path(file).resolve()
        inside = path.is_relative_to(root) and not {"site-packages", "optograph"} & set(path.relative_to(root).parts)
        if inside and path.suffix == ".py" and path.is_file():
            found[str(path.relative_to(root))] = path.read_text(encoding="utf-8", errors="replace")
    return found


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Say in lines what changed; an empty list where nothing did."""
    lines: list[str] = []
    for name in sorted(old.settings.keys() | new.settings.keys()):
        before, after = old.settings.get(name, "(none)"), new.settings.get(name, "(none)")
        if before != after:
            lines.append(f"{name}: {_short(before)} → {_short(after)}")
    for split in sorted(old.data.keys() | new.data.keys()):
        lines.extend(_changed_rows(split, old.data.get(split, []), new.data.get(split, [])))
    for name in sorted(old.source.keys() | new.source.keys()):
        lines.extend(_changed_source(name, old.source.get(name, ""), new.source.get(name, "")))
    return lines


def _changed_rows(split: str, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> list[str]:
    if before == after:
        return []
    old, new = dict(before), dict(after)
    changed = [name for name in old if name in new and old[name] != new[name]]
    added, gone = [name for name in new if name not in old], [name for name in old if name not in new]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:5])}{' …' if len(names) > 5 else ''})"
        for what, names in (("changed", changed), ("added", added), ("removed", gone))
        if names
    ]
    return [f"data {split!r}: {', '.join(parts) or 'the rows stand in another order'}"]


def _changed_source(name: str, old: str, new: str) -> list[str]:
    if old == new:
        return []
    diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "then", "now", n=1, lineterm=""))[2:]
    more = [f"    … {len(diff) - MOST_LINES} more lines"] if len(diff) > MOST_LINES else []
    return [f"source {name!r}:", *(f"    {line}" for line in diff[:MOST_LINES]), *more]


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Return the name and the options of an optimizer, or of each of its stages, as JSON data."""
    if isinstance(optimizer, InSequence):
        return {str(number): describe_optimizer(stage) for number, stage in enumerate(optimizer.stages, 1)}
    options = getattr(optimizer, "options", None)
    plain = dataclasses.asdict(options) if dataclasses.is_dataclass(options) and not isinstance(options, type) else {}
    return {"name": optimizer.name, **_plain(plain)}


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = canonical_json(value)
    return flat


def _hashes(rows: Sequence[Example]) -> list[tuple[str, str]]:
    return [(row.id, content_hash([_plain(row.input), _plain(row.expected)])[:16]) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def _source_of(*objects: Any) -> dict[str, str]:
    """Return the source of functions and of the classes of objects, where there is any to be had."""
    found: dict[str, str] = {}
    for one in _underlying(objects):
        try:
            found[f"{one.__module__}.{one.__qualname__}"] = inspect.getsource(one)
        except (OSError, TypeError):
            continue
    return found


def _source_of_apps(workflow: Any, known: Mapping[str, str]) -> dict[str, str]:
    """Return the text of the files that LangGraph apps in a workflow come from, by the names of their modules."""
    modules = workflow.modules() if isinstance(workflow, Module) else ()
    files = [Path(file).resolve() for one in modules for file in getattr(one, "files", ())]
    names = {
        str(Path(file).resolve()): module.__name__
        for module in (list(sys.modules.values()) if files else ())
        if isinstance(module, ModuleType) and (file := getattr(module, "__file__", None))
    }
    found: dict[str, str] = {}
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        if text is not None and text not in known.values():
            found[names.get(str(path), path.name)] = text
    return found


def _underlying(objects: Iterable[Any]) -> Iterable[Any]:
    for one in objects:
        while isinstance(one, functools.partial):
            one = one.func
        inner = inspect.unwrap(one) if callable(one) else one
        yield inner if inspect.isfunction(inner) or inspect.isclass(inner) else type(inner)


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
