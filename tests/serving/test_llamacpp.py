"""The embedded engine, really run: shared, quiet, and good for scoring labels."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving import LlamaCppLM, load_lm, make_request, models

REVIEW = "Is this review positive or negative? 'I loved every minute of it.' Answer with one word."


@pytest.fixture(scope="module")
def lm() -> Iterator[LlamaCppLM]:
    made = load_lm("local/smollm2-135m")
    assert isinstance(made, LlamaCppLM)
    yield made
    asyncio.run(made.aclose())


def test_the_identity_is_the_hash_of_the_weights(lm: LlamaCppLM) -> None:
    assert asyncio.run(lm.identity()).weights == f"sha256:{models()['smollm2-135m'].sha256}"


def test_the_first_token_scores_labels(lm: LlamaCppLM) -> None:
    completion = lm.ask(make_request(REVIEW, max_tokens=1, logprobs=100))
    tokens = completion.logprobs[0]
    assert tokens is not None
    top = dict(tokens[0].top)
    assert len(tokens[0].top) == 100
    assert sum(math.exp(value) for value in top.values()) <= 1.001
    assert top["positive"] > top["negative"]


def test_models_of_one_file_share_an_engine(lm: LlamaCppLM) -> None:
    other = LlamaCppLM(lm.path, name="other")
    assert other._engine is lm._engine
    asyncio.run(other.aclose())
    assert lm("Hello", max_tokens=1)
    with pytest.raises(UserError, match="closed"):
        other("Hello")
    with pytest.raises(UserError, match="other options"):
        LlamaCppLM(lm.path, n_ctx=512)


def test_a_prompt_that_is_too_long_says_so(lm: LlamaCppLM) -> None:
    with pytest.raises(ServingError, match="larger n_ctx") as caught:
        lm("word " * 3000)
    assert (caught.value.kind, caught.value.retryable) == ("context_length", False)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, re.compile("(?=a)b")])
def test_a_constraint_that_cannot_be_kept_is_not_dropped_silently(lm: LlamaCppLM, schema: object) -> None:
    with pytest.raises(ServingError, match="did not hold the answer"):
        lm("Say hello.", schema=schema, max_tokens=60, stop=("\n", "."))


def test_a_slash_in_a_pattern(lm: LlamaCppLM) -> None:
    pattern = re.compile(r"[0-9]{1,2}/10(\.|\\/)")
    assert pattern.fullmatch(lm(REVIEW, schema=pattern, max_tokens=20))


def test_json_comes_on_one_line(lm: LlamaCppLM) -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}
    assert "\n" not in lm(REVIEW, schema={**schema, "additionalProperties": False}, max_tokens=40)


def test_the_texts_of_one_request_differ(lm: LlamaCppLM) -> None:
    completion = lm.ask(make_request("Write a name.", n=4, temperature=1.5, seed=1, max_tokens=6))
    assert len(set(completion.texts)) > 1


def test_bad_options_are_refused(lm: LlamaCppLM) -> None:
    with pytest.raises(UserError, match="n_parallel must be"):
        LlamaCppLM(lm.path, n_parallel=0)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    with pytest.raises(ServingError, match="cannot load"):
        LlamaCppLM(tmp_path / "bad.gguf")("hi")


def test_a_script_ends_cleanly_and_quietly() -> None:
    code = "from optograph.serving import load_lm; print(len(load_lm('local/smollm2-135m')('Hi', max_tokens=2)) > 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_missing_engine_names_the_command(monkeypatch: pytest.MonkeyPatch, lm: LlamaCppLM) -> None:
    from optograph.serving import engine

    engine._import_xllamacpp.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    try:
        with pytest.raises(UserError, match=r"pip install 'optograph\[local\]'"):
            LlamaCppLM(lm.path)
    finally:
        engine._import_xllamacpp.cache_clear()
