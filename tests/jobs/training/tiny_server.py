"""A served policy in this process: transformers and PEFT over a tiny model, one request at a time, with real tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.models import load_base, load_tokenizer
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.serving import BaseLM, Capabilities, Completion, ModelIdentity, Request, TokenLogprob, Usage
from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, served_name
from optograph.serving.vllm.metrics import ServerMetrics
from tests.jobs.training.toys import half_cached

CAPABILITIES = Capabilities(logprobs=True, token_ids=True, max_logprobs=1)


class TinyServer:
    """Serves a base model and adapters; see `PolicyServer`."""

    def __init__(self, base: BaseModelFiles) -> None:
        self.base = base
        self.during: Callable[[int], None] = lambda number: None
        self.loading: Callable[[], None] = lambda: None
        self.asked: list[str] = []
        self.lock = threading.Lock()
        self._models: dict[str | None, Any] = {}

    def start(self) -> TinyServer:
        """Load the base."""
        with quiet_libraries():
            self.tokenizer = load_tokenizer(self.base)
            self._models[None] = self._base()
        return self

    def close(self) -> None:
        """Let go of all."""
        self._models.clear()

    def load_adapter(self, folder: Path) -> str:
        """Load an adapter on a base of its own."""
        self.loading()
        name = served_name(adapter_hash(folder))
        with quiet_libraries():
            self._models[name] = PeftModel.from_pretrained(self._base(), str(folder)).eval()
        return name

    def unload_adapter(self, name: str) -> None:
        """Let go of an adapter."""
        del self._models[name]

    def check_adapter(self, name: str, probe: Probe, *, tolerance: float) -> float:
        """Compare what it gives for the probe."""
        ids = torch.tensor([[*probe.prompt_ids, *probe.answer_ids]])
        with torch.no_grad():
            logits = self._models[name](ids).logits[0, len(probe.prompt_ids) - 1 : -1]
        found = logits.float().log_softmax(-1).gather(-1, ids[0, len(probe.prompt_ids) :, None])[:, 0]
        difference = probe.difference(found.tolist())
        if difference > tolerance or probe.mistaken_for(found.tolist(), tolerance) is not None:
            raise ServedAdapterError(f"{name!r} is off by {difference:.3g}")
        return difference

    def metrics(self) -> ServerMetrics:
        """Count."""
        return half_cached(len(self.asked))

    def lm(self, adapter: str | None = None) -> TinyLM:
        """Return a model."""
        return TinyLM(self, adapter)

    def answer(self, request: Request, adapter: str | None) -> tuple[list[int], list[int], list[float], str]:
        """Return prompt ids, answer ids, log-probabilities and the reason of the end."""
        ids = self._prompt(request)
        written: list[int] = []
        logprobs: list[float] = []
        random = torch.Generator().manual_seed(request.sampling_seed or 0)
        while len(written) < request.max_tokens:
            with torch.no_grad():
                logits = self._models[adapter](torch.tensor([[*ids, *written]])).logits[0, -1].float()
            heat = request.temperature or 1.0
            chosen = (
                int(torch.multinomial((logits / heat).softmax(-1), 1, generator=random))
                if request.temperature
                else int(logits.argmax())
            )
            written.append(chosen)
            logprobs.append(float(logits.log_softmax(-1)[chosen]))
            if chosen == self.tokenizer.eos_token_id:
                return ids, written, logprobs, "stop"
        return ids, written, logprobs, "length"

    def _prompt(self, request: Request) -> list[int]:
        if request.prompt is not None:
            return list(self.tokenizer(request.prompt)["input_ids"])
        turns = [one.to_json() for one in request.messages]
        return list(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def _base(self) -> Any:
        return load_base(self.base, dtype=torch.float32, device=torch.device("cpu")).eval()


class TinyLM(BaseLM):
    """The base or an adapter of a `TinyServer`."""

    def __init__(self, server: TinyServer, adapter: str | None) -> None:
        super().__init__(adapter or "base", CAPABILITIES)
        self.server = server
        self.adapter = adapter

    async def identity(self) -> ModelIdentity:
        """Name it."""
        return ModelIdentity("tiny", self.name)

    async def _complete(self, request: Request) -> Completion:
        with self.server.lock:
            self.server.during(len(self.server.asked))
            self.server.asked.append(f"{self.name} {request.sampling_seed} {request.text}".replace("\n", " "))
            ids, written, logprobs, finish = self.server.answer(request, self.adapter)
        decode: Callable[..., str] = self.server.tokenizer.decode
        tokens = tuple(TokenLogprob(decode([one]), value) for one, value in zip(written, logprobs, strict=True))
        return Completion(
            texts=(decode(written, skip_special_tokens=True),),
            finish_reasons=(finish,),
            token_ids=(tuple(written),),
            logprobs=(tokens if request.logprobs else None,),
            usage=Usage(len(ids), len(written)),
            latency_s=0.0,
            identity=await self.identity(),
            prompt_token_ids=tuple(ids),
        )
