"""What the page shows, worked out from the report: sentences, differences, statuses, anchors; no markup."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from optograph.report.charts import verdict
from optograph.report.credit import Credit, NodeCredit
from optograph.report.diff import Item, Line, Piece, diff_items, diff_lines, diff_text
from optograph.report.model import CandidateRow, ExampleRow, ParameterRow, RunReport, TestResult
from optograph.report.svg import money, score, signed

MAX_EXAMPLES = 5000
_LONG_SAME = 700
_SHOWN = 220
_LONG_LINES = 12
_SHOWN_LINES = 3

STATUSES = {
    "fixed": "Fixed",
    "broken": "Broken",
    "improved": "Improved",
    "worse": "Worse",
    "wrong": "Wrong in both",
    "right": "Right in both",
    "missing": "Missing",
}

FAILURE_WORDS = {
    "missing": "the endpoint failed, so there is no score",
    "timeout": "no result within the time limit",
    "truncated": "an answer was cut off at its length limit",
}
UNIT_WORDS = {"calls": "model calls", "tokens": "tokens", "usd": "US dollars", "minutes": "minutes at work"}


@dataclass(frozen=True, slots=True)
class Change:
    """How one parameter differs from the same parameter elsewhere.

    Attributes:
        name: Parameter name.
        kind: ``"text"``, ``"code"``, ``"demos"`` or ``"value"``: how to show it.
        label: Its kind in the words of the workflow.
        state: ``"changed"``, ``"same"``, ``"new"`` or ``"removed"``.
        description: What the parameter is for.
        constraint: Its rules.
        pieces: The difference of two texts; a group of three pieces is folded in the middle.
        lines: The difference of two codes as groups (folded or not, lines).
        items: The difference of two lists of demonstrations.
        old: The value before, as a text, for plain values.
        new: The value after, as a text.
    """

    name: str
    kind: str
    state: str
    label: str
    description: str = ""
    constraint: str = ""
    pieces: tuple[tuple[Piece, ...], ...] = ()
    lines: tuple[tuple[bool, tuple[Line, ...]], ...] = ()
    items: tuple[Item, ...] = ()
    old: str = ""
    new: str = ""


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A candidate with its differences from its parent."""

    row: CandidateRow
    anchor: str
    name: str
    state: str
    parents: tuple[tuple[str, str], ...]
    changed: tuple[Change, ...]
    same: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class ExampleView:
    """An example with its status and its input as named fields."""

    row: ExampleRow
    status: str
    fields: tuple[tuple[str, str], ...]
    failure: str


