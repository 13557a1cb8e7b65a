"""A person with one rule, as a script: demonstrations must tell nothing of a customer's family, and hold no numbers.

``python examples/review/person.py RUN`` answers what a run waits for, as ``optograph review RUN`` does for you. In
Python, ``optimize(..., options=RunOptions(review=person))`` asks the same function at once.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from optograph.optimizers import Review, ReviewRequest, file_review, pending_review
from optograph.storage import Journal

PRIVATE = re.compile(r"\d{4,}|\S+@\S+|\bmy (dad|mum|son|daughter|wife|husband|little one)\b", re.IGNORECASE)


def person(request: ReviewRequest) -> Review:
    """Take private demonstrations out of a candidate; turn it down where it is no better without them."""
    demos = request.candidate.to_json()["values"]["judge.demos"]
    kept = [demo for demo in demos if not PRIVATE.search(demo["text"])]
    if len(kept) == len(demos):
        return Review("approve", by="house rules")
    if request.edits:
        return Review("reject", "Without private details it is no better.", by="house rules")
    return Review("edit", "Nothing of anybody's family.", {"judge.demos": kept}, by="house rules")


def main(run: Path) -> None:
    """Answer what a run waits for."""
    with Journal.open(run, counted=False) as journal:
        pending = pending_review(journal)
        if pending is None:
            sys.exit(f"{run} waits for no review")
        filed = file_review(journal, pending[0], person(pending[0]))
    print(f"{filed.by}, {filed.at}: {filed.verdict}. {filed.comment}".rstrip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
