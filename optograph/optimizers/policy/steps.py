"""Where a step of reasoning begins: after the end of a line or of a sentence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

_SENTENCE_ENDS = (".", "!", "?")


def step_starts(
    ids: Sequence[int], mask: Sequence[bool], decode: Callable[[int], str], ends: Collection[int] = ()
) -> list[bool]:
    """Return for each token whether it is the first of a step.

    A step ends with a token that holds a line break, or with one that ends in ``.``, ``!`` or ``?`` where the next
    begins with white space (so 3.5 is no end). What the policy writes after a tool spoke begins a step as well. To end
    the turn is a step of its own, so that the critic learns what a whole answer is worth, which a search asks it.

    Args:
        ids: A row's tokens.
        mask: Which of them the policy wrote.
        decode: Gives the text of a token.
        ends: Ids of the tokens that end a turn.
    """
    texts = [decode(one) for one in ids]
    starts = [False] * len(ids)
    for place in range(1, len(ids)):
        if not mask[place]:
            continue
        before, here = texts[place - 1], texts[place]
        sentence = before.endswith(_SENTENCE_ENDS) and (not here or here[0].isspace())
        starts[place] = not mask[place - 1] or ids[place] in ends or sentence or _line_ended(before, here)
    return starts


def _line_ended(before: str, here: str) -> bool:
    """Whether a line ended before this token; several line breaks in a row are one end."""
    return "\n" in before and "\n" not in here
