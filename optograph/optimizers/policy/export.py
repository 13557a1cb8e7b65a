"""Rows out and in: as a `datasets.Dataset`, as JSONL and as Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from optograph.errors import UserError
from optograph.optimizers.policy.rows import TrainingRow

if TYPE_CHECKING:
    from datasets import Dataset


def to_dataset(rows: Sequence[TrainingRow]) -> Dataset:
    """Return the rows as a `datasets.Dataset`, one column a field.

    Raises:
        UserError: There are no rows, so that columns would have no type.
    """
    if not rows:
        raise UserError("there are no rows: TrainingRows says what was left out, and why")
    from datasets import Dataset, Features, Sequence, Value

    types = {
        **dict.fromkeys(("rollout", "example", "node", "adapter", "policy", "finish"), Value("string")),
        **dict.fromkeys(("call", "run_tokens"), Value("int64")),
        **dict.fromkeys(("reward", "weight"), Value("float64")),
        "input_ids": Sequence(Value("int64")),
        "action_mask": Sequence(Value("bool")),
    }
    order = {name: types[name] for name in TrainingRow.model_fields}
    return Dataset.from_list([row.model_dump() for row in rows], features=Features(order))


def write_jsonl(rows: Sequence[TrainingRow], path: str | Path) -> None:
    """Write one JSON object a line.

    Raises:
        UserError: The file cannot be written.
    """
    text = "".join(json.dumps(row.model_dump(mode="json"), ensure_ascii=True) + "\n" for row in rows)
    try:
        Path(path).write_text(text, encoding="ascii")
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from error


def write_parquet(rows: Sequence[TrainingRow], path: str | Path) -> None:
    """Write a Parquet file with the columns of `to_dataset`.

    Raises:
        UserError: There are no rows, or the file cannot be written.
    """
    import pyarrow.parquet

    table = to_dataset(rows).with_format("arrow")[:]  # datasets' own way to write it shows a progress bar
    try:
        with Path(path).open("wb") as file:
            pyarrow.parquet.write_table(table, file)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from error


def read_rows(path: str | Path) -> list[TrainingRow]:
    """Read rows that `write_jsonl` (``.jsonl``) or `write_parquet` (``.parquet``) wrote, and check each.

    Raises:
        UserError: The file cannot be read, or a row does not fit.
    """
    source = Path(path)
    if source.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"rows are read from .jsonl or .parquet files, not {source.name!r}")
    try:
        raw = _parquet(source) if source.suffix == ".parquet" else _jsonl(source)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors too
        raise UserError(f"cannot read rows from {str(source)!r}: {error}") from error
    rows = []
    for number, one in enumerate(raw, 1):
        try:
            rows.append(TrainingRow.model_validate(one))
        except ValidationError as error:
            raise UserError(f"row {number} of {str(source)!r} is no row for training: {error}") from error
    return rows


def _parquet(source: Path) -> list[Any]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(source).to_pylist())


def _jsonl(source: Path) -> list[Any]:
    return [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
