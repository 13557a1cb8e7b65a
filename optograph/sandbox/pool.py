"""The sandbox: workers and one-shot programs, each in a locked process taken from a warm pool."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from optograph.errors import UserError
from optograph.sandbox.errors import SandboxError
from optograph.sandbox.launcher import Launcher
from optograph.sandbox.limits import Limits
from optograph.sandbox.support import availability
from optograph.sandbox.worker import Process, Program, Worker, plain, seconds

_MOST_SPARE = 64


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a program.

    Attributes:
        result: The value of the program's global name ``result``; None where it has none or failed.
        stdout: What it printed; what it printed before it was killed is lost.
        stderr: What it printed to standard error.
        error: How it failed, or None.
    """

    result: Any
    stdout: str
    stderr: str
    error: SandboxError | None


class Sandbox:
    r"""Runs code that nobody vouches for, in processes that can reach nothing but their own folder.

    A clean process (the zygote), started afresh and not forked from this one, imports what was asked for; its children
    lock themselves in before they are given any code: another user where the framework is root, Landlock, seccomp,
    limits. They read Python's libraries, write in a folder of their own, and have no network, no other process and no
    file beside. Results come back as JSON. Safe to use from many threads; nothing starts before it is needed.

    Example:
        >>> with Sandbox() as sandbox:
        ...     worker = sandbox.worker("def double(x):\n    return 2 * x", "double")
        ...     worker.call([21])
        42

    Args:
        imports: Modules that are imported before, so that code finds them at once (``"numpy"``); they may come from
            anywhere on the import path, and are trusted.
        limits: What the code may use.
        spare: Processes kept ready.
        readable: More files and folders that the code may read.
        bubblewrap: Put bubblewrap around it all.
        allow_unsandboxed: Where this system cannot lock code in, run it in processes that only limits hold.

    Raises:
        UserError: An argument is wrong, or bubblewrap is asked for and not installed.
        SandboxError: This system cannot lock code in, and nobody allowed to go on without.
    """

    def __init__(
        self,
        *,
        imports: Sequence[str] = (),
        limits: Limits | None = None,
        spare: int = 1,
        readable: Sequence[str] = (),
        bubblewrap: bool = False,
        allow_unsandboxed: bool = False,
    ) -> None:
        if isinstance(imports, str) or not all(part.isidentifier() for name in imports for part in name.split(".")):
            raise UserError(f"imports must be names of modules, got {imports!r}")
        if isinstance(readable, str) or not all(Path(path).is_absolute() and path != "/" for path in readable):
            raise UserError(f"readable must be absolute paths, got {readable!r}")
        if isinstance(spare, bool) or not isinstance(spare, int) or not 1 <= spare <= _MOST_SPARE:
            raise UserError(f"spare must be a whole number from 1 to {_MOST_SPARE}, got {spare!r}")
        can = availability()
        if not can.usable and not allow_unsandboxed:
            raise SandboxError(f"no sandbox here: {'; '.join(can.reasons)}", kind="unavailable")
        if bubblewrap and can.bubblewrap is None:
            raise UserError("bubblewrap=True needs the program bwrap: install bubblewrap, or leave it out")
        self.limits = Limits() if limits is None else limits
        self.locked = can.usable
        self._imports = tuple(imports)
        self._readable = tuple(readable)
        self._spare = spare
        self._bubblewrap = can.bubblewrap if bubblewrap else None
        self._lock = threading.Lock()
        self._launcher: Launcher | None = None
        self._closed = False

    def worker(
        self,
        source: str,
        function: str,
        *,
        names: Mapping[str, Any] | None = None,
        modules: Sequence[tuple[str, str, str | None]] = (),
        helpers: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> Worker:
        """Return a worker for one function; its process starts at the first call.

        Args:
            source: Python source that defines the function.
            function: Its name.
            names: Plain data that the code finds under global names.
            modules: What the code finds imported: ``(name, module, attribute or None)``.
            helpers: Sources of functions that are defined before.
            timeout_s: Time for a call in seconds; that of the limits where None.

        Raises:
            UserError: An argument is wrong.
        """
        for what, text in (("source", source), ("function", function)):
            if not isinstance(text, str):
                raise UserError(f"{what} must be text, got {text!r}")
        program = Program(source, function, dict(names or {}), tuple(modules), tuple(helpers))
        return Worker(self._process, program, self.limits, timeout_s)

    def run(self, source: str, *, inputs: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> RunResult:
        """Run one program in a process of its own, and return what came of it.

        Args:
            source: Python source; its result is what it leaves under the name ``result``.
            inputs: Plain data that it finds under global names.
            timeout_s: Time in seconds; that of the limits where None.

        Raises:
            UserError: An argument is wrong.
            SandboxError: Only of the kind ``"unavailable"``; the program's own failure is in the result.
        """
        if not isinstance(source, str):
            raise UserError(f"source must be text, got {source!r}")
        limit = seconds(self.limits.seconds if timeout_s is None else timeout_s)
        request = ["run", source, plain(dict(inputs or {}), "an input")]
        process = self._process()
        try:
            reply = process.ask([request], limit)[0]
        except SandboxError as error:
            return RunResult(None, error.stdout, error.stderr, error)
        finally:
            process.close()
        return RunResult(reply.value, reply.stdout, reply.stderr, None)

    def start(self) -> dict[str, str]:
        """Start now, and return the imports that failed, with their errors.

        Raises:
            SandboxError: It does not start.
        """
        return dict(self._started().failed_imports)

    def _started(self) -> Launcher:
        with self._lock:
            if self._closed:
                raise UserError("the sandbox is closed: make another")
            if self._launcher is None or not self._launcher.alive:
                if self._launcher is not None:
                    self._launcher.close()
                self._launcher = Launcher(
                    self.limits,
                    imports=self._imports,
                    readable=self._readable,
                    spare=self._spare,
                    locked=self.locked,
                    bubblewrap=self._bubblewrap,
                )
            return self._launcher

    def _process(self) -> Process:
        try:
            return Process(self._started(), self.limits)
        except SandboxError:
            if self._launcher is not None and self._launcher.alive:
                raise
        return Process(self._started(), self.limits)  # the zygote was killed: one more

    def close(self) -> None:
        """End everything that runs, and remove all folders."""
        with self._lock:
            self._closed = True
            if self._launcher is not None:
                self._launcher.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
