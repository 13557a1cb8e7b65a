"""Differences between two values of a parameter: words for text and code, whole items for lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

PieceKind = Literal["same", "removed", "added"]

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MAX_TOKENS = 3000
_MAX_LINES = 4000
_MIN_LIKENESS = 0.35


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters that both texts share, or that only one of them has."""

    kind: PieceKind
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """An element of a list that both lists share, or that only one of them has."""

    kind: PieceKind
    value: Any


def diff_text(old: str, new: str) -> tuple[Piece, ...]:
    """Return the word-level difference of two texts, in reading order.

    Lines are compared first and words within changed lines second, so that code stays aligned and a long text costs
    little. Blocks that share too few words are shown as removed and added whole, which reads better than confetti.

    Args:
        old: The text before.
        new: The text after.

    Returns:
        Pieces; joining the kept and added ones gives ``new``, joining the kept and removed ones gives ``old``.
    """
    old_lines, new_lines = _LINE.findall(old), _LINE.findall(new)
    pieces: list[Piece] = []
    if len(old_lines) + len(new_lines) > _MAX_LINES:
        pieces.extend(_replaced(old, new))
        return _tidy(pieces)
    for name, a, b in _opcodes(old_lines, new_lines):
        if name == "equal":
            pieces.append(Piece("same", "".join(b)))
        else:
            pieces.extend(_word_pieces("".join(a), "".join(b)))
    return _tidy(pieces)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that both texts share, or that only one has; its changed words are marked where they are few."""

    kind: PieceKind
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The whole line with its line end."""
        return "".join(piece.text for piece in self.pieces)


def diff_lines(old: str, new: str) -> tuple[Line, ...]:
    """Return the difference of two texts line by line, for code.

    Args:
        old: The text before.
        new: The text after.

    Returns:
        Lines; joining the kept and added ones gives ``new``, joining the kept and removed ones gives ``old``.
    """
    old_lines, new_lines = _LINE.findall(old), _LINE.findall(new)
    if len(old_lines) + len(new_lines) > _MAX_LINES:
        pieces = _replaced(old, new)
        return (*_side(pieces, "removed"), *_side(pieces, "added"))
    lines: list[Line] = []
    for name, a, b in _opcodes(old_lines, new_lines):
        if name == "equal":
            lines.extend(Line("same", (Piece("same", text),)) for text in b)
        else:
            words = _word_pieces("".join(a), "".join(b))
            lines.extend(_side(words, "removed"))
            lines.extend(_side(words, "added"))
    return tuple(lines)


def _side(pieces: Sequence[Piece], kind: PieceKind) -> Iterator[Line]:
    """Cut the pieces of one side into lines; a line that changed as a whole has no marked words."""
    line: list[Piece] = []
    for piece in pieces:
        if piece.kind not in ("same", kind):
            continue
        for text in _LINE.findall(piece.text):
            line.append(Piece(piece.kind, text))
            if text.endswith("\n"):
                yield _line(kind, line)
                line = []
    if line:
        yield _line(kind, line)


def _line(kind: PieceKind, pieces: Sequence[Piece]) -> Line:
    marked = any(piece.kind == "same" and not piece.text.isspace() for piece in pieces)
    return Line(kind, tuple(pieces if marked else (Piece("same", piece.text) for piece in pieces)))


def old_text(pieces: Sequence[Piece]) -> str:
    """Return the text before, from its difference."""
    return "".join(piece.text for piece in pieces if piece.kind != "added")


def new_text(pieces: Sequence[Piece]) -> str:
    """Return the text after, from its difference."""
    return "".join(piece.text for piece in pieces if piece.kind != "removed")


def diff_items(old: Sequence[Any], new: Sequence[Any]) -> tuple[Item, ...]:
    """Return the items of ``new`` in order, each marked kept or added, then those of ``old`` that are gone.

    Items are equal when their JSON is; an item that only moved counts as kept.
    """
    left: dict[str, int] = {}
    for item in old:
        key = _key(item)
        left[key] = left.get(key, 0) + 1
    result: list[Item] = []
    for item in new:
        key = _key(item)
        if left.get(key, 0) > 0:
            left[key] -= 1
            result.append(Item("same", item))
        else:
            result.append(Item("added", item))
    for item in reversed(old):
        key = _key(item)
        if left.get(key, 0) > 0:
            left[key] -= 1
            result.append(Item("removed", item))
    kept = [item for item in result if item.kind != "removed"]
    gone = [item for item in result if item.kind == "removed"]
    return (*kept, *reversed(gone))


def _key(item: Any) -> str:
    return json.dumps(item, sort_keys=True, ensure_ascii=False, default=str)


def _opcodes(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    for name, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        yield name, a[a_from:a_to], b[b_from:b_to]


def _replaced(old: str, new: str) -> list[Piece]:
    return [Piece("removed", old), Piece("added", new)]


def _word_pieces(old: str, new: str) -> list[Piece]:
    a, b = _TOKEN.findall(old), _TOKEN.findall(new)
    if not a or not b or len(a) + len(b) > _MAX_TOKENS:
        return _replaced(old, new)
    pieces: list[Piece] = []
    shared = 0
    for name, gone, come in _opcodes(a, b):
        if name == "equal":
            text = "".join(come)
            shared += sum(len(token) for token in come if not token.isspace())
            pieces.append(Piece("same", text))
        else:
            pieces.extend(_replaced("".join(gone), "".join(come)))
    longest = max(_weight(a), _weight(b))
    if longest and shared / longest < _MIN_LIKENESS:
        return _replaced(old, new)
    return _join_islands(pieces)


def _weight(tokens: Sequence[str]) -> int:
    return sum(len(token) for token in tokens if not token.isspace())


def _join_islands(pieces: Sequence[Piece]) -> list[Piece]:
    """Fold shared blanks and lone punctuation between two changes into both sides, so that changes read as phrases."""
    result: list[Piece] = []
    solid = [piece for piece in pieces if piece.text]
    for index, piece in enumerate(solid):
        inside = 0 < index < len(solid) - 1
        blank = "\n" not in piece.text and not any(character.isalnum() for character in piece.text)
        if piece.kind == "same" and inside and blank and len(piece.text) <= 2:
            result.extend(_replaced(piece.text, piece.text))
        else:
            result.append(piece)
    return result


def _tidy(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Drop empty pieces and put each change in the order removed, added."""
    result: list[Piece] = []
    removed: list[str] = []
    added: list[str] = []

    def flush() -> None:
        if removed:
            result.append(Piece("removed", "".join(removed)))
        if added:
            result.append(Piece("added", "".join(added)))
        removed.clear()
        added.clear()

    for piece in pieces:
        if not piece.text:
            continue
        if piece.kind == "same":
            flush()
            if result and result[-1].kind == "same":
                result[-1] = Piece("same", result[-1].text + piece.text)
            else:
                result.append(piece)
        else:
            (removed if piece.kind == "removed" else added).append(piece.text)
    flush()
    return tuple(result)
