"""A real vLLM server: structured output, recorded tokens; adapters loaded, asserted, served, unloaded; wrong ones."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from optograph.context import call_context
from optograph.errors import ServingError, UserError
from optograph.optimizers.policy import with_token_ids
from optograph.serving import JournaledLM, Request, make_request
from optograph.serving.vllm import ServedAdapterError, VLLMServer, adapter_hash, model_weights, served_name
from optograph.storage import Journal

TOLERANCE = 1e-3
QUESTION = "A tree, a river and a stone: which is alive?"


@contextmanager
def loaded(vllm: VLLMServer, folder: Path) -> Iterator[str]:
    """Load an adapter, and unload it in the end."""
    name = vllm.load_adapter(folder)
    try:
        yield name
    finally:
        if name in vllm.adapters():
            vllm.unload_adapter(name)


def test_structured_output(vllm: VLLMServer) -> None:
    lm = vllm.lm()
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    answer = lm(QUESTION, schema=schema | {"additionalProperties": False}, max_tokens=200)
    assert isinstance(json.loads(answer)["n"], int)
    assert lm(QUESTION, schema=["tree", "river", "stone"]) in ("tree", "river", "stone")
    answers = {lm(QUESTION, schema=list("abcdefgh"), temperature=1.0, seed=seed) for seed in range(8)}
    assert answers <= set("abcdefgh") and len(answers) > 1


def test_token_ids_and_logprobs_are_in_the_journal(vllm: VLLMServer, reference: Any) -> None:
    journal = Journal.memory()
    lm = JournaledLM(with_token_ids(vllm.lm(), logprobs=1), journal)
    request = make_request(QUESTION, max_tokens=12, temperature=1.0, seed=3)
    with call_context(node="answer"):
        said = asyncio.run(lm.complete(request))
    (row,) = journal.calls()
    assert row.completion is not None and row.identity["weights"] == model_weights(vllm.options.model)
    kept = journal.get(row.completion)
    prompt, answer = tuple(kept["prompt_token_ids"]), tuple(kept["token_ids"][0])
    text = f"<user>{QUESTION}\n<assistant>"
    assert len(prompt) == len(text) == said.usage.prompt_tokens  # one token for each byte
    assert len(answer) == 12 and answer == said.token_ids[0]
    with pytest.raises(UserError, match="logprobs must be from 0 to 20 for model 'vllm/base', got 21"):
        with_token_ids(vllm.lm(), logprobs=21)
    served = [one[1] for one in kept["logprobs"][0]]
    assert served == pytest.approx(reference.logprobs(None, prompt, answer), abs=TOLERANCE)


def test_an_adapter_is_loaded_asserted_served_and_unloaded(
    vllm: VLLMServer, adapters: dict[str, Path], reference: Any
) -> None:
    folder = adapters["first"]
    name = vllm.load_adapter(folder)
    assert name == served_name(adapter_hash(folder)) == vllm.load_adapter(str(folder))
    assert vllm.adapters() == [name]
    probe = reference.probe(folder)
    difference = vllm.check_adapter(name, probe, tolerance=TOLERANCE)
    assert 0 <= difference < TOLERANCE / 10
    lm = vllm.lm(name)
    said = lm.ask(Request(prompt="abcdef", max_tokens=8, token_ids=True))
    assert said.prompt_token_ids is not None
    assert said.token_ids[0] == reference.greedy(folder, said.prompt_token_ids, 8)
    assert said.token_ids[0] != vllm.lm().ask(Request(prompt="abcdef", max_tokens=8, token_ids=True)).token_ids[0]
    assert said.identity.weights == f"{model_weights(vllm.options.model)}+{adapter_hash(folder)}"
    assert lm(QUESTION, schema=["yes", "no"]) in ("yes", "no")

    vllm.unload_adapter(name)
    assert vllm.adapters() == []
    with pytest.raises(ServingError, match="knows no model") as caught:
        lm("hello")
    assert caught.value.kind == "unknown_model"
    for gone in (lambda: vllm.lm(name), lambda: vllm.unload_adapter(name)):
        with pytest.raises(UserError, match=f"no adapter '{name}' is loaded; there are none"):
            gone()
    with pytest.raises(ServedAdapterError, match=f"no adapter is served as '{name}'"):
        vllm.check_adapter(name, probe, tolerance=TOLERANCE)


def test_another_adapter_under_the_name_is_caught(
    vllm: VLLMServer, adapters: dict[str, Path], reference: Any, tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(adapters["first"], trained)
    probe = reference.probe(trained)
    with loaded(vllm, adapters["second"]) as name:  # the last round's, asked for this round's
        with pytest.raises(ServedAdapterError, match="is not what was trained") as caught:
            vllm.check_adapter(name, probe, tolerance=TOLERANCE)
        assert "like the base model" not in str(caught.value)
    name = served_name(adapter_hash(trained))
    assert vllm._control is not None
    vllm._control.load(name, adapters["second"])  # a name that lies
    with pytest.raises(ServedAdapterError, match="has another hash"):
        vllm.check_adapter(name, probe, tolerance=TOLERANCE)
    vllm.unload_adapter(name)
    folder = tmp_path / "changing"  # right on disk, but the server has read it before
    shutil.copytree(adapters["second"], folder)
    vllm._control.load(name, folder)
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with pytest.raises(ServedAdapterError, match="is not what was trained"):
        vllm.check_adapter(name, probe, tolerance=TOLERANCE)
    shutil.rmtree(folder)
    with pytest.raises(ServedAdapterError, match="not on disk any more"):
        vllm.check_adapter(name, probe, tolerance=TOLERANCE)
    vllm.unload_adapter(name)


def test_the_base_model_in_an_adapters_place_is_caught(
    vllm: VLLMServer, adapters: dict[str, Path], reference: Any
) -> None:
    probe = reference.probe(adapters["first"])
    with (
        loaded(vllm, adapters["nothing"]) as name,
        pytest.raises(ServedAdapterError, match="it answers like the base model"),
    ):
        vllm.check_adapter(name, probe, tolerance=TOLERANCE)
    with pytest.raises(ServedAdapterError, match="not as an adapter"):
        vllm.check_adapter("base", reference.probe(None), tolerance=TOLERANCE)
    with pytest.raises(UserError, match="tolerance must be above 0"):
        vllm.check_adapter("base", probe, tolerance=0.0)


def test_an_adapter_that_the_server_cannot_take(vllm: VLLMServer, adapters: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(adapters["first"], folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 64}))
    with pytest.raises(UserError, match="max_lora_rank=64"):
        vllm.load_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"q_proj", b"z_proj"))  # a module that the model has not
    with pytest.raises(ServingError, match="refused /v1/load_lora_adapter"):
        vllm.load_adapter(folder)
    assert vllm.adapters() == []


def test_a_seeded_request_gets_the_same_tokens_whatever_else_is_served(vllm: VLLMServer) -> None:
    lm = vllm.lm()
    requests = [
        Request(prompt=f"{number}: " + "x" * (7 * number), temperature=1.0, seed=number, max_tokens=24, token_ids=True)
        for number in range(8)
    ]
    alone = [lm.ask(one).token_ids for one in requests]

    async def together() -> list[Any]:
        return [one.token_ids for one in await asyncio.gather(*(lm.complete(one) for one in requests))]

    assert asyncio.run(together()) == alone
    assert len(set(alone)) == len(alone)


def test_a_shared_prefix_is_found_again(vllm: VLLMServer) -> None:
    lm = vllm.lm()
    before = vllm.metrics()
    for number in range(3):
        lm.ask(Request(prompt="p" * 300 + f" question {number}", max_tokens=2))
    after = vllm.metrics()
    assert after.prefix_hits - before.prefix_hits == 2 * 288  # whole blocks of 32 tokens
    assert after.prompt_tokens - before.prompt_tokens == 3 * 311
    assert after.generated_tokens - before.generated_tokens == 6
    assert (after.running, after.waiting) == (0, 0) and 0 < after.hit_rate < 1


def test_only_who_has_the_key_is_served_and_nobody_from_outside(vllm: VLLMServer) -> None:
    assert httpx.get(f"{vllm.url}/models", trust_env=False).status_code == 401
    ids = [vllm.pid, *descendants(vllm.pid)]
    assert len(ids) >= 3
    for pid in ids:
        assert vllm.api_key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert vllm._process is not None and vllm.api_key not in vllm._process.log.read_text()
    addresses = listening(ids)
    assert addresses and addresses <= {"0100007F"}  # 127.0.0.1, as /proc/net/tcp writes it


def descendants(root: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == root:
            found += [int(entry.name), *descendants(int(entry.name))]
    return found


def listening(pids: list[int]) -> set[str]:
    """Return the addresses at which processes listen for TCP, in the form of /proc/net/tcp."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(handle.readlink()))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
