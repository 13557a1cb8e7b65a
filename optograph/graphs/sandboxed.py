"""Changed code of trainable ops in the sandbox: what it needs of the author's module, and the workers that run it."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import re
import sys
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

from optograph.errors import UserError
from optograph.graphs.packing import Traceable
from optograph.sandbox import Sandbox, SandboxError, WorkerGroup
from optograph.sandbox.inside.codec import NotPlain, dumps, mark

_VERSIONS = 32
_HELPERS = 40
_LARGEST = 100_000


@dataclass
class Needs:
    """What changed code finds under the names that it uses.

    Attributes:
        names: Plain data.
        modules: Imports: global name, module, attribute or None.
        helpers: Sources of the author's own functions and classes, each before those that use it.
        imports: Modules that the sandbox's clean process imports before.
        absent: Names that the author's module has and the sandbox has not, with the reason.
    """

    names: dict[str, Any] = field(default_factory=dict)
    modules: list[tuple[str, str, str | None]] = field(default_factory=list)
    helpers: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    absent: dict[str, str] = field(default_factory=dict)


def needs_of(text: str, function: FunctionType) -> Needs:
    """Return what code needs of the module that a function was written in.

    Args:
        text: The code.
        function: The author's function: its globals and the variables it closes over are what the code may use.
    """
    needs = Needs()
    _collect(text, function, needs, {function.__name__})
    return needs


def _collect(text: str, function: FunctionType, needs: Needs, seen: set[str]) -> None:
    """Add what one source uses; what its helpers use comes first."""
    space = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in space and node.id not in seen and not hasattr(builtins, node.id):
            seen.add(node.id)
            _add(node.id, space[node.id], function, needs, seen)
    for node in ast.walk(tree):  # `import a.b` binds `a` only: import what its attributes lead to
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node)
            root = space.get(chain.partition(".")[0])
            if isinstance(root, ModuleType):
                full = f"{root.__name__}.{chain.partition('.')[2]}"
                entry = (chain.partition(".")[0], full, None)
                if isinstance(sys.modules.get(full), ModuleType) and entry not in needs.modules:
                    needs.modules.insert(0, entry)


def _add(name: str, value: Any, function: FunctionType, needs: Needs, seen: set[str]) -> None:
    if isinstance(value, ModuleType):
        _import(name, value.__name__, None, needs)
        return
    home = getattr(value, "__module__", None) or type(value).__module__
    own = home == function.__module__
    label = getattr(value, "__qualname__", name)
    if not isinstance(value, Traceable) and not own and getattr(sys.modules.get(home), label, None) is value:
        _import(name, home, label, needs)
        return
    inner = inspect.unwrap(value) if callable(value) else value
    if isinstance(inner, FunctionType) or (isinstance(value, type) and own):
        reason = _add_source(name, value, inner, function, needs, seen)
    else:
        reason = _add_data(name, value, needs)
    if reason:
        needs.absent[name] = reason


def _import(name: str, module: str, attribute: str | None, needs: Needs) -> None:
    needs.modules.append((name, module, attribute))
    if module.partition(".")[0] not in sys.stdlib_module_names:
        needs.imports.add(module)


def _add_data(name: str, value: Any, needs: Needs) -> str:
    if isinstance(value, re.Pattern):
        needs.helpers.append(f"import re as _re\n{name} = _re.compile({value.pattern!r}, {int(value.flags)})")
        return ""
    try:
        if len(dumps(mark(value, finite=False))) > _LARGEST:
            return "is too large to be sent there"
    except NotPlain:
        return f"is a {type(value).__name__}, which cannot be sent there"
    needs.names[name] = value
    return ""


def _add_source(name: str, value: Any, inner: Any, function: FunctionType, needs: Needs, seen: set[str]) -> str:
    """Send the source of one of the author's functions or classes; return why that cannot be, or an empty string."""
    if getattr(value, "parameter", None) is not None:
        return "is a trainable op, which runs outside of it"
    try:
        source = textwrap.dedent(inspect.getsource(inner))
        body = ast.parse(source).body
    except (OSError, TypeError, SyntaxError):
        return "has no source to send there"
    defined = body[0] if len(body) == 1 else None
    if not isinstance(defined, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or defined.name != name:
        return "is no plain function that could be sent there"
    if hasattr(value, "info"):
        defined.decorator_list = []  # an op: the decorator stays outside
        source = ast.unparse(defined)
    if len(needs.helpers) >= _HELPERS:
        return f"is one of more than {_HELPERS} functions"
    _collect(source, inner if isinstance(inner, FunctionType) else function, needs, seen)
    needs.helpers.append(source)
    return ""


class _Kept:
    """The versions that were run last, each with its processes; a version that is forgotten ends its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[Any, WorkerGroup] = OrderedDict()

    def get(self, key: Any, make: Callable[[], WorkerGroup]) -> WorkerGroup:
        """Return the workers of a version, made now where they are not there."""
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = make()
            self._groups.move_to_end(key)
            forgotten = [self._groups.popitem(last=False)[1] for _ in range(len(self._groups) - _VERSIONS)]
        del forgotten
        return group


_kept = _Kept()


@lru_cache(maxsize=8)
def _sandbox(imports: tuple[str, ...]) -> Sandbox:
    """Return the sandbox of this process for code that needs these modules; it ends with the process."""
    return Sandbox(imports=imports)


class SandboxedCode:
    """One version of a trainable op's code, which runs in the sandbox when it is called.

    Args:
        text: The code.
        function: The author's function.
        name: Name of the code parameter, for messages.
        sandbox: Where it runs; one of this process's own where None.
    """

    def __init__(self, text: str, function: FunctionType, name: str, sandbox: Sandbox | None) -> None:
        self._text = text
        self._function = function.__name__
        self._name = name
        self._needs = needs_of(text, function)
        self._given = sandbox

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call it and return its result.

        Raises:
            UserError: An argument cannot be sent there, or there is no sandbox on this system.
            SandboxError: The code failed.
        """
        try:
            sandbox = self._given or _sandbox(tuple(sorted(self._needs.imports)))
            group = _kept.get((sandbox, self._name, self._text), lambda: WorkerGroup(lambda: self._worker(sandbox)))
            return group.ask(args, kwargs).value
        except UserError as error:
            raise UserError(f"the changed code of {self._name!r}: {error}") from error
        except SandboxError as error:
            if error.kind == "unavailable":
                raise UserError(
                    f"the code of {self._name!r} was changed and cannot run: {error}. If you trust the code, use "
                    "`allow_unsandboxed = true` in the job, @op(trainable=True, allow_unsandboxed=True) or "
                    "`with allow_unsandboxed():`"
                ) from error
            raise self._explained(error) from error

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """Call it from a coroutine; see `run`."""
        return await asyncio.to_thread(self.run, *args, **kwargs)

    def _worker(self, sandbox: Sandbox) -> Any:
        needs = self._needs
        return sandbox.worker(
            self._text, self._function, names=needs.names, modules=needs.modules, helpers=needs.helpers
        )

    def _explained(self, error: SandboxError) -> SandboxError:
        """Return the error, with the reason where a name is missing that the author's module has."""
        missing = re.match(r"(?:free variable|name) '(\w+)'", error.message) if error.type == "NameError" else None
        reason = self._needs.absent.get(missing[1]) if missing else None
        message = error.message if reason is None else f"{error.message} in the sandbox: it {reason}"
        own = [line for line in error.lines if line[1].rpartition(".")[2] == self._function]
        lines = tuple(own[-1:]) or error.lines[-1:]
        return SandboxError(
            message, kind=error.kind, type=error.type, lines=lines, stdout=error.stdout, stderr=error.stderr
        )
