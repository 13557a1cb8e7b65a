"""The code of trainable ops: author's source as a parameter, changed source compiled once and only on permission."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from optograph.errors import UserError
from optograph.graphs.parameter import Parameter
from optograph.graphs.spec_code import CodeSpec

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

    def target(self, text: str, unsandboxed: bool) -> Target:
        """Return what to run for one value of the code parameter.

        Raises:
            UserError: The code is not the author's, and nobody allowed to run it here.
        """
        if text == self._author_text:
            return self._author
        if not (unsandboxed or self._allowed):
            raise UserError(
                f"the code of {self.parameter.name!r} was changed, and this version has no sandbox to run it in "
                "(one comes later): if you trust the code, use @op(trainable=True, allow_unsandboxed=True) or "
                "`with allow_unsandboxed():`"
            )
        return self._compiled(text)

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
    except (OSError, TypeError, SyntaxError, IndentationError):
        return ""


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
