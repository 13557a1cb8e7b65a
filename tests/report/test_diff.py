"""Differences lose nothing and read well."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from optograph.report.diff import Piece, diff_items, diff_lines, diff_text, new_text, old_text

TEXT = st.text(alphabet="ab c\n.,é\u202e", max_size=80)
WORDS = st.lists(st.sampled_from(["read", "the", "review", "and", "answer", ".", "\n", "  "]), max_size=40).map(
    " ".join
)


@given(old=TEXT | WORDS, new=TEXT | WORDS)
@settings(max_examples=300, deadline=None)
def test_joining_the_pieces_gives_both_texts(old: str, new: str) -> None:
    pieces = diff_text(old, new)
    assert old_text(pieces) == old
    assert new_text(pieces) == new
    assert all(piece.text for piece in pieces)


@given(old=TEXT | WORDS, new=TEXT | WORDS)
@settings(max_examples=300, deadline=None)
def test_joining_the_lines_gives_both_texts(old: str, new: str) -> None:
    lines = diff_lines(old, new)
    assert "".join(line.text for line in lines if line.kind != "added") == old
    assert "".join(line.text for line in lines if line.kind != "removed") == new
    for line in lines:
        assert {piece.kind for piece in line.pieces} <= {"same", line.kind}
        assert "\n" not in line.text[:-1]


@given(old=st.lists(st.integers(0, 4)), new=st.lists(st.integers(0, 4)))
@settings(deadline=None)
def test_items_are_kept_added_or_removed(old: list[int], new: list[int]) -> None:
    items = diff_items(old, new)
    assert [item.value for item in items if item.kind != "removed"] == new
    kept = sorted(item.value for item in items if item.kind != "added")
    assert kept == sorted(old)


def test_equal_texts_are_one_piece() -> None:
    assert diff_text("a b", "a b") == (Piece("same", "a b"),)
    assert diff_text("", "") == ()


def test_words_change_not_letters() -> None:
    assert diff_text("Classify the review.", "Classify the customer review.") == (
        Piece("same", "Classify the "),
        Piece("added", "customer "),
        Piece("same", "review."),
    )


def test_neighbouring_changes_read_as_one_phrase() -> None:
    old, new = "Please answer with one short word now.", "Please answer using two short words now."
    changed = [piece for piece in diff_text(old, new) if piece.kind != "same"]
    assert [piece.text for piece in changed] == ["with one", "using two", "word", "words"]


def test_unlike_texts_are_replaced_whole() -> None:
    old, new = "Classify the customer review.", "Say whether a buyer sounds happy, or sad, with one word."
    assert diff_text(old, new) == (Piece("removed", old), Piece("added", new))


def test_code_keeps_unchanged_lines() -> None:
    old = "def f(x):\n    y = x + 1\n    return y\n"
    new = "def f(x):\n    y = x + 2\n    return y\n"
    assert [line.kind for line in diff_lines(old, new)] == ["same", "removed", "added", "same"]
    assert [piece.text for piece in diff_lines(old, new)[2].pieces if piece.kind == "added"] == ["2"]


def test_long_texts_take_little_time() -> None:
    old = "the word and the other word\n" * 3000
    new = "the word or another word, the end " * 3000
    start = time.perf_counter()
    assert new_text(diff_text(old, new)) == new
    assert new_text(diff_text(new, new + "x")) == new + "x"
    assert len(diff_lines(old, new)) > 0
    assert time.perf_counter() - start < 5