def as_text(value: Any) -> str:
    """Return a value as the text to show: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=None)


def fields_of(value: Any) -> tuple[tuple[str, str], ...]:
    """Return a value as named texts: the items of a mapping, or one unnamed text."""
    if isinstance(value, Mapping):
        return tuple((str(key), as_text(item)) for key, item in value.items())
    return (("", as_text(value)),)


def anchors(report: RunReport) -> dict[str, str]:
    """Return the fragment of each candidate; made of its position, never of its text."""
    found: dict[str, str] = {}
    for index, row in enumerate(report.candidates):
        found.setdefault(row.id, f"#c{index}")
    return found


def short_names(report: RunReport) -> dict[str, str]:
    """Return the shortest prefix (at least 7 characters) that tells each candidate from all others."""
    identifiers = sorted({row.id for row in report.candidates})
    length = 7
    while length < 12 and len({name[:length] for name in identifiers}) < len(identifiers):
        length += 1
    return {name: name[:length] for name in identifiers}


def candidate_state(row: CandidateRow, first: CandidateRow | None) -> str:
    """Return ``"final"``, ``"start"``, ``"accepted"`` or ``"rejected"``."""
    if row.final:
        return "final"
    if first is not None and row.id == first.id:
        return "start"
    return "accepted" if row.accepted else "rejected"


def candidate_views(report: RunReport) -> list[CandidateView]:
    """Return every candidate with its differences from its first known parent."""
    known = {row.id: row for row in reversed(report.candidates)}
    rules = {row.name: row for row in report.parameters}
    links, names = anchors(report), short_names(report)
    views: list[CandidateView] = []
    for index, row in enumerate(report.candidates):
        parent = next((known[name] for name in row.parents if name in known), None)
        changes = changes_between(parent, row, rules)
        views.append(
            CandidateView(
                row=row,
                anchor=f"c{index}",
                name=names[row.id],
                state=candidate_state(row, report.first),
                parents=tuple((names.get(name, name[:12]), links.get(name, "")) for name in row.parents),
                changed=tuple(change for change in changes if change.state != "same"),
                same=tuple(change for change in changes if change.state == "same"),
            )
        )
    return views


def was_dropped(view: CandidateView) -> bool:
    """Tell whether a candidate was given up before it was measured on the dev split."""
    return view.state == "rejected" and view.row.dev_score is None


def what_changed(report: RunReport) -> tuple[tuple[Change, ...], tuple[Change, ...]] | None:
    """Return the changed and the unchanged parameters of the final candidate against the starting one.

    None where either candidate is unknown, or both are the same one.
    """
    first, final = report.first, report.final
    if first is None or final is None or first.id == final.id:
        return None
    changes = changes_between(first, final, {row.name: row for row in report.parameters})
    changed = tuple(change for change in changes if change.state != "same")
    return changed, tuple(change for change in changes if change.state == "same")


def changes_between(old: CandidateRow | None, new: CandidateRow, rules: Mapping[str, ParameterRow]) -> list[Change]:
    """Return the change of every parameter that either candidate has; all are new where ``old`` is None."""
    before = old.values if old is not None else {}
    names = [*new.values, *(name for name in before if name not in new.values)]
    return [_change(name, before, new.values, rules.get(name)) for name in names]


def _change(name: str, before: Mapping[str, Any], after: Mapping[str, Any], rule: ParameterRow | None) -> Change:
    old, new = before.get(name), after.get(name)
    state = "new" if name not in before else "removed" if name not in after else "same" if old == new else "changed"
    if state == "same" and type(old) is not type(new):  # 1 == True in Python, not for a reader
        state = "changed"
    kind = _kind(old if state == "removed" else new, rule)
    if kind in ("text", "code") and not all(isinstance(value, str) for value in (old or "", new or "")):
        kind = "value"
    if kind == "demos" and not all(isinstance(value, list) for value in (old or [], new or [])):
        kind = "value"
    label = "demonstrations" if kind == "demos" else rule.kind if rule and rule.kind else kind
    change = Change(name, kind, state, label, rule.description if rule else "", rule.constraint if rule else "")
    if kind == "demos":
        items = diff_items(old or [], new or [])
        if state == "new":
            items = tuple(Item("same", item.value) for item in items)
        return replace(change, items=items)
    if kind == "value":
        texts = ("" if state == "new" else as_text(old), "" if state == "removed" else as_text(new))
        return replace(change, old=texts[0], new=texts[1])
    before_text, after_text = (new or "" if state == "new" else old or ""), new or ""
    if kind == "code":
        return replace(change, lines=_fold_lines(diff_lines(before_text, after_text)))
    return replace(change, pieces=tuple(_fold(piece) for piece in diff_text(before_text, after_text)))


def _kind(value: Any, rule: ParameterRow | None) -> str:
    if isinstance(value, str):
        return "code" if rule is not None and rule.kind == "code" else "text"
    if isinstance(value, list) and (rule is None or rule.kind in ("demos", "demonstrations", "list", "text")):
        return "demos"
    return "value"


def _fold(piece: Piece) -> tuple[Piece, ...]:
    """Split a long unchanged piece in head, middle and tail, so that the page can fold the middle."""
    if piece.kind != "same" or len(piece.text) <= _LONG_SAME:
        return (piece,)
    parts = (piece.text[:_SHOWN], piece.text[_SHOWN:-_SHOWN], piece.text[-_SHOWN:])
    return tuple(Piece("same", text) for text in parts)


def _fold_lines(lines: Sequence[Line]) -> tuple[tuple[bool, tuple[Line, ...]], ...]:
    """Group lines so that the middle of a long unchanged stretch can be folded; code without changes is shown whole."""
    if all(line.kind == "same" for line in lines):
        return ((False, tuple(lines)),)
    groups: list[tuple[bool, tuple[Line, ...]]] = []
    for same, stretch in groupby(lines, key=lambda line: line.kind == "same"):
        block = tuple(stretch)
        if same and len(block) > _LONG_LINES:
            groups.append((False, block[:_SHOWN_LINES]))
            groups.append((True, block[_SHOWN_LINES:-_SHOWN_LINES]))
            groups.append((False, block[-_SHOWN_LINES:]))
        else:
            groups.append((False, block))
    return tuple(groups)


def example_status(row: ExampleRow, perfect: float) -> str:
    """Return which of ``STATUSES`` an example has.

    Args:
        row: The example.
        perfect: Score of a right answer.
    """
    before, after = row.before_score, row.after_score
    if before is None or after is None:
        return "missing"
    was_right, is_right = before >= perfect - 1e-9, after >= perfect - 1e-9
    if was_right != is_right:
        return "fixed" if is_right else "broken"
    if is_right or abs(after - before) <= 1e-9:
        return "right" if is_right else "wrong"
    return "improved" if after > before else "worse"


def example_views(report: RunReport) -> list[ExampleView]:
    """Return the examples, those that changed first; at most ``MAX_EXAMPLES``."""
    rank = {name: index for index, name in enumerate(STATUSES)}
    views = [
        ExampleView(row, example_status(row, report.perfect_score), fields_of(row.input), failure_of(row))
        for row in report.examples
    ]
    return sorted(views, key=lambda view: rank[view.status])[:MAX_EXAMPLES]


def failure_of(row: ExampleRow) -> str:
    """Return the type of the failure of an example's last answer; empty where there is none."""
    return row.failure_type or ("missing" if row.after_score is None else "truncated" if row.truncated else "")


