"""Rows of a round: made from the journal in an order of their own, and kept as a file whose content is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optograph.errors import StorageError, UserError
from optograph.jobs.training.records import Collected, Made
from optograph.jobs.training.section import PolicySection
from optograph.optimizers.policy import (
    Credit,
    TracedCredit,
    TrainingRow,
    broadcast,
    by_graph,
    per_node,
    preference_rows,
    read_rows,
    training_rows,
    write_parquet,
)
from optograph.storage import Journal, content_hash, move_whole

FOLDER = "rows"
"""Name of the folder in the run directory."""

_CREDIT: Mapping[str, Credit | TracedCredit] = {"broadcast": broadcast, "per_node": per_node, "graph": by_graph}


@dataclass(frozen=True, slots=True)
class RoundRows:
    """The rows of a round.

    Attributes:
        rows: In an order of their own.
        left_out: Rollouts without rows.
        tied: Rows that were dropped because all answers to their prompt earned the same.
    """

    rows: list[TrainingRow]
    left_out: int
    tied: int


def rows_of(
    journal: Journal, section: PolicySection, rounds: Sequence[Collected], examples: Sequence[str]
) -> RoundRows:
    """Return the rows of some rounds' rollouts.

    Args:
        journal: The run.
        section: Credit, nodes and adapters.
        rounds: What was collected.
        examples: Ids of the train examples; rows are in this order, whatever order the rollouts ended in.
    """
    found = training_rows(
        journal,
        split="train",
        credit=_CREDIT[section.credit],
        candidates={one.candidate for one in rounds},
        repeats={repeat for one in rounds for repeat in range(one.first, one.first + one.samples)},
        nodes=None if section.nodes is None else set(section.nodes),
        adapters=section.adapters,
    )
    order = {name: place for place, name in enumerate(examples)}
    rows = sorted(found.rows, key=lambda row: (order[row.example], _repeat(row), row.call))
    kept = without_ties(rows) if section.drop_ties else rows
    return RoundRows(kept, found.unscored + found.incomplete + found.without_calls, len(rows) - len(kept))


def without_ties(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return the rows of examples whose calls, at the same node, did not all earn the same."""
    earned: dict[tuple[str, str | None], set[float]] = {}
    for row in rows:
        earned.setdefault((row.example, row.node), set()).add(row.reward)
    kept = {example for (example, _), rewards in earned.items() if len(rewards) > 1}
    return [row for row in rows if row.example in kept]


def _repeat(row: TrainingRow) -> int:
    return int(row.rollout.rpartition("/")[2])


def content_of(rows: Sequence[TrainingRow]) -> str:
    """Return a hash of the rows' content."""
    return content_hash([row.model_dump(mode="json") for row in rows])


def keep_rows(run_dir: Path, number: int, rows: Sequence[TrainingRow], left_out: int) -> Made | None:
    """Write the rows of a round, whole or not at all; None where there is no row.

    Raises:
        StorageError: The file cannot be written.
    """
    if not rows:
        return None
    path = run_dir / FOLDER / f"round-{number:03d}.parquet"
    draft = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(rows, draft)
        move_whole(draft, path)
    except (OSError, UserError) as error:
        raise StorageError(f"cannot write the rows {str(path)!r}: {error}") from error
    return Made(
        file=str(path.relative_to(run_dir)),
        content=content_of(rows),
        rows=len(rows),
        pairs=len(preference_rows(rows)),
        rollouts=len({row.rollout for row in rows}),
        left_out=left_out,
    )


def read_kept(run_dir: Path, made: Made) -> list[TrainingRow] | None:
    """Return the rows of a file, or None where it is gone or holds other rows than were made."""
    try:
        rows = read_rows(run_dir / made.file)
    except UserError:
        return None
    return rows if content_of(rows) == made.content else None


def by_adapter(rows: Sequence[TrainingRow]) -> Mapping[str, list[TrainingRow]]:
    """Return the rows of each adapter."""
    found: dict[str, list[TrainingRow]] = {}
    for row in rows:
        found.setdefault(row.adapter, []).append(row)
    return found
