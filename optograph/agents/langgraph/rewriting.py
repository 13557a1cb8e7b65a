"""Making the texts inside a function replaceable: its source is compiled again with each text looked up by name."""

from __future__ import annotations

import ast
import functools
import linecache
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optograph.agents.langgraph.finding import looks_like_prompt

PREFIX = "_optograph_text_"
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


def rewrite(function: types.FunctionType) -> tuple[types.CodeType, tuple[SourceText, ...]] | None:
    """Return the code of a function with its texts looked up as globals.

    A constant becomes the global ``_optograph_text_N``; an f-string becomes a call of that global with the pieces that
    it fills in, as text. The whole file is compiled again, so that the code fits the function's closure cell by cell.

    Args:
        function: A plain function or lambda.

    Returns:
        The new code and the texts. None where there is no such text, or where the source is not at hand or is not what
        was loaded.
    """
    code = function.__code__
    source = "".join(linecache.getlines(code.co_filename))
    for old, new, texts in _rewritten(source, code.co_filename) if source else ():
        if old == code and texts and list(old.co_positions()) == list(code.co_positions()):
            return new, texts
    return None


_Rewritten = tuple[types.CodeType, types.CodeType, tuple[SourceText, ...]]


@functools.lru_cache(maxsize=64)
def _rewritten(source: str, filename: str) -> tuple[_Rewritten, ...]:
    """Compile a file as it is and with its texts looked up; gives each function's code before and after."""
    try:
        tree = ast.parse(source)
        old = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return ()
    rewriter = _Rewriter()
    new = compile(ast.fix_missing_locations(rewriter.visit(tree)), filename, "exec", dont_inherit=True)
    texts = {one.key: one for one in rewriter.texts}
    return tuple(
        (before, after, tuple(one for key, one in texts.items() if key in _names(after)))
        for before, after in zip(_codes(old), _codes(new), strict=True)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _names(code: types.CodeType) -> set[str]:
    return {*code.co_names, *(name for inner in _codes(code) for name in inner.co_names)}


class _Rewriter(ast.NodeTransformer):
    """Replaces the texts inside the functions of a file, and notes them."""

    def __init__(self) -> None:
        self.texts: list[SourceText] = []
        self._inside = 0

    def _function(self, node: Any) -> Any:
        """Look into the body of a function only: annotations, defaults and decorators are made elsewhere."""
        self._inside += 1
        if isinstance(node, ast.Lambda):
            node.body = self.visit(node.body)
        else:
            node.body = [self.visit(statement) for statement in node.body]
        self._inside -= 1
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Look into the methods of a class, and leave its attributes as they are."""
        inside, self._inside = self._inside, 0
        node.body = [self.visit(statement) for statement in node.body]
        self._inside = inside
        return node

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
            node.func = self.visit(node.func)
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

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Leave annotations as they are."""
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Replace a constant text."""
        if not self._inside or not isinstance(node.value, str) or not looks_like_prompt(node.value):
            return node
        key = self._note(node.value, braces(node.value), node.lineno, called=False)
        return ast.copy_location(ast.Name(key, ast.Load()), node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Replace an f-string by a call that fills in its pieces."""
        pieces = [one for one in node.values if isinstance(one, ast.FormattedValue)]
        named = iter([f"{{{_source(one)}}}" for one in pieces])
        text = "".join(str(one.value) if isinstance(one, ast.Constant) else next(named) for one in node.values)
        literal = "".join(str(one.value) for one in node.values if isinstance(one, ast.Constant))
        placeholders = tuple(f"{{{_source(one)}}}" for one in pieces)
        if not self._inside or not looks_like_prompt(literal) or any(one in literal for one in placeholders):
            return node  # a placeholder that also stands there in braces of its own could not be told from it
        key = self._note(text, placeholders, node.lineno, called=True)
        arguments: list[ast.expr] = [ast.JoinedStr([one]) for one in pieces]
        return ast.copy_location(ast.Call(ast.Name(key, ast.Load()), arguments, []), node)

    def _note(self, text: str, placeholders: tuple[str, ...], line: int, *, called: bool) -> str:
        key = f"{PREFIX}{len(self.texts) + 1}"
        self.texts.append(SourceText(key, text, placeholders, line, called))
        return key


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
        pieces: What to put there, one for each placeholder of the source, in that order. Where one stands there several
            times, its first place in the text gets its first piece and so on; further places get the last.
    """
    if not placeholders:
        return text
    known: dict[str, list[str]] = {}
    for placeholder, piece in zip(placeholders, pieces, strict=True):
        known.setdefault(placeholder, []).append(piece)

    def piece_of(found: re.Match[str]) -> str:
        waiting = known[found[0]]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    pattern = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
    return re.sub(pattern, piece_of, text)
