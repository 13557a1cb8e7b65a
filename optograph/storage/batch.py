"""A batch: records that are written together, all of them or none."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Protocol

from optograph.errors import UserError
from optograph.secrets import scrub
from optograph.storage.canonical import canonical_json
from optograph.storage.rows import CallRow, CandidateRow, DecisionRow, EvaluationRow, Row


@dataclass(slots=True)
class Operations:
    """What a batch asks the writer to do.

    Attributes:
        payloads: (hash, JSON text) of each payload that may be new.
        rows: (table, key, JSON text) of each row; a candidate that is known already is not written again.
        meta: JSON text of each meta record, by name.
        drop: (table, sequence number, or hash of a payload) of damaged records to take out.
        size: Bytes of all of these, about.
    """

    payloads: list[tuple[bytes, bytes]] = field(default_factory=list)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    drop: list[tuple[str, int | bytes]] = field(default_factory=list)
    size: int = 0


class BatchWriter(Protocol):
    """What a batch is handed to."""

    @property
    def stored(self) -> Container[bytes]:
        """Hashes of payloads that are known to be stored."""
        ...

    def write(self, operations: Operations) -> list[int]:
        """Write, and return when it is durable; gives the sequence number of each row."""
        ...

    async def awrite(self, operations: Operations) -> list[int]:
        """Like ``write``, without blocking the event loop."""
        ...


class Batch:
    """Records that become durable together, or not at all. Made by ``Journal.batch``; used by one thread, once.

    Nothing is written before ``commit``. Records are turned into JSON when they are added: later changes of the given
    objects are not seen.
    """

    __slots__ = ("_done", "_operations", "_writer")

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._operations = Operations()
        self._done = False

    def put(self, data: Any) -> str:
        """Add JSON data under its hash, and return the hash (64 hex digits); equal data is stored once.

        Raises:
            ValueError: The data holds NaN or infinity.
            TypeError: The data is not JSON.
        """
        return self.put_text(canonical_json(data))

    def put_text(self, text: str) -> str:
        """Like ``put``, for data that is canonical JSON text already."""
        content = _scrubbed(text).encode("ascii")
        digest = hashlib.sha256(content)
        raw = digest.digest()
        if raw not in self._writer.stored:
            self._operations.payloads.append((raw, content))
            self._operations.size += len(content)
        return digest.hexdigest()

    def add_call(self, row: CallRow) -> None:
        """Add a model call."""
        self._add("calls", row.key, row)

    def add_candidate(self, row: CandidateRow) -> None:
        """Add a candidate; one that is known already is not written again."""
        self._add("candidates", row.id, row)

    def add_evaluation(self, row: EvaluationRow) -> None:
        """Add one example's evaluation."""
        self._add("evaluations", evaluation_key(row.candidate, row.split, row.example, row.repeat), row)

    def add_decision(self, row: DecisionRow) -> None:
        """Add a verdict."""
        self._add("decisions", row.candidate, row)

    def save_state(self, name: str, state: Any) -> None:
        """Add the state of an optimizer or generator; the newest counts."""
        self._add_text("states", name, _written({"payload": self.put(state)}))

    def add_event(self, kind: str, **data: Any) -> None:
        """Add that something happened (a start, a stop, an error)."""
        self._add_text("events", kind, _written(data))

    def set_meta(self, name: str, value: Any) -> None:
        """Set a named JSON value of the journal; it replaces the one before.

        Raises:
            UserError: The name is empty or begins with ``journal.``, which the journal uses itself.
        """
        if not name or name.startswith("journal.") or name == "schema":
            raise UserError(f"a meta name must not be empty, 'schema' or begin with 'journal.', not {name!r}")
        self._operations.meta[plain_key(name)] = _written(value)

    def commit(self) -> list[int]:
        """Write everything and return when it is durable.

        Returns:
            The sequence number of each row in the order of adding (of the known one, for a candidate known already).

        Raises:
            StorageError: Nothing was written: the disk is full, the journal is closed or open for reading only.
            UserError: The batch was committed before.
        """
        return self._writer.write(self._once())

    async def acommit(self) -> list[int]:
        """Like ``commit``, without blocking the event loop; a cancelled wait does not take the batch back."""
        return await self._writer.awrite(self._once())

    def _once(self) -> Operations:
        if self._done:
            raise UserError("this batch was committed before: make a new one for what is new")
        self._done = True
        return self._operations

    def _add(self, table: str, key: str, row: Row) -> None:
        try:
            text = _written(row.__dict__)
        except TypeError:  # something inside is not plain JSON yet
            text = _written(row.model_dump(mode="json"))
        self._add_text(table, key, text)

    def _add_text(self, table: str, key: str, text: str) -> None:
        self._operations.rows.append((table, plain_key(key), text))
        self._operations.size += len(text)


def _written(data: Any) -> str:
    """Return canonical JSON in which no secret is left; what is blanked is part of what is hashed."""
    return _scrubbed(canonical_json(data))


def _scrubbed(text: str) -> str:
    clean = scrub(text)
    return text if clean is text else clean.encode("ascii", "backslashreplace").decode()


def evaluation_key(candidate: str, split: str, example: str, repeat: int) -> str:
    """Return the key under which an evaluation is found."""
    return f"{candidate}/{split}/{example}/{repeat}"


def plain_key(key: str) -> str:
    """Return a key that can be stored: lone surrogates are written as escapes."""
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()
