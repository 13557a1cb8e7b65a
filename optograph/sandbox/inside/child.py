"""What a child does once it is locked in: take requests, run code, send what came of it."""

from __future__ import annotations
import __future__

import builtins
import contextlib
import importlib
import io
import os
import select
import struct
import sys
import types
from collections.abc import Callable
from typing import Any

from optograph.sandbox.inside.codec import NotPlain, dumps, loads, mark, unmark
from optograph.sandbox.inside.settings import IN, OUT
from optograph.sandbox.inside.waiting import soon

SOURCE = "<sandboxed code>"
_FLAGS = __future__.annotations.compiler_flag  # an annotation may name what is not there
_FRAMES = 40
_MESSAGE = 4000
_OUT_OF_MEMORY = b'{"type":"MemoryError","message":"","lines":[]},"",""]'
_NO_REPORT = b'{"type":"RuntimeError","message":"the failure could not be reported: %s","lines":[]},"",""]'


class Printed(io.TextIOBase):
    """Stands for a child's standard output: keeps the first characters, counts the rest."""

    def __init__(self, room: int, descriptor: int) -> None:
        self._room = self._left = room
        self._descriptor = descriptor
        self._parts: list[str] = []
        self._lost = 0

    def write(self, text: str) -> int:
        """Keep as much of a text as there is room for."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        kept = text[: self._left]
        if kept:
            self._parts.append(kept)
            self._left -= len(kept)
        self._lost += len(text) - len(kept)
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return a descriptor that leads nowhere."""
        return self._descriptor

    def take(self) -> str:
        """Return what was kept, and begin anew."""
        if not self._parts:
            return ""
        text = "".join(self._parts).encode("utf-8", "replace").decode()
        if self._lost:
            text += f"\n[{self._lost} more characters were dropped]"
        self._parts, self._left, self._lost = [], self._room, 0
        return text


class Child:
    """The loop of a child.

    Args:
        received: Longest request in bytes.
        sent: Longest reply in bytes.
        printed: Characters kept of what a call prints.
    """

    def __init__(self, received: int, sent: int, printed: int) -> None:
        self._received, self._sent = received, sent
        self._requests = open(IN, "rb", buffering=1 << 16, closefd=False)  # noqa: SIM115 - a descriptor
        self._out, self._err = Printed(printed, 1), Printed(printed, 2)
        self._function: Callable[..., Any] | None = None

    def serve(self) -> None:
        """Answer requests until there are no more."""
        sys.stdout = sys.__stdout__ = self._out  # type: ignore[misc, assignment]
        sys.stderr = sys.__stderr__ = self._err  # type: ignore[misc, assignment]
        sys.stdin = io.StringIO()
        self.send(dumps([0, "ready", None, "", ""]))
        arriving = select.poll()
        arriving.register(IN, select.POLLIN)
        while True:
            soon(arriving)
            header = self._requests.read(4)
            if len(header) < 4:
                return
            (size,) = struct.unpack("!I", header)
            if size > self._received:
                return
            what, number, *rest = loads(self._requests.read(size))
            self.send(self._answer(what, number, rest))

    def send(self, payload: bytes) -> None:
        """Write one framed message."""
        message = struct.pack("!I", len(payload)) + payload
        done = os.write(OUT, message)
        while done < len(message):
            done += os.write(OUT, message[done : done + (1 << 16)])

    def _answer(self, what: str, number: int, rest: list[Any]) -> bytes:
        try:
            try:
                value = mark(self._do(what, rest))
                out, err = self._out.take(), self._err.take()
                payload = dumps([number, "value", value, out, err])
                if len(payload) > self._sent and (size := len(dumps(value))) > self._sent:
                    payload = dumps([number, "too_large", size, out, err])
            except MemoryError:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the code raises is reported
                payload = dumps([number, "error", self._report(error), self._out.take(), self._err.take()])
        except MemoryError:
            return f'[{number},"error",'.encode() + _OUT_OF_MEMORY
        except BaseException as error:  # noqa: BLE001 - the code saw to it that even the report fails
            return f'[{number},"error",'.encode() + _NO_REPORT % type(error).__name__.encode()
        return payload

    def _do(self, what: str, rest: list[Any]) -> Any:
        if what == "call":
            args, kwargs = unmark(rest[0], finite=False), unmark(rest[1], finite=False)
            if self._function is None:
                raise NotPlain("a call before the code was defined")
            value = self._function(*args, **kwargs)
            return _finished(value) if isinstance(value, types.CoroutineType) else value
        if what == "define":
            source, name, given, modules, helpers = rest
            space = self._space(unmark(given, finite=False), modules, helpers)
            exec(compile(source, SOURCE, "exec", _FLAGS, dont_inherit=True), space)  # noqa: S102 - that is what this is for
            self._function = space[name]
            return None
        source, given = rest
        space = self._space(unmark(given, finite=False), [], [])
        exec(compile(source, SOURCE, "exec", _FLAGS, dont_inherit=True), space)  # noqa: S102 - that is what this is for
        return space.get("result")

    def _space(self, given: dict[str, Any], modules: list[Any], helpers: list[str]) -> dict[str, Any]:
        """Return the globals that code starts with, those of a module of its own."""
        module = types.ModuleType("__sandbox__")
        sys.modules[module.__name__] = module
        space = module.__dict__
        space["__builtins__"] = builtins
        for name, source, attribute in modules:
            try:
                loaded = importlib.import_module(source)
                space[name] = loaded if attribute is None else getattr(loaded, attribute)
            except (ImportError, AttributeError, OSError):
                continue  # code that needs it says so by a NameError; code that does not should run
        space.update(given)
        for helper in helpers:
            with contextlib.suppress(Exception):  # likewise
                exec(compile(helper, "<helper>", "exec", _FLAGS, dont_inherit=True), space)  # noqa: S102
        return space

    def _report(self, error: BaseException) -> dict[str, Any]:
        lines: list[tuple[int, str]] = []
        step = error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            if code.co_filename == SOURCE:
                lines.append((step.tb_lineno, code.co_qualname))
            step = step.tb_next
        if isinstance(error, SyntaxError) and error.filename == SOURCE and error.lineno:
            lines.append((error.lineno, "<module>"))
        try:
            message = str(error)[:_MESSAGE].encode("utf-8", "replace").decode()
        except BaseException:  # noqa: BLE001 - an exception with a broken __str__ is still to be reported
            message = "(its message could not be shown)"
        denied = isinstance(error, PermissionError)
        kind = "NotPlain" if isinstance(error, NotPlain) else type(error).__name__[:200]
        report: dict[str, Any] = {"type": kind, "message": message, "lines": lines[-_FRAMES:], "denied": denied}
        return report


def _finished(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)
