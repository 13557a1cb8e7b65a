"""A worker: one piece of code, defined once in a locked process of its own, called as often as one likes."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from optograph.errors import UserError
from optograph.sandbox.channel import Channel, Desynchronized, TooLarge
from optograph.sandbox.errors import SandboxError
from optograph.sandbox.inside.codec import DEPTH, NotPlain, dumps, loads, mark, unmark
from optograph.sandbox.launcher import Launcher
from optograph.sandbox.limits import Limits

_READY_SECONDS, _GRACE_SECONDS = 60.0, 0.5
_READY_BYTES = 1 << 16
_ROOM = 1 << 10
_MOST_BYTES = 2 * 6  # of a printed character: two streams, and six bytes for the worst


@dataclass(frozen=True, slots=True)
class Program:
    """Code to be defined in a worker, and what it finds there.

    Attributes:
        source: Python source that defines the function.
        function: Name of the function.
        names: Plain data under global names.
        modules: Global names to import: ``(name, module, attribute)``; the module itself where the attribute is None.
        helpers: Sources of functions that are defined first.
    """

    source: str
    function: str
    names: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[tuple[str, str, str | None]] = ()
    helpers: Sequence[str] = ()


class Reply(NamedTuple):
    """What came of a request.

    Attributes:
        value: The result.
        stdout: What was printed.
        stderr: What was printed to standard error.
    """

    value: Any
    stdout: str
    stderr: str


class Process:
    """A locked process that was taken from the pool: requests to it, and its end.

    Args:
        launcher: What made it.
        limits: What it may use.
    """

    def __init__(self, launcher: Launcher, limits: Limits) -> None:
        self._launcher, self._limits = launcher, limits
        self._pid, requests, replies = launcher.take()
        self._channel = Channel(requests, replies)
        self._number = 0
        self.busy = 0.0
        try:
            ready = loads(self._channel.receive(_READY_BYTES, time.monotonic() + _READY_SECONDS, alone=False))
        except (TimeoutError, EOFError, TooLarge, Desynchronized, NotPlain) as error:
            self.close()
            raise SandboxError(f"a process did not get ready: {error!r}", kind="unavailable") from error
        if ready[1] != "ready":
            self.close()
            raise SandboxError(f"the code could not be locked in: {ready[2]}", kind="unavailable")

    def ask(self, requests: list[list[Any]], seconds: float) -> list[Reply]:
        """Send requests and return their replies; the process is ended where it did not keep to the protocol.

        Args:
            requests: Each begins with its name.
            seconds: Time for all of them.

        Raises:
            SandboxError: The code failed; `closed` says whether the process went with it.
        """
        begin = time.monotonic()
        deadline = begin + seconds
        first = self._number + 1
        self._number += len(requests)
        try:
            payloads = [dumps([what, first + index, *rest]) for index, (what, *rest) in enumerate(requests)]
        except NotPlain as error:
            raise UserError(f"what is sent to the sandbox {error}") from None
        largest = max(map(len, payloads))
        if largest > self._limits.input_bytes + _ROOM:
            raise UserError(
                f"at most {self._limits.input_bytes} bytes as JSON are sent to the sandbox, got {largest}: send less, "
                "or use Sandbox(limits=Limits(input_bytes=...))"
            )
        replies: list[Reply] = []
        try:
            self._channel.send(payloads, deadline)
            limit = self._limits.output_bytes + _MOST_BYTES * self._limits.printed_chars + _ROOM
            while len(replies) < len(requests):
                last = len(replies) == len(requests) - 1
                payload = self._channel.receive(limit, deadline, alone=last)
                replies.append(self._reply(payload, first + len(replies)))
        except SandboxError:
            if len(replies) < len(requests) - 1:
                self.close()  # there are replies that nobody will read
            raise
        except TimeoutError:
            self.close()
            raise SandboxError(f"took longer than {seconds:g} s and was killed", kind="timeout") from None
        except (EOFError, BrokenPipeError):
            self._died()
        except TooLarge:
            self.close()
            raise SandboxError("sent a message beyond every limit", kind="output_too_large") from None
        except (Desynchronized, NotPlain) as error:
            self.close()
            raise SandboxError(f"sent something that is no result: {error}", kind="protocol") from None
        except BaseException:
            self.close()
            raise
        finally:
            self.busy += time.monotonic() - begin
        return replies

    def _reply(self, payload: bytes, number: int) -> Reply:
        """Take one reply apart; nothing in it is trusted."""
        message = loads(payload)
        if not (isinstance(message, list) and len(message) == 5 and type(message[0]) is int):
            raise NotPlain("a reply of another form")
        if message[0] != number:
            raise NotPlain("a reply to another call")
        _, what, value, out, err = message
        if not (isinstance(out, str) and isinstance(err, str)):
            raise NotPlain("printed text that is none")
        if what == "value":
            if len(payload) > self._limits.output_bytes and len(dumps(value)) > self._limits.output_bytes:
                raise TooLarge
            marked = b'"$' in payload or payload.count(b"[") + payload.count(b"{") > DEPTH
            return Reply(unmark(value) if marked else value, out, err)
        if what == "too_large" and type(value) is int:
            most = self._limits.output_bytes
            raise SandboxError(
                f"the result has {value} bytes as JSON, and at most {most} may be sent",
                kind="output_too_large",
                stdout=out,
                stderr=err,
            )
        if what == "error" and isinstance(value, dict):
            raise _failure(value, out, err)
        raise NotPlain("a reply of another form")

    def _died(self) -> NoReturn:
        """Say why the process ended."""
        status, reason = self.close(_GRACE_SECONDS)
        if not self._launcher.alive:
            raise SandboxError("the sandbox's process was ended", kind="unavailable") from None
        if reason == "disk":
            limits = self._limits
            text = f"its files took more than {limits.disk_mb} MB or were more than {limits.files}"
            raise SandboxError(text, kind="output_too_large") from None
        if status == -signal.SIGSYS:
            raise SandboxError("made a system call that no sandboxed code may make", kind="refused") from None
        if status is None:
            text = "hung up without a result"
        elif status >= 0:
            text = f"ended with exit status {status}, without a result"
        else:
            text = f"ended by {signal.Signals(-status).name}, without a result"
            if status == -signal.SIGKILL:
                text += ": the system had too little memory, or its processor time was used up"
        raise SandboxError(text, kind="crashed") from None

    @property
    def foreign(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self._launcher.owner != os.getpid()

    @property
    def closed(self) -> bool:
        """Whether the process was ended."""
        return self._pid < 0

    def close(self, grace: float = 0.0) -> tuple[int | None, str]:
        """End the process and remove what it left.

        Args:
            grace: Seconds that it may take to end by itself.

        Returns:
            Its exit status if it ended by itself, and why it was killed, if it was.
        """
        if self._pid < 0:
            return None, ""
        pid, self._pid = self._pid, -1
        self._channel.close()
        try:
            return self._launcher.end(pid, grace)
        except SandboxError:
            return None, ""  # the zygote is gone, and its children with it

    def abandon(self) -> None:
        """Let the process end without waiting for it; safe at any moment, also in the middle of other calls."""
        if self._pid >= 0:
            pid, self._pid = self._pid, -1
            self._channel.close()
            self._launcher.orphans.append(pid)


class Worker:
    """One piece of code in a locked process of its own. Made by `Sandbox.worker`; safe to use from many threads.

    Calls are answered one after the other. A call that takes too long kills the process; the next call starts
    another.
    """

    def __init__(self, start: Callable[[], Process], program: Program, limits: Limits, timeout_s: float | None) -> None:
        self._start = start
        self._limits = limits
        self._seconds = seconds(limits.seconds if timeout_s is None else timeout_s)
        self._lock = threading.Lock()
        self._held: list[Process] = []
        weakref.finalize(self, _abandon, self._held).atexit = False  # at the exit, the sandbox closes
        names = plain(dict(program.names), "a global name's value")
        modules = [list(entry) for entry in program.modules]
        self._define = ["define", program.source, program.function, names, modules, list(program.helpers)]

    def call(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call the function; a coroutine function is run to its end.

        Args:
            args: Plain data.
            kwargs: Plain data.
            timeout_s: Time for the call in seconds; the worker's own where None.

        Returns:
            The result: text, numbers, None, lists, tuples, sets, bytes and dicts of those.

        Raises:
            UserError: An argument is no plain data, or too large.
            SandboxError: The code failed; `SandboxError.kind` says how.
        """
        return self.ask(args, kwargs, timeout_s=timeout_s).value

    def ask(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Reply:
        """Call the function, and return also what it printed; see `call`."""
        limit = self._seconds if timeout_s is None else seconds(timeout_s)
        request = ["call", plain(list(args), "an argument"), plain(dict(kwargs or {}), "an argument")]
        with self._lock:
            return self._asked(request, limit)

    def try_ask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Reply | None:
        """Call the function as `ask` does, or return None at once where another call is being answered."""
        request = ["call", plain(list(args), "an argument"), plain(dict(kwargs), "an argument")]
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._asked(request, self._seconds)
        finally:
            self._lock.release()

    def _asked(self, request: list[Any], limit: float) -> Reply:
        if self._held and self._held[0].foreign:
            self._held.clear()  # a fork of this process's parent: the pipes are the parent's
        if self._held and self._held[0].busy > self._limits.cpu_seconds / 2:
            self._held.pop().close()  # before the kernel ends it in the middle of a call
        if self._held:
            try:
                return self._held[0].ask([request], limit)[0]
            except SandboxError as error:
                if error.kind != "unavailable":
                    raise  # else it was not the code's fault: once more, in another process
            finally:
                if self._held[0].closed:
                    self._held.clear()
        process = self._start()
        try:
            return process.ask([self._define, request], limit)[1]
        except UserError:
            process.close()
            raise
        finally:
            if not process.closed:
                self._held.append(process)

    def close(self) -> None:
        """End the process; a later call would start another."""
        with self._lock:
            while self._held:
                self._held.pop().close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def plain(value: Any, what: str) -> Any:
    """Return data in the form in which it is sent.

    Args:
        value: The data.
        what: What it is, for the message.

    Raises:
        UserError: It is no plain data.
    """
    try:
        return mark(value, finite=False)
    except NotPlain as error:
        raise UserError(f"{what} cannot be sent to the sandbox: {error}; send text, numbers, lists, dicts") from None


def seconds(value: float) -> float:
    """Return a time limit, checked.

    Raises:
        UserError: It is no number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 10**6:
        raise UserError(f"timeout_s must be a number of seconds above 0, got {value!r}")
    return float(value)


def _abandon(held: list[Process]) -> None:
    for process in held:
        process.abandon()


def _failure(report: dict[str, Any], out: str, err: str) -> SandboxError:
    name, message, lines = report.get("type"), report.get("message"), report.get("lines")
    if not (isinstance(name, str) and isinstance(message, str) and isinstance(lines, list)):
        raise NotPlain("a report of another form")
    where = []
    for entry in lines[:100]:
        if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int and isinstance(entry[1], str)):
            raise NotPlain("a report of another form")
        where.append((entry[0], entry[1]))
    kind = "memory" if name == "MemoryError" else "refused" if report.get("denied") is True else "exception"
    return SandboxError(message, kind=kind, type=name, lines=tuple(where), stdout=out, stderr=err)  # type: ignore[arg-type]
