"""Where a loop takes what a person must judge, and where the answers are kept.

An answer is kept in the journal under a hash of what was asked, as a model's answer is: it is durable before it is
used, and a run that does its last step again after a kill finds it and asks nobody twice.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from optograph.errors import UserError
from optograph.graphs import Candidate, Parameter
from optograph.optimizers.reviews.records import Review, Reviewer, ReviewRequest
from optograph.secrets import scrub
from optograph.storage import Journal

LOOP_STATE = "loop"
"""Name of the loop's state in the journal; what it waits for is part of it."""
ORIGIN = "review"
"""Origin of candidates that a person edited."""

_META = "review/"
_ANSWERED = "review.answered"


@dataclass
class ReviewDesk:
    """Where a loop takes its requests, and where answers are found.

    Attributes:
        journal: Holds the answers.
        reviewer: Asked where there is no answer yet; None has the loop pause until somebody has written one.
        recorded: Journal of the run that gives all answers, where one is replayed.
        run: Directory of the run, for those who are asked from afar.
    """

    journal: Journal
    reviewer: Reviewer | None = None
    recorded: Journal | None = None
    run: str = ""

    def answer(self, request: ReviewRequest) -> Review:
        """Return the answer to a request: a known one, or what the reviewer says, written down before it is used.

        Where nobody is there to ask, LangGraph's ``interrupt`` leaves the graph; it carries the request as JSON data,
        and a graph that is resumed with ``Command(resume=...)`` gives the answer here.

        Raises:
            UserError: The reviewer's answer cannot be used, or the recorded run holds none.
        """
        known = find_review(self.journal, request)
        if known is not None:
            return known
        if self.recorded is not None:
            known = find_review(self.recorded, request)
            if known is None:
                raise UserError(
                    f"the recorded run holds no review of candidate {request.candidate.id!r}: it was made without "
                    "reviews, or with other inputs"
                )
            return file_review(self.journal, request, known)
        if self.reviewer is not None:
            return file_review(self.journal, request, Review.from_json(self.reviewer(request)))
        return self._interrupt(request)

    def _interrupt(self, request: ReviewRequest) -> Review:
        """Leave the graph with the request; an answer that cannot be used brings it back with what was wrong."""
        from langgraph.types import interrupt

        shown = json.loads(scrub(json.dumps(request.to_json() | {"run_dir": self.run})))  # it goes into checkpoints
        while True:
            said = interrupt(shown)
            try:
                return file_review(self.journal, request, Review.from_json(said))
            except UserError as error:
                shown = {**shown, "error": str(error)}


def find_review(journal: Journal, request: ReviewRequest) -> Review | None:
    """Return the answer that the journal holds for a request, or None."""
    found = journal.get_meta(_META + request.key)
    return None if found is None else Review.from_json(found)


def file_review(journal: Journal, request: ReviewRequest, review: Review) -> Review:
    """Write an answer into the journal, with who gives it and when, and return it so.

    An answer that has not been used yet is replaced; the journal's events keep both.

    Raises:
        UserError: The edit names unknown parameters, changes nothing, or did not pass before.
    """
    _check(request, review)
    filed = replace(review, by=review.by.strip() or system_user(), at=review.at or now())
    batch = journal.batch()
    batch.set_meta(_META + request.key, filed.to_json())
    batch.add_event(_ANSWERED, key=request.key, candidate=request.candidate.id, **filed.to_json())
    batch.commit()
    return filed


def _check(request: ReviewRequest, review: Review) -> None:
    if review.verdict != "edit":
        return
    known = request.candidate.values
    unknown = sorted(set(review.values) - set(known))
    if unknown:
        raise UserError(f"the edit sets unknown parameters {unknown!r}; the candidate has {sorted(known)!r}")
    child = edited(request, review).id
    if child == request.candidate.id:
        raise UserError("the edit changes nothing: approve the candidate as it is")
    if child == request.incumbent.id:
        raise UserError("the edit brings back the values that are in use: reject the candidate instead")
    for one in request.edits:
        if one["candidate"] == child and one["outcome"] != "missing":
            raise UserError(f"this edit was tested before and did not pass ({one['reason']}): write another one")


def edited(request: ReviewRequest, review: Review, parameters: Mapping[str, Parameter] | None = None) -> Candidate:
    """Return the candidate that an edit makes: the reviewed one is its parent.

    Args:
        request: What was reviewed.
        review: The edit.
        parameters: Check and complete the values, where they are given.

    Raises:
        UserError: A parameter does not take its value.
    """
    values = dict(review.values)
    for name, value in values.items():
        if parameters is None:
            break
        spec = parameters[name].spec
        try:
            values[name] = spec.to_json(spec.from_json(value))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return request.candidate.with_values(values, origin=ORIGIN)


def pending_review(journal: Journal) -> tuple[ReviewRequest, Review | None] | None:
    """Return what a run waits for, with the answer that was written and not used yet; None where nothing is asked."""
    state = journal.load_state(LOOP_STATE)
    if not isinstance(state, Mapping) or state.get("review") is None:
        return None
    request = ReviewRequest.from_json(state["review"])
    return request, find_review(journal, request)


def now() -> str:
    """Return the time as ISO 8601 text in UTC."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def system_user() -> str:
    """Return the name of the user that this process runs as, or ``"unknown"``."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run a user without a name
        return "unknown"
