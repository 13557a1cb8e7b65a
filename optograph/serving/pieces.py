"""Text as it is written: who wants to see it, in a context variable, fed by the models that can stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]


class Pieces:
    """The pieces of one answer, on their way to a listener.

    Attributes:
        text: What the listener has heard of the answer so far.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.text = ""

    def begin(self) -> None:
        """Begin the answer anew, since it broke off or could not be used: an empty piece says so."""
        if self.text:
            self.text = ""
            self._listener("")

    def add(self, piece: str) -> None:
        """Hand on what has been written."""
        if piece:
            self.text += piece
            self._listener(piece)

    def finish(self, text: str) -> None:
        """Hand on what is left of the whole answer: all of it where the model did not stream."""
        if not text.startswith(self.text):
            self.begin()
        self.add(text[len(self.text) :])


_pieces: ContextVar[Pieces | None] = ContextVar("optograph_pieces", default=None)


@contextmanager
def streaming_to(listener: Listener) -> Iterator[Pieces]:
    """Have `listener` given the text of the answers asked for within a ``with`` block, piece by piece.

    It is called on the thread of the model loop, so it must be quick and must not raise. Only models behind HTTP
    stream, and only requests of one text; whoever asks calls ``finish`` with the whole answer, and so need not care. An
    empty piece means that the answer begins anew.
    """
    pieces = Pieces(listener)
    token = _pieces.set(pieces)
    try:
        yield pieces
    finally:
        _pieces.reset(token)


def wanted_pieces() -> Pieces | None:
    """Return where the pieces of the current call go, or None where nobody listens."""
    return _pieces.get()
