"""Rewriting an instruction with the smallest models: shown how other tasks' instructions were improved, not why.

Models of a few hundred million parameters copy what they are shown: asked to learn from mistakes, they repeat the
mistaken text. They do continue a pattern. So the question is a conversation in which poor instructions of other tasks
become good ones, drawn anew for each attempt; what comes back is checked before anything is spent on it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from optograph.agents import extract_json
from optograph.errors import ModelError
from optograph.graphs import Spec
from optograph.optimizers.optoprime.answer import Answer, ParameterOutcome, read_answer
from optograph.optimizers.optoprime.problem import Messages
from optograph.serving import Message

SYSTEM = "Rewrite the instruction so that it asks a clear question and names the allowed answers."
SYSTEM_FREE = "Rewrite the instruction so that it says clearly how to find the answer and how to give it."
SHOWN = 4
RUN = 5
"""Words in a row that a rewriting may not share with a train example or with the rewritings it was shown."""
MOST_CHARS = 200


class Rewriting(NamedTuple):
    """How the instruction of another task was improved."""

    answers: str
    poor: str
    good: str


REWRITINGS = (
    Rewriting(
        "question, statement", "Process the sentence.", "Does the sentence ask something? Answer question or statement."
    ),
    Rewriting(
        "spam, fine", "Check the mail.", "You guard a mailbox. Is this mail unwanted advertising? Answer spam or fine."
    ),
    Rewriting("yes, no", "Look at the sum.", "Is the result of this sum correct? Answer yes or no."),
    Rewriting(
        "fruit, animal", "Sort the word.", "What does this word name, a fruit or an animal? Answer fruit or animal."
    ),
    Rewriting(
        "past, future",
        "Handle the text.",
        "When does this happen? Say past if it is over and future if it is yet to come.",
    ),
    Rewriting(
        "formal, casual",
        "Consider the letter.",
        "How does the writer speak to the reader? Answer with one word: formal or casual.",
    ),
)
FREE_REWRITINGS = (
    Rewriting("", "Do the sum.", "Work out the sum step by step, then give the result as a number."),
    Rewriting("", "Translate.", "Translate the sentence into French and give only the translation."),
    Rewriting("", "Handle the date.", "Find the date in the text, and write it as year, month and day."),
    Rewriting("", "Use the table.", "List the rows that fit the question one by one, then answer in one sentence."),
    Rewriting(
        "", "Check the code.", "Read the code line by line, say what each line does, then name the first mistake."
    ),
    Rewriting("", "Shorten it.", "Write the main point of the text in one sentence of at most twelve words."),
)


@dataclass(frozen=True)
class RewriteProblem:
    """Asks for one better instruction.

    Attributes:
        name: The parameter.
        spec: What it may hold.
        current: The instruction now.
        source: The instruction that is rewritten: the author's own, since rewritings of rewritings drift away.
        answers: The answers that the instruction must allow; empty where answers are free.
        texts: Texts that must not be copied.
        seed: Makes the draws of examples.
        wishes: What people said of earlier rewritings.
    """

    name: str
    spec: Spec
    current: str
    source: str
    answers: tuple[str, ...]
    texts: Sequence[str]
    seed: str
    wishes: Sequence[str] = ()
    schema: dict[str, Any] = field(init=False)
    shown: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        text = {"type": "string", "minLength": 8, "maxLength": MOST_CHARS}
        schema = {"type": "object", "properties": {"instruction": text}, "required": ["instruction"]}
        object.__setattr__(self, "schema", schema | {"additionalProperties": False})
        object.__setattr__(self, "shown", {self.name: self.name})

    def messages(self) -> Messages:
        """Return the conversation of the first attempt."""
        return self._conversation(0)

    def again(self, attempt: int, asked: Messages, text: str, answer: Answer) -> Messages:
        """Return a conversation with other examples: explaining does not help models this small."""
        return self._conversation(attempt)

    def read(self, text: str) -> Answer:
        """Read an answer into a typed outcome; a rewriting that copies or names no answers is invalid."""
        try:
            data = extract_json(text)
        except ModelError:
            data = None
        if isinstance(data, dict) and "instruction" in data:
            text = json.dumps({"suggestion": {self.name: data["instruction"]}})
        answer = read_answer(text, {self.name: self.spec}, {self.name: self.current})
        value = answer.updates.get(self.name)
        problem = None if value is None else self._problem(value)
        return answer if problem is None else Answer({self.name: ParameterOutcome("invalid", reason=problem)})

    def _conversation(self, attempt: int) -> Messages:
        pool = REWRITINGS if self.answers else FREE_REWRITINGS
        rng = random.Random(f"rewrite/{self.seed}/{attempt}")  # noqa: S311 - reproducible draws
        system = SYSTEM if self.answers else SYSTEM_FREE
        messages = [Message("system", " ".join([system, *(" ".join(one.split()) for one in self.wishes)]))]
        for one in rng.sample(pool, SHOWN):
            messages.append(Message("user", _question(one.answers, one.poor)))
            messages.append(Message("assistant", json.dumps({"instruction": one.good})))
        return (*messages, Message("user", _question(", ".join(self.answers), self.source)))

    def _problem(self, text: str) -> str | None:
        absent = [answer for answer in self.answers if answer.lower() not in text.lower()]
        if absent:
            return f"it does not name the allowed answers {absent!r}"
        runs = _runs(text)
        if any(runs & _runs(other) for other in self.texts):
            return "it copies the text of a train example"
        if any(runs & _runs(one.good) for one in (*REWRITINGS, *FREE_REWRITINGS)):
            return "it copies one of the rewritings it was shown"
        return None


def _question(answers: str, instruction: str) -> str:
    return f"Allowed answers: {answers}\nInstruction: {instruction}" if answers else f"Instruction: {instruction}"


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
