"""The code of trainable ops: the author's source as a parameter; changed source runs in the sandbox."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from optograph.errors import UserError
from optograph.graphs.parameter import Parameter
from optograph.graphs.spec_code import CodeSpec
from optograph.graphs.state import Scope

if TYPE_CHECKING:
    from optograph.sandbox import Sandbox

_CACHED_VERSIONS = 64


class Target(NamedTuple):
    """What a call really runs.

    Attributes:
        run: The function.
        code: Its code object.
        source: The source of that code, from its first line on.
    """

    run: Callable[..., Any]
    code: CodeType | None
    source: str


class TrainableCode:
    """A trainable op's code parameter, and the functions made from its values.

    Attributes:
        parameter: The code parameter; its signature is pinned.
    """

    def __init__(self, function: Callable[..., Any], name: str, source: str, *, allowed: bool) -> None:
        if not isinstance(function, FunctionType):
            raise UserError(f"@op(trainable=True) takes a plain function, got {function!r}")
        header, body = _undecorated(source, function.__name__)
        description = inspect.getdoc(function) or ""
        spec = CodeSpec(header, function.__name__)
        self.parameter = Parameter(body, name=f"{name}.code", spec=spec, description=description)
        self._function = function
        self._allowed = allowed
        self._author = Target(function, function.__code__, source)
        self._author_text: str = self.parameter.base
        self._compiled = lru_cache(maxsize=_CACHED_VERSIONS)(self._compile)
        self._locked = lru_cache(maxsize=_CACHED_VERSIONS)(self._lock)

    def target(self, text: str, scope: Scope) -> Target:
        """Return what to run for one value of the code parameter: the author's code here, other code in the sandbox.

        Args:
            text: The value.
            scope: What is open here: a permission to run changed code in this process, a sandbox to use.
        """
        if text == self._author_text:
            return self._author
        if scope.unsandboxed or self._allowed:
            return self._compiled(text)
        return self._locked(text, scope.sandbox)

    def _lock(self, text: str, sandbox: Sandbox | None) -> Target:
        from optograph.graphs.sandboxed import SandboxedCode

        code = SandboxedCode(text, self._function, self.parameter.name or "", sandbox)
        run = code.run_async if inspect.iscoroutinefunction(self._function) else code.run
        return Target(run, None, text)

    def _compile(self, text: str) -> Target:
        function = self._function
        name = function.__name__
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        namespace = dict(function.__globals__)
        namespace.update(inspect.getclosurevars(function).nonlocals)
        program = compile(text, f"<{self.parameter.name} {digest}>", "exec", dont_inherit=True)
        exec(program, namespace)  # noqa: S102 - allowed by the caller, see target()
        made = namespace[name]
        first = made.__code__.co_firstlineno
        return Target(made, made.__code__, "\n".join(text.splitlines()[first - 1 :]))


def source_of(function: Callable[..., Any]) -> str:
    """Return the dedented source of a function, or an empty string where there is none to be had."""
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError, ValueError, SyntaxError):
        return ""


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code object that `source_of` gives the source of, below all decorators; None for a built-in."""
    try:
        return getattr(inspect.unwrap(function), "__code__", None)
    except ValueError:  # wrapped in itself
        return None


def _undecorated(source: str, name: str) -> tuple[str, str]:
    """Return the header and the source of a function, without its decorators."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        tree = ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            head = type(node)(
                name=node.name, args=node.args, body=[ast.Pass()], decorator_list=[], returns=node.returns
            )
            header = ast.unparse(ast.fix_missing_locations(ast.Module([head], []))).rsplit("\n", 1)[0]
            return header.strip().removesuffix(":"), "\n".join(lines)
    raise UserError(
        f"no source to be had of the trainable op {name!r} (defined in a console or by exec?): "
        "pass it, @op(trainable=True, source='def ...')"
    )
