"""Prompts and answers that people wrote, as rows to fine-tune on before the first round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.optimizers.policy import TrainingRow

_FORMS = '{"prompt": …, "answer": …}, {"messages": […], "answer": …} or {"raw": …, "answer": …}'


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What is asked and what is to be answered.

    Attributes:
        messages: The conversation so far; empty where `raw` is given.
        raw: Text that is continued, without a chat template; None where there are messages.
        answer: The answer.
    """

    messages: tuple[Mapping[str, str], ...]
    raw: str | None
    answer: str


def read_demonstrations(file: Path) -> list[Demonstration]:
    """Read a ``.jsonl`` file of prompts and answers.

    Raises:
        UserError: The file cannot be read, or a line has another form.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"policy.start.rows: cannot read {str(file)!r}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_demonstration(line, f"line {number} of {str(file)!r}"))
    if not found:
        raise UserError(f"policy.start.rows: {str(file)!r} is empty: write one {_FORMS} a line")
    return found


def _demonstration(line: str, where: str) -> Demonstration:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UserError(f"policy.start.rows: {where} is no JSON: {error}") from error
    keys = set(data) & {"prompt", "messages", "raw"} if isinstance(data, dict) else set()
    if len(keys) != 1 or not isinstance(data.get("answer"), str):
        raise UserError(f"policy.start.rows: {where} must be {_FORMS}, got {line[:200]!r}")
    (key,) = keys
    if key != "messages":
        if not isinstance(data[key], str):
            raise UserError(f"policy.start.rows: {where}: {key!r} must be a text, got {data[key]!r}")
        messages = () if key == "raw" else ({"role": "user", "content": data[key]},)
        return Demonstration(messages, data[key] if key == "raw" else None, data["answer"])
    turns = data["messages"]
    wrong = not isinstance(turns, list) or not turns or not all(_is_turn(turn) for turn in turns)
    if wrong:
        raise UserError(f"policy.start.rows: {where}: messages are a list of {{'role', 'content'}}, got {turns!r}")
    return Demonstration(tuple({"role": one["role"], "content": one["content"]} for one in turns), None, data["answer"])


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def rows_of_demonstrations(demonstrations: Sequence[Demonstration], tokenizer: Any) -> list[TrainingRow]:
    """Make a row of each, with the tokenizer's chat template; the answer ends as the model's own turns end.

    Args:
        demonstrations: What to learn.
        tokenizer: Of the base model.

    Raises:
        UserError: The chat template does not put an answer right behind its prompt.
    """
    rows = []
    for number, one in enumerate(demonstrations):
        prompt, answer = _tokens(one, tokenizer)
        rows.append(
            TrainingRow(
                rollout=f"demonstrations/{number}",
                example=str(number),
                call=0,
                node=None,
                adapter="policy",
                policy="demonstrations",
                input_ids=(*prompt, *answer),
                action_mask=(False,) * len(prompt) + (True,) * len(answer),
                reward=1.0,
                run_tokens=len(answer),
                weight=1.0,
                finish="stop",
            )
        )
    return rows


def _tokens(one: Demonstration, tokenizer: Any) -> tuple[list[int], list[int]]:
    end = tokenizer.eos_token_id
    if one.raw is not None:
        prompt = list(tokenizer(one.raw)["input_ids"])
        return prompt, [*tokenizer(one.answer, add_special_tokens=False)["input_ids"], end]
    turns = [dict(turn) for turn in one.messages]
    options = {"tokenize": True, "return_dict": False}
    prompt = list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options))
    whole = list(tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": one.answer}], **options))
    answer = whole[len(prompt) :]
    if whole[: len(prompt)] != prompt or not answer:
        raise UserError(
            "the chat template does not put an answer right behind its prompt, so prompts and answers cannot be told "
            "apart: give an adapter that was trained elsewhere (policy.start.adapter)"
        )
    if end in answer:  # what a template puts behind the end of a turn is never sampled
        answer = answer[: len(answer) - answer[::-1].index(end)]
    return prompt, answer
