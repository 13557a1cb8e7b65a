"""How much sandboxed code may use."""

from __future__ import annotations

from dataclasses import dataclass, fields

from optograph.errors import UserError

_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the code of one worker may use.

    Attributes:
        seconds: Time for one call, in seconds.
        memory_mb: Memory beside what Python and the imported modules take, in MB.
        disk_mb: Files in the worker's folder, in MB, in all and each.
        files: Files and folders in the worker's folder.
        open_files: Files open at once.
        threads: Threads at once.
        cpu_seconds: Processor time of one worker over all its calls, in seconds.
        input_bytes: Arguments of one call, as JSON.
        output_bytes: Result of one call, as JSON.
        printed_chars: Characters kept of what one call prints, on each of standard output and standard error.
    """

    seconds: float = 10.0
    memory_mb: int = 1024
    disk_mb: int = 64
    files: int = 2000
    open_files: int = 64
    threads: int = 32
    cpu_seconds: int = 600
    input_bytes: int = _MB
    output_bytes: int = _MB
    printed_chars: int = 20_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "seconds"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
                kind = "a whole number" if whole else "a number"
                raise UserError(f"Limits.{field.name} must be {kind} above 0, got {value!r}")
            if value > 2**31:
                raise UserError(f"Limits.{field.name} must be at most {2**31}, got {value!r}")