def failure_counts(report: RunReport) -> list[tuple[str, int]]:
    """Return how many examples have each type of failure, the most frequent first."""
    found = Counter(filter(None, (failure_of(row) for row in report.examples)))
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))


def status_counts(report: RunReport) -> dict[str, int]:
    """Return how many examples have each status; statuses that do not occur are left out."""
    found = [example_status(row, report.perfect_score) for row in report.examples]
    return {name: found.count(name) for name in STATUSES if name in found}


def headline(report: RunReport) -> str:
    """Return the result in one sentence that claims no more than the interval allows."""
    test, metric = report.test, report.metric_name[:1].upper() + report.metric_name[1:]
    if test is not None:
        moved = f"{metric} on {test.n} sealed test examples went from {score(test.before)} to {score(test.after)}"
        span = f"95 % interval {signed(test.low)} to {signed(test.high)}"
        tail = {
            "gain": f"a gain of {score(abs(test.difference))} ({span}) that excludes zero.",
            "loss": f"a loss of {score(abs(test.difference))} ({span}) that excludes zero.",
            "unclear": f"a difference of {signed(test.difference)} whose {span} includes zero: no change is shown.",
        }
        return f"{moved}, {tail[verdict(test)]}"
    first, final = report.first, report.final
    if first is None or final is None or None in (first.dev_score, final.dev_score):
        return "Nothing was measured yet."
    moved = f"{metric} on the dev split went from {score(first.dev_score)} to {score(final.dev_score)}"
    if not report.ended:
        return (
            f"{moved} so far. Candidates are chosen on these examples; what the change is worth is said by the sealed "
            "test, which is read once at the end."
        )
    return f"{moved}. The sealed test was not read."


def claim(test: TestResult) -> str:
    """Return what the interval of the sealed test allows to say, in one sentence."""
    read = f"Measured on {test.n} sealed test examples, read once at the end"
    return {
        "gain": f"{read}. The whole interval lies above zero.",
        "loss": f"{read}. The whole interval lies below zero: the result is worse than the start.",
        "unclear": f"{read}. The interval includes zero: no change is shown.",
    }[verdict(test)]


def pointing(credit: Credit) -> str:
    """Return in one sentence which nodes the proposals blamed most, or else changed most."""
    if credit.proposals:
        most = max(node.named for node in credit.nodes)
        return f"Named at fault most often: {_those(credit, most, 'named')}, in {most} of {credit.proposals} proposals."
    most = max((node.tried for node in credit.nodes), default=0)
    if not most:
        return "Nothing was proposed yet."
    return f"No proposal said what is at fault. Most edits went to {_those(credit, most, 'tried')}: {most} tried."


def _those(credit: Credit, most: int, what: str) -> str:
    """Name the nodes that have the most of something, three at most."""
    names = [node.node for node in credit.nodes if getattr(node, what) == most]
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return ", ".join(names[:3] + more)


def owners_of_gain(credit: Credit) -> bool:
    """Tell whether a gain counts for several nodes, since one change was made to all of them."""
    return any(node.shared for node in credit.nodes)


def share_of(node: NodeCredit, *, after: bool) -> str:
    """Return how many of a node's traced runs failed, in words; empty where none led through it."""
    failed, through = (node.failed_after, node.after) if after else (node.failed_before, node.before)
    return f"{failed:,} of {through:,}" if through else ""


def fact_sentences(report: RunReport) -> list[str]:
    """Return what happened to the run as a process, one sentence each; empty for a run without incidents."""
    facts = report.facts
    said: list[str] = []
    if facts.restarts:
        times = "once" if facts.restarts == 1 else f"{facts.restarts:,} times"
        again = f"{facts.repeated_calls:,} finished calls were" if facts.repeated_calls else "no finished call was"
        said.append(f"Started again {times}; {again} made twice.")
    if facts.copied_calls:
        said.append(f"{facts.copied_calls:,} answers were taken from another run and cost nothing.")
    if facts.damaged:
        what = "record" if facts.damaged == 1 else "records"
        said.append(f"{facts.damaged:,} damaged {what} of the journal dropped and asked for again.")
    if facts.quarantined:
        said.append(f"A broken journal was kept as {facts.quarantined}; what could be read of it was taken over.")
    if facts.rebuilt:
        said.append("Decisions were worked out again from the evaluations.")
    return [*said, *facts.notes]


def amount(value: float, what: str) -> str:
    """Return an amount of the budget in its unit."""
    if what == "usd":
        return money(value)
    return f"{value:,.1f}" if what == "minutes" else f"{value:,.0f}"


def dev_scores(report: RunReport) -> tuple[float | None, float | None]:
    """Return the dev scores of the starting and the final candidate."""
    first, final = report.first, report.final
    return (first.dev_score if first else None, final.dev_score if final else None)


def score_range(rows: Sequence[CandidateRow]) -> tuple[float, float]:
    """Return the range for score bars: 0 to 1 where the scores lie there, else from the least to the greatest."""
    known = [row.dev_score for row in rows if row.dev_score is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)
