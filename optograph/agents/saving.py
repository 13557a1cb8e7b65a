"""Parameters in one JSON file: written whole or not at all, read only where everything fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from optograph.errors import UserError
from optograph.graphs import Parameter
from optograph.secrets import scrub
from optograph.storage import write_whole

FORMAT = "optograph.parameters"
VERSION = 1


def save_parameters(parameters: Mapping[str, Parameter], path: str | Path) -> Path:
    """Write the parameters' own values to a file, with the kind of each; an older file is replaced.

    Raises:
        UserError: A value holds an API key that is in use, or a number that JSON does not know; or the path is a
            folder.
        StorageError: The file cannot be written; an older one is left as it was.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{str(path)!r} is a folder; name a file in it, such as {str(target / 'workflow.json')!r}")
    rows = {
        name: {"kind": parameter.spec.kind, "value": parameter.spec.to_json(parameter.base)}
        for name, parameter in parameters.items()
    }
    for name, row in rows.items():
        _check(name, row)
    data = {"format": FORMAT, "version": VERSION, "parameters": rows}
    write_whole(target, _encoded(data))
    return target


def load_parameters(parameters: Mapping[str, Parameter], path: str | Path) -> None:
    """Set the parameters from a file that `save_parameters` wrote; everything is checked before any is set.

    Raises:
        UserError: The file is missing or no such file, a name is missing or unknown, a parameter has become one of
            another kind, or its spec refuses the value; nothing has changed then.
    """
    rows = _read(Path(path))
    missing, unknown = sorted(parameters.keys() - rows.keys()), sorted(rows.keys() - parameters.keys())
    if missing or unknown:
        raise UserError(
            f"{str(path)!r} was saved by another workflow: it lacks {missing!r} and has unknown {unknown!r}"
        )
    values = {}
    for name, parameter in parameters.items():
        row = rows[name]
        if not isinstance(row, Mapping) or set(row) != {"kind", "value"}:
            raise UserError(f"{str(path)!r} does not give kind and value of parameter {name!r}, but {row!r}")
        if row["kind"] != parameter.spec.kind:
            raise UserError(
                f"{str(path)!r} holds parameter {name!r} as {row['kind']!r}, but here it is {parameter.spec.kind!r}"
            )
        try:
            values[name] = parameter.spec.validate(row["value"])
        except UserError as error:
            raise UserError(f"{str(path)!r} does not fit parameter {name!r}: {error}") from None
    for name, parameter in parameters.items():
        parameter.set(values[name])


def _check(name: str, row: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(f"parameter {name!r} cannot be written as JSON ({error}): {row['value']!r}") from None
    if scrub(text) != text:
        raise UserError(f"parameter {name!r} holds an API key and is not written: take it out of the value")


def _encoded(data: Mapping[str, Any]) -> bytes:
    try:
        return f"{json.dumps(data, ensure_ascii=False, indent=2)}\n".encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return f"{json.dumps(data, indent=2)}\n".encode()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read as saved parameters: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("parameters"), dict):
        raise UserError(f"{str(path)!r} holds no saved parameters; write such a file with Module.save")
    if data.get("version") != VERSION:
        raise UserError(f"{str(path)!r} is of version {data.get('version')!r}; only {VERSION} can be read here")
    parameters: dict[str, Any] = data["parameters"]
    return parameters


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
