"""Examples from files and hubs: JSON lines, JSON, CSV, or a Hugging Face dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.evals.task import Example
from optograph.storage import content_hash


def load_examples(
    source: str | Path,
    *,
    inputs: Sequence[str],
    expected: str | None,
    id_field: str = "id",
    rows_key: str | None = None,
    start: int = 0,
    limit: int | None = None,
) -> list[Example]:
    """Read examples from a file or a dataset hub.

    Args:
        source: A ``.jsonl``, ``.json`` or ``.csv`` file, or ``hf:NAME[:CONFIG]:SPLIT`` for a Hugging Face dataset.
        inputs: Fields that become the workflow's keyword arguments.
        expected: Field that holds the expected answer, or None.
        id_field: Field that names the row; where it is missing, the name is made from the row's content.
        rows_key: In a ``.json`` file, the key under which the list of rows stands.
        start: Rows to skip, from 0.
        limit: Most rows to read after ``start``.

    Raises:
        UserError: The file is missing or not what its name says, or a field is absent.
    """
    text = str(source)
    rows = _hub_rows(text) if text.startswith("hf:") else _file_rows(Path(source), rows_key)
    stop = None if limit is None else start + limit
    picked = list(rows)[start:stop]
    if not picked:
        raise UserError(f"{text!r} holds no rows from {start} on: give a file with at least one example")
    return [_example(row, number, text, inputs, expected, id_field) for number, row in enumerate(picked, start)]


def _example(row: Any, number: int, source: str, inputs: Sequence[str], expected: str | None, id_field: str) -> Example:
    if not isinstance(row, dict):
        raise UserError(f"row {number} of {source!r} is not an object with fields but {type(row).__name__}")
    wanted = [*inputs, *([expected] if expected else [])]
    missing = [name for name in wanted if name not in row]
    if missing or None in row:
        known = sorted(str(name) for name in row if name is not None)
        problem = f"lacks {missing!r}" if missing else "has more cells than the head of the table"
        raise UserError(f"row {number} of {source!r} {problem}; its fields are {known!r}")
    fields = {name: row[name] for name in inputs}
    given = row.get(id_field)
    name = f"{number}-{content_hash(fields)[:8]}" if given in (None, "") else str(given)
    return Example(id=name, input=fields, expected=row[expected] if expected else None)


def _file_rows(path: Path, rows_key: str | None) -> Iterable[Any]:
    if not path.is_file():
        raise UserError(f"data file {str(path)!r} does not exist: check the path (it is relative to the job file)")
    suffix = path.suffix.lower()
    try:
        if suffix == ".jsonl":
            return _json_lines(path)
        if suffix == ".json":
            data = _parsed(path.read_text(encoding="utf-8-sig"))
            if rows_key and not (isinstance(data, dict) and rows_key in data):
                raise UserError(f"{str(path)!r} has no key {rows_key!r}")
            rows = data[rows_key] if rows_key else data
            if not isinstance(rows, list):
                raise UserError(f"{str(path)!r} does not hold a list of rows: name the key with rows_key")
            return rows
        if suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} is no valid {suffix} file: {error}") from error
    raise UserError(f"cannot read {str(path)!r}: use a .jsonl, .json or .csv file, or hf:NAME:SPLIT")


def _json_lines(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_parsed(line))
        except json.JSONDecodeError as error:
            raise UserError(f"line {number} of {str(path)!r} is not JSON: {error.msg}") from error
    return rows


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise UserError(f"the data holds {constant}, which is no JSON: leave such rows out")

    return json.loads(text, parse_constant=refuse)


def _hub_rows(source: str) -> Iterable[Any]:
    parts = source.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"cannot read {source!r}: write hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    import datasets

    name, config, split = parts[0], parts[1] if len(parts) == 3 else None, parts[-1]
    try:
        return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except Exception as error:
        # The hub client raises a dozen unrelated types; each of them means that the rows cannot be had.
        raise UserError(
            f"cannot load {source!r}: {error}; check the name and the network, or give a local file"
        ) from error
