"""Making the texts inside a function replaceable: its source is compiled again with each text looked up by name."""

from __future__ import annotations
import __future__

import ast
import functools
import linecache
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PREFIX = "_optograph_text_"
_FUTURES = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_IGNORED_CALLS = frozenset({"getLogger", "debug", "info", "warning", "error", "exception", "critical", "print", "warn"})
_IGNORED_METHODS = frozenset({"join", "split", "startswith", "endswith", "strip", "replace", "encode", "decode", "get"})


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text in the source of a function.

    Attributes:
        key: Name under which the rewritten function looks it up.
        text: The text; what an f-string fills in stands in braces, as in the source.
        placeholders: Those pieces, in order, such as ``"{question}"``.
        line: Line of the file.
        called: Whether it is an f-string.
    """

    key: str
    text: str
    placeholders: tuple[str, ...]
    line: int
    called: bool


def rewrite(
    function: types.FunctionType, wanted: Callable[[str], bool]
) -> tuple[types.CodeType, tuple[SourceText, ...]] | None:
    """Compile a function again with its texts looked up as globals.

    A constant becomes the global ``_optograph_text_N``; an f-string becomes a call of that global with the pieces that
    it fills in, as text.

    Args:
        function: A plain function or lambda.
        wanted: Which texts are meant.

    Returns:
        The new code, which fits the function's closure cell by cell, and the texts. None where there is no such text,
        or where the source is not at hand or is not what was loaded.
    """
    code = function.__code__
    tree = _tree(code.co_filename)
    if tree is None:
        return None
    for node, classes in _functions(tree, code):
        plain = _compiled(node, classes, code)
        if plain is None or not _same(plain, code):
            continue
        rewriter = _Rewriter(wanted)
        changed = rewriter.rewrite(node)
        if not rewriter.texts:
            return None
        new = _compiled(changed, classes, code)
        return None if new is None else (new, tuple(rewriter.texts))
    return None


@functools.lru_cache(maxsize=256)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _tree(filename: str) -> ast.Module | None:
    source = "".join(linecache.getlines(filename))
    return _parsed(source) if source else None


def _functions(tree: ast.Module, code: types.CodeType) -> Iterator[tuple[_Function, tuple[str, ...]]]:
    """Give the functions of the file that begin where the code does, with the classes around them."""
    stack: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while stack:
        parent, classes = stack.pop()
        for node in ast.iter_child_nodes(parent):
            inside = (*classes, node.name) if isinstance(node, ast.ClassDef) else classes
            stack.append((node, inside))
            if isinstance(node, ast.Lambda):
                if code.co_name == "<lambda>" and node.lineno == code.co_firstlineno:
                    yield node, classes
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if node.name == code.co_name and first == code.co_firstlineno:
                    yield node, classes


def _compiled(node: _Function, classes: tuple[str, ...], code: types.CodeType) -> types.CodeType | None:
    """Compile one function as it stands in its file: inside its classes, with the same free variables."""
    inner: ast.stmt
    if isinstance(node, ast.Lambda):
        inner = ast.Expr(node)
    else:
        fields = {**dict(ast.iter_fields(node)), "decorator_list": [], "returns": None}
        inner = type(node)(**fields)
    body: list[ast.stmt] = [ast.copy_location(inner, node)]
    for name in reversed(classes):
        body = [ast.ClassDef(name=name, bases=[], keywords=[], body=body, decorator_list=[])]
    names = [ast.arg(name) for name in code.co_freevars]
    outer = ast.FunctionDef(
        name="_outer",
        args=ast.arguments(posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=[]),
        body=body,
        decorator_list=[],
    )
    module = ast.fix_missing_locations(ast.Module([outer], []))
    try:
        whole = compile(module, code.co_filename, "exec", flags=code.co_flags & _FUTURES, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    found = _find(whole, code.co_name, node.lineno)
    if found is None or set(found.co_freevars) != set(code.co_freevars):
        return None
    return found.replace(co_qualname=code.co_qualname, co_firstlineno=code.co_firstlineno)


def _find(code: types.CodeType, name: str, line: int) -> types.CodeType | None:
    for inner in _codes(code):
        if inner.co_name == name and inner.co_firstlineno == line:
            return inner
    return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two codes do the same: then the file is still the one that was loaded."""
    if one.co_code != other.co_code or one.co_names != other.co_names or len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        _same(left, right)
        if isinstance(left, types.CodeType) and isinstance(right, types.CodeType)
        else type(left) is type(right) and left == right
        for left, right in zip(one.co_consts, other.co_consts, strict=True)
    )


