"""The spec of a code parameter: Python source whose one function keeps its pinned signature."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar

from optograph.errors import UserError
from optograph.graphs.shown import shown
from optograph.graphs.spec import Spec, _plain_text

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_HELPERS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
)


@dataclass(frozen=True, slots=True)
class CodeSpec(Spec):
    """Python source that defines one function with a fixed name and fixed arguments.

    The source may also hold imports, helper functions, classes and constants at its top level, nothing else.
    Names, order, kinds and defaults of the arguments are pinned; annotations are free.

    Args:
        signature: The header: ``"def f(x, y=2) -> int"`` (``async def`` too), or only ``"(x, y=2)"``.
        name: Name of the function.
        max_chars: Longest source in characters.
    """

    signature: str
    name: str
    max_chars: int = 20000
    kind: ClassVar[str] = "code"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"name must be a Python identifier, got {self.name!r}")
        header = self.signature.strip().removesuffix(":").strip()
        if header.startswith("("):
            header = f"def {self.name}{header}"
        pinned = _only_function(_parse(f"{header}: pass", "signature"), self.name)
        if pinned is None:
            raise UserError(f"signature must be the header of {self.name!r}, got {self.signature!r}")
        object.__setattr__(self, "signature", header)

    def validate(self, value: Any) -> str:
        """Return the source, dedented and ended by one newline."""
        text = textwrap.dedent(_plain_text(value, "code")).strip() + "\n"
        if len(text) > self.max_chars:
            raise UserError(f"code must have at most {self.max_chars} characters, got {len(text)}")
        tree = _parse(text, "code")
        for statement in tree.body:
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not (docstring or isinstance(statement, _HELPERS)):
                raise UserError(
                    f"code may hold only definitions, imports and constants at its top level, "
                    f"got line {statement.lineno}: {shown(text.splitlines()[statement.lineno - 1])}"
                )
        function = _only_function(tree, self.name)
        if function is None:
            raise UserError(
                f"code must define the function once, undecorated, as {self.signature!r}: got {shown(text)}"
            )
        pinned = _only_function(_parse(f"{self.signature}: pass", "signature"), self.name)
        if pinned is None or _shape(function) != _shape(pinned):
            got = ast.unparse(function.args)
            raise UserError(f"code must keep the signature {self.signature!r}, got {function.name}({got})")
        return text

    def json_schema(self) -> dict[str, Any]:
        """Return a string schema."""
        return {"type": "string", "minLength": 1, "maxLength": self.max_chars}

    def describe(self) -> str:
        """Return the pinned header in words."""
        return f"Python code that defines `{self.signature}:` with exactly these arguments"


def _parse(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{what} is not valid Python ({error}): {shown(text)}") from None


def _only_function(tree: ast.Module, name: str) -> _Function | None:
    """Return the one plain top-level definition of `name`, or None."""
    found = [node for node in tree.body if isinstance(node, _Function | ast.ClassDef) and node.name == name]
    if len(found) != 1 or isinstance(found[0], ast.ClassDef) or found[0].decorator_list:
        return None
    return found[0]


def _shape(function: _Function) -> tuple[Any, ...]:
    """Return what the signature pins: async or not, argument names by kind, defaults."""
    args = function.args
    return (
        type(function),
        [arg.arg for arg in args.posonlyargs],
        [arg.arg for arg in args.args],
        [arg.arg for arg in args.kwonlyargs],
        args.vararg.arg if args.vararg else None,
        args.kwarg.arg if args.kwarg else None,
        [ast.dump(default) for default in args.defaults],
        [None if default is None else ast.dump(default) for default in args.kw_defaults],
    )
