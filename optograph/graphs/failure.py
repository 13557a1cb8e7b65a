"""Failures of ops: the error that is raised, and the record that its value carries."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, Any

from optograph.errors import BudgetExceeded, OptographError, RunStopped, ServingError, StorageError, UserError
from optograph.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from optograph.graphs.value import Value

PASS_THROUGH = (UserError, ServingError, BudgetExceeded, StorageError, RunStopped)
"""Errors that are nobody's work in the graph: they leave an op as they are."""


class OpError(OptographError):
    """An op failed. One can go backward from the failure, as from any output.

    Attributes:
        value: A value whose parents are the op's parents, and whose data is a record of the error: a dict with
            ``error`` (type), ``message``, ``op``, ``line`` (source line, annotated) and ``lineno`` (in the op).
        original: The exception that was raised first, in the innermost op.
    """

    def __init__(self, message: str, *, value: Value, original: BaseException) -> None:
        super().__init__(message)
        self.value = value
        self.original = original


class OpAttributeError(OpError, AttributeError):
    """A value's data has no such attribute (so that `hasattr` and `getattr` with a default work)."""


def error_record(op_name: str, error: BaseException, code: CodeType | None, source: str) -> dict[str, Any]:
    """Return what is known of an error: its type and message, and the line of the op's own code that failed.

    Args:
        op_name: Name of the op that failed.
        error: What it raised.
        code: Code object of the op's function, or None for a built-in.
        source: Source that `code` was compiled from, starting at its first line; may be empty.
    """
    if isinstance(error, SandboxError):
        return _sandboxed_record(op_name, error, source)
    lineno = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            lineno = traceback.tb_lineno
        traceback = traceback.tb_next
    message = _message(error)
    record: dict[str, Any] = {"error": type(error).__name__, "message": message, "op": op_name}
    if code is not None and lineno is not None:
        offset = lineno - code.co_firstlineno
        lines = source.splitlines()
        if offset < len(lines):
            mark = f"{type(error).__name__}: {message}" if message else type(error).__name__
            record["line"] = f"{lines[offset].strip()}  # <--- {mark}"
            record["lineno"] = offset + 1
    return record


def _sandboxed_record(op_name: str, error: SandboxError, source: str) -> dict[str, Any]:
    """Return what is known of an error in the sandbox, where the traceback is another process's."""
    name = error.type or type(error).__name__
    record: dict[str, Any] = {"error": name, "message": error.message, "op": op_name}
    lines = source.splitlines()
    if error.line is not None and 0 < error.line <= len(lines):
        mark = f"{name}: {error.message}" if error.message else name
        record["line"] = f"{lines[error.line - 1].strip()}  # <--- {mark}"
        record["lineno"] = error.line
    return record


def error_text(record: dict[str, Any]) -> str:
    """Return the record as one message."""
    name, message = record["error"], record["message"]
    text = f"{record['op']} failed: {name}" + (f": {message}" if message else "")
    return f"{text} (line {record['lineno']}: {record['line']})" if "line" in record else text


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception with a broken __str__ is still to be reported
        return "(its message could not be shown)"
