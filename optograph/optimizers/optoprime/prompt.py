"""What OptoPrime asks its model: the traced program and its feedback in full, or one value at a time and short.

The full form has the sections of the OptoPrime problem (Cheng et al. 2024, arXiv 2406.16218, section 4 and appendix):
the program as pseudo-code, what its functions do, the variables that may change with their constraints, inputs,
intermediate values, outputs and feedback. The short form is for models too small to read that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optograph.evals import Example, ExampleResult
from optograph.graphs import Feedback, Rendering, Spec
from optograph.optimizers.optoprime.memory import Memory
from optograph.serving import Message

SYSTEM = """\
You improve a program by changing the values of its variables.

You are shown one or more runs of the program in sections:
- Code: the calls in the order in which they ran, one a line.
- Documentation: what each called function does.
- Variables: the values that you may change.
- Constraints: what a variable's value must obey.
- Inputs, Others, Outputs: values that you cannot change; they follow from the inputs and the variables.
- Feedback: how good each output was, and what was wrong with it.

Work backwards from the feedback: which variables made the outputs wrong, and how? Then choose new values that would \
make the feedback better on these runs and on others like them. State rules that hold in general; do not copy \
answers or wording of single runs into a variable.

Answer with one JSON object and nothing else:
{"reasoning": "what the feedback asks for, which variables are to blame, how to change them",
 "blame": ["names of the variables at fault"],
 "answer": "CHANGE, or TERMINATE if the feedback asks for no change",
 "suggestion": {"name of a variable": its whole new value}}
Leave out variables that should stay as they are. Keep each value's type and constraints."""

COMPACT_SYSTEM = """\
You improve one setting of a program. You are given its value now and what the program did with it. \
Choose a better value. Answer as JSON: {"reasoning": "...", "answer": "CHANGE", "suggestion": {"NAME": VALUE}}."""

REVIEWED = "People reviewed earlier proposals. Follow what they ask for, also where it costs score."

REPAIR = """\
That answer could not be used:
{problems}
Send the whole JSON object again with this put right."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One evaluated example with what the optimizer may know of it."""

    example: Example
    result: ExampleResult


def full_messages(rendering: Rendering, memory: Memory, advice: Sequence[Feedback] = ()) -> tuple[Message, ...]:
    """Write the full problem: the rendered runs, then what was tried before, then what people said of proposals."""
    parts = [rendering.text]
    if memory.entries:
        parts.append(f"## Tried before\n{memory.text()}")
    if advice:
        parts.append("## Review\n" + "\n".join([REVIEWED, *(f"- {_said(one)}" for one in advice)]))
    parts.append(f"The variables are: {', '.join(rendering.names)}.")
    return (Message("system", SYSTEM), Message("user", "\n\n".join(parts)))


def compact_messages(
    name: str,
    value: Any,
    spec: Spec,
    evidence: Sequence[Evidence],
    memory: Memory,
    advice: Sequence[Feedback] = (),
    *,
    most: int = 4,
) -> tuple[Message, ...]:
    """Write the short problem for one parameter: its value, a few mistakes, the best values tried."""
    wrong = [one for one in evidence if one.result.feedback is not None and one.result.feedback.failure_type]
    shown = (wrong or list(evidence))[:most]
    lines = [f"The value of {name} now: {_cut(_text(spec.to_json(value)), 600)}"]
    if shown:
        lines.append("\nMistakes it made:" if wrong else "\nWhat it did:")
    for one in shown:
        question = " ".join(_text(part) for part in one.example.input.values())
        lines.append(f"- {_cut(question, 160)}\n  {_cut(one.result.feedback.text if one.result.feedback else '', 160)}")
    tried = memory.best(name, 3)
    if tried:
        lines.append("\nOther values and their scores:")
        lines.extend(f"- {score:.2f}: {_cut(_text(one), 200)}" for one, score in tried)
    if advice:
        lines.extend([f"\n{REVIEWED}", *(f"- {_said(one)}" for one in advice)])
    lines.append(f"\nIt must be {spec.describe()}. Choose a better value, different from those above.")
    return (Message("system", COMPACT_SYSTEM), Message("user", "\n".join(lines)))


def repair_messages(messages: Sequence[Message], text: str, problems: Mapping[str, str]) -> tuple[Message, ...]:
    """Add the model's unusable answer and what was wrong with it."""
    said = "\n".join(f"- {name}: {reason}" for name, reason in problems.items())
    return (*messages, Message("assistant", _cut(text, 4000)), Message("user", REPAIR.format(problems=said)))


def _said(feedback: Feedback) -> str:
    """Return what a person said in one line, so that it cannot look like a section."""
    about = "; ".join(f"{name} {note}" for name, note in feedback.notes.items())
    return " ".join((f"{feedback.text} ({about})" if about else feedback.text).split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, limit: int) -> str:
    flat = " ".join(text.split()) if len(text) > limit else text
    return flat if len(flat) <= limit else f"{flat[:limit]}…[{len(flat) - limit} chars cut]"