class _Rewriter(ast.NodeTransformer):
    """Replaces the wanted texts of one function, and notes them."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self.wanted = wanted
        self.texts: list[SourceText] = []

    def rewrite(self, node: _Function) -> _Function:
        """Return the function with its texts looked up; the given tree stays as it is."""
        copy: _Function = _copied(node)
        if isinstance(copy, ast.Lambda):
            copy.body = self.visit(copy.body)
        else:
            copy.body = [self.visit(statement) for statement in copy.body]
        return copy

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Leave a string that stands alone (a docstring) as it is."""
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Leave the words of an error as they are."""
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Leave the words of an assertion as they are."""
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Leave what is compared with as it is."""
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Leave log messages, and the arguments of string methods, as they are."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _IGNORED_CALLS:
            return node
        if name in _IGNORED_METHODS:
            node.args = [one if isinstance(one, ast.Constant) else self.visit(one) for one in node.args]
            return node
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Leave keys as they are."""
        node.value = self.visit(node.value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Leave keys as they are."""
        node.values = [self.visit(one) for one in node.values]
        return node

    def visit_Match(self, node: ast.Match) -> ast.AST:
        """Leave patterns as they are."""
        node.subject = self.visit(node.subject)
        for case in node.cases:
            case.body = [self.visit(statement) for statement in case.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Look into the body of an inner function only: annotations and defaults are made elsewhere."""
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """Likewise."""
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Leave classes as they are."""
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave annotations as they are."""
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Replace a constant text."""
        if not isinstance(node.value, str) or not self.wanted(node.value):
            return node
        key = self._note(node.value, braces(node.value), node.lineno, called=False)
        return ast.copy_location(ast.Name(key, ast.Load()), node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Replace an f-string by a call that fills in its pieces."""
        pieces = [one for one in node.values if isinstance(one, ast.FormattedValue)]
        named = iter([f"{{{_source(one)}}}" for one in pieces])
        text = "".join(str(one.value) if isinstance(one, ast.Constant) else next(named) for one in node.values)
        literal = "".join(str(one.value) for one in node.values if isinstance(one, ast.Constant))
        if not self.wanted(literal):
            return node
        placeholders = tuple(f"{{{_source(one)}}}" for one in pieces)
        key = self._note(text, placeholders, node.lineno, called=True)
        arguments: list[ast.expr] = [ast.JoinedStr([one]) for one in pieces]
        return ast.copy_location(ast.Call(ast.Name(key, ast.Load()), arguments, []), node)

    def _note(self, text: str, placeholders: tuple[str, ...], line: int, *, called: bool) -> str:
        key = f"{PREFIX}{len(self.texts) + 1}"
        self.texts.append(SourceText(key, text, placeholders, line, called))
        return key


def _copied(node: Any) -> Any:
    """Copy a tree; its constants are shared."""
    if isinstance(node, ast.AST):
        made = type(node)(**{name: _copied(value) for name, value in ast.iter_fields(node)})
        return ast.copy_location(made, node) if hasattr(node, "lineno") else made
    return [_copied(one) for one in node] if isinstance(node, list) else node


def _source(node: ast.FormattedValue) -> str:
    """Write what stands between the braces of an f-string."""
    conversion = f"!{chr(node.conversion)}" if node.conversion != -1 else ""
    spec = ""
    if isinstance(node.format_spec, ast.JoinedStr):
        spec = ":" + "".join(
            str(one.value) if isinstance(one, ast.Constant) else f"{{{_source(one)}}}"
            for one in node.format_spec.values
            if isinstance(one, ast.Constant | ast.FormattedValue)
        )
    return f"{ast.unparse(node.value)}{conversion}{spec}"


_BRACES = re.compile(r"(?<!\{)\{[A-Za-z_][\w.\[\]]*(?:![rsa])?(?::[^{}]*)?\}(?!\})")


def braces(text: str) -> tuple[str, ...]:
    """Return the placeholders of a text that `str.format` or a prompt template fills in, each once, in order."""
    return tuple(dict.fromkeys(_BRACES.findall(text)))


def fill(text: str, placeholders: tuple[str, ...], pieces: tuple[str, ...]) -> str:
    """Put the pieces in the place of the placeholders; all other braces stay.

    Args:
        text: The text, in any order of placeholders.
        placeholders: What to replace.
        pieces: What to put there, one for each placeholder of the source, in that order.
    """
    if not placeholders:
        return text
    known = dict(zip(placeholders, pieces, strict=True))
    pattern = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
    return re.sub(pattern, lambda found: known[found[0]], text)
