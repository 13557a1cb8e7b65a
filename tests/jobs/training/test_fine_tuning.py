"""Demonstrations become rows: the chat template's own tokens, the answer with its end and nothing behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.jobs.training.defaults import PolicyTrainer, sample_row
from optograph.jobs.training.fine_tuning import read_demonstrations, rows_of_demonstrations
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.models import load_tokenizer
from tests.optimizers.policy.tiny import END, make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    """A tiny model."""
    return make_base(tmp_path_factory.mktemp("base"))


def lines(file: Path, *rows: Any) -> Path:
    """Write a file of JSON lines."""
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows))
    return file


def test_rows_hold_the_templates_tokens(base: BaseModelFiles, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    file = lines(
        tmp_path / "rows.jsonl",
        {"prompt": "2+2?", "answer": "4"},
        {"messages": turns, "answer": "four"},
        {"raw": "2+2=", "answer": "4"},
    )
    rows = PolicyTrainer(base).sft_rows(file)
    tokenizer = load_tokenizer(base)
    said = [tokenizer.decode(row.input_ids[: row.prompt_length]) for row in rows]
    assert said == ["user:2+2?<end>assistant:", "system:Be brief.<end>user:2+2?<end>assistant:", "2+2="]
    assert [tokenizer.decode(row.input_ids[row.prompt_length :]) for row in rows] == ["4<end>", "four<end>", "4<end>"]
    assert all(row.input_ids[-1] == END and all(row.action_mask[row.prompt_length :]) for row in rows)
    assert [row.run_tokens for row in rows] == [2, 5, 2]


class Odd:
    """A tokenizer whose template writes something into the prompt when there is an answer."""

    eos_token_id = 9

    def apply_chat_template(self, turns: list[Any], add_generation_prompt: bool = False, **options: Any) -> list[int]:
        """Tokenize."""
        return [1, 2] if add_generation_prompt else [1, 3, 4]


class Trailing(Odd):
    """A tokenizer whose template writes a line feed behind the end of a turn."""

    def apply_chat_template(self, turns: list[Any], add_generation_prompt: bool = False, **options: Any) -> list[int]:
        """Tokenize."""
        return [1, 2] if add_generation_prompt else [1, 2, 5, 9, 7]


def test_templates_that_change_the_prompt_are_refused(tmp_path: Path) -> None:
    found = read_demonstrations(lines(tmp_path / "rows.jsonl", {"prompt": "a", "answer": "b"}))
    with pytest.raises(UserError, match="right behind its prompt"):
        rows_of_demonstrations(found, Odd())
    (row,) = rows_of_demonstrations(found, Trailing())
    assert row.input_ids == (1, 2, 5, 9)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 1 .* is no JSON"),
        ({"prompt": "a"}, "must be"),
        ({"prompt": "a", "raw": "b", "answer": "c"}, "must be"),
        ({"prompt": 1, "answer": "c"}, "'prompt' must be a text"),
        ({"messages": [{"role": "user"}], "answer": "c"}, "messages are a list"),
        ("", "is empty"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_demonstrations(lines(tmp_path / "rows.jsonl", row))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy\.start\.rows: cannot read"):
        read_demonstrations(tmp_path / "none.jsonl")


def test_a_probe_needs_no_rows(base: BaseModelFiles) -> None:
    row = sample_row(base)
    assert row.prompt_length == 1
    assert row.actions > 20
