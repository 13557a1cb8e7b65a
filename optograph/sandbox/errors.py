"""The error of sandboxed code: what kind of end it came to, and where."""

from __future__ import annotations

from typing import Literal, get_args

from optograph.errors import OptographError

Kind = Literal[
    "timeout",
    "memory",
    "crashed",
    "output_too_large",
    "refused",
    "exception",
    "protocol",
    "unavailable",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""How sandboxed code can fail."""


class SandboxError(OptographError):
    """Code in the sandbox failed, or there is no sandbox to be had.

    Attributes:
        kind: ``"timeout"``: took too long and was killed; ``"memory"``: asked for more than it may have;
            ``"crashed"``: its process ended without a result; ``"output_too_large"``: its result, its printed text or
            its files were too large; ``"refused"``: it did what it may not; ``"exception"``: it raised one;
            ``"protocol"``: it sent something that is no result; ``"unavailable"``: this system cannot lock code in.
        type: Name of the exception that the code raised; empty where it raised none.
        message: The exception's message, or what happened.
        lines: Lines of the code that were being run, outermost first, each with the name of its function.
        stdout: What it had printed.
        stderr: What it had printed to standard error.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: Kind,
        type: str = "",
        lines: tuple[tuple[int, str], ...] = (),
        stdout: str = "",
        stderr: str = "",
    ) -> None:
        where = f" (line {lines[-1][0]})" if lines else ""
        named = f"{type}: {message}".removesuffix(": ") if type else message
        super().__init__(f"{named}{where}")
        self.kind = kind
        self.type = type
        self.message = message
        self.lines = lines
        self.stdout = stdout
        self.stderr = stderr

    @property
    def line(self) -> int | None:
        """The innermost line of the code that failed, from 1; None where none did."""
        return self.lines[-1][0] if self.lines else None
