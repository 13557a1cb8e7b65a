"""Merged exports: the very function of base and adapter, as a folder and as a file that the embedded engine runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from optograph.errors import UserError
from optograph.optimizers.policy import export_gguf, merge_adapter
from optograph.optimizers.policy.base import base_model
from optograph.optimizers.policy.merging import merged_model
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.serving import LlamaCppLM, Message, Request, fetch_model, find_model
from tests.optimizers.policy.exports import make_adapter, make_gguf, make_llama

QUESTIONS = ("What is the capital of France?", "Count from 1 to 10.", "Name three colours.", "Why is the sky blue?")


@pytest.fixture(scope="module")
def file() -> Path:
    """SmolLM2 as it is embedded, from which the base model is made."""
    return fetch_model(find_model("smollm2-135m"))


@dataclass(frozen=True)
class Tiny:
    """A random model of two layers in both forms, and an adapter for it."""

    base: Path
    file: Path
    adapter: Path


@pytest.fixture(scope="module")
def tiny(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    base = make_llama(folder / "base", base_model("local/smollm2-135m").folder)
    return Tiny(base, make_gguf(folder / "like.gguf", file), make_adapter(base, folder / "adapter", strength=0.3))


def greedy(model: Any, ids: tuple[int, ...], count: int) -> list[int]:
    prompt = torch.tensor([ids])
    with torch.no_grad():
        made = model.generate(prompt, max_new_tokens=count, do_sample=False, attention_mask=torch.ones_like(prompt))
    return [int(one) for one in made[0, len(ids) :]]


def answers(path: Path, count: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """The embedded engine's greedy answers to the questions: ids of prompt and answer."""
    lm = LlamaCppLM(path, n_ctx=256, n_parallel=2)
    found = []
    for question in QUESTIONS:
        given = lm.ask(Request(messages=(Message("user", question),), max_tokens=count, token_ids=True))
        assert given.prompt_token_ids is not None
        found.append((given.prompt_token_ids, list(given.token_ids[0] or ())))
    asyncio.run(lm.aclose())
    return found


def test_smollm2_with_an_adapter_answers_embedded_as_in_transformers(file: Path, tmp_path: Path) -> None:
    base = base_model("local/smollm2-135m").folder
    adapter = make_adapter(base, tmp_path / "adapter", strength=0.02)
    made = answers(export_gguf(base, adapter, tmp_path / "tuned.gguf", like=file), 24)
    with quiet_libraries():
        model = merged_model(base, adapter)
        plain = merged_model(base, None)
    assert [greedy(model, prompt, 24) for prompt, _ in made] == [answer for _, answer in made]
    assert any(greedy(plain, prompt, 24) != answer for prompt, answer in made), "the adapter changed nothing"


def test_a_random_model_with_grouped_heads_answers_alike(tiny: Tiny, tmp_path: Path) -> None:
    made = answers(export_gguf(tiny.base, tiny.adapter, tmp_path / "a.gguf", like=tiny.file, precision="f32"), 12)
    model = merged_model(tiny.base, tiny.adapter)
    model.generation_config.eos_token_id = 2
    assert [greedy(model, prompt, 12) for prompt, _ in made] == [answer for _, answer in made]
    assert len({tuple(answer) for _, answer in made}) == len(QUESTIONS)  # answers hang on the prompt


def test_metadata_stays_and_the_precision_is_said(tiny: Tiny, tmp_path: Path) -> None:
    import gguf

    made = gguf.GGUFReader(
        export_gguf(tiny.base, tiny.adapter, tmp_path / "small.gguf", like=tiny.file, precision="q8_0")
    )
    like = gguf.GGUFReader(tiny.file)
    old, new = ({one.name: one.contents() for one in reader.fields.values()} for reader in (like, made))
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == {"general.file_type"}
    assert new["general.file_type"] == 7
    sizes = [sum(int(tensor.n_bytes) for tensor in reader.tensors) for reader in (like, made)]
    assert sizes[1] == pytest.approx(sizes[0] * 8.5 / 32, rel=0.001)  # the file before has 32 bits a weight
    assert [tensor.name for tensor in made.tensors] == [tensor.name for tensor in like.tensors]
    assert len(answers(tmp_path / "small.gguf", 1)) == len(QUESTIONS)


def test_a_merged_folder_computes_what_base_and_adapter_compute(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = merge_adapter(tiny.base, tiny.adapter, tmp_path / "merged", dtype="float32")
    again: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    whole, plain = merged_model(tiny.base, tiny.adapter), merged_model(tiny.base, None)
    assert again.dtype == torch.float32
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, whole(ids).logits)
        assert not torch.allclose(again(ids).logits, plain(ids).logits, atol=0.1)
    turns = [{"role": "user", "content": "Hi"}]
    tokenizers = [AutoTokenizer.from_pretrained(one) for one in (folder, tiny.base)]
    assert len({str(one.apply_chat_template(turns, add_generation_prompt=True)) for one in tokenizers}) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["merged"]  # no draft is left
    with pytest.raises(UserError, match="is there already"):
        merge_adapter(tiny.base, tiny.adapter, folder)
    default: Any = AutoModelForCausalLM.from_pretrained(
        merge_adapter(tiny.base, tiny.adapter, tmp_path / "own"), dtype="auto"
    )
    assert default.dtype == torch.bfloat16  # as the base has it


def test_what_does_not_fit_is_refused_and_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out" / "x.gguf"
    other = make_llama(tmp_path / "other", tiny.base, vocab_size=49160)
    with pytest.raises(UserError, match=r"of another model: its 'token_embd\.weight' has the shape \(49152, 64\)"):
        export_gguf(other, None, out, like=tiny.file)
    fewer = make_llama(tmp_path / "fewer", tiny.base, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"the base has no \['blk\.1\.attn_k\.weight'"):
        export_gguf(fewer, None, out, like=tiny.file)
    with pytest.raises(UserError, match="as a GGUF file"):
        export_gguf(tiny.base, None, out, like=tiny.base / "config.json")
    with pytest.raises(UserError, match="is no adapter"):
        export_gguf(tiny.base, tmp_path, out, like=tiny.file)
    with pytest.raises(UserError, match="precision must be one of f32, f16, q8_0"):
        export_gguf(tiny.base, None, out, like=tiny.file, precision="q4_1")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="dtype must be one of"):
        merge_adapter(tiny.base, None, out, dtype="int8")
    with pytest.raises(UserError, match="cannot read the base model"):
        merge_adapter(tmp_path / "none", None, out)
    huge = make_adapter(tiny.base, tmp_path / "huge", strength=1e6)
    with pytest.raises(UserError, match="do not fit 16 bits"):
        export_gguf(tiny.base, huge, out, like=tiny.file)
    assert not out.exists()
    assert [*out.parent.glob(".*")] == []


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'gemma3'"):
        export_gguf(tmp_path, None, tmp_path / "out.gguf", like=path)
