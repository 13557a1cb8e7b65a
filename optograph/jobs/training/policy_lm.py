"""The policy as a model: answers with the adapters of the candidate in force, with seeds of its own, journalled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from optograph.context import current_context
from optograph.errors import ServingError
from optograph.graphs import Parameter, no_tracing
from optograph.jobs.training.records import BASE
from optograph.jobs.training.serving import Serving
from optograph.serving import (
    LM,
    BaseLM,
    Budget,
    Capabilities,
    Completion,
    JournaledLM,
    ModelIdentity,
    Request,
    next_draw,
)
from optograph.serving.vllm.adapters import served_name
from optograph.stopping import StopRequest
from optograph.storage import Journal, canonical_json, content_hash

_ENDS_RUN = ("start", "stopped", "wrong_adapter")
"""Kinds of failures that concern the server and not the one request."""

AdapterOf = Callable[[str | None], str | None]
"""Gives the adapter of a node, or None where the node is not trained."""


class AdapterLM(BaseLM):
    """Asks the adapter that the candidate in force names for the calling node; the base model for all other calls.

    Args:
        name: What the user calls the model.
        capabilities: What the server can do.
        serving: The server.
        parameters: Parameters that hold adapters' hashes, by adapter.
        adapter_of: Which adapter a node has.
        weights: Hash of the base model's weights and chat template.
    """

    def __init__(
        self,
        name: str,
        capabilities: Capabilities,
        serving: Serving,
        parameters: Mapping[str, Parameter],
        adapter_of: AdapterOf,
        weights: str,
    ) -> None:
        super().__init__(name, capabilities)
        self.serving = serving
        self.parameters = parameters
        self.adapter_of = adapter_of
        self.weights = weights
        self.embedded: LM | None = None
        """Answers in the place of the server, while it is set: before anything is trained."""

    async def identity(self) -> ModelIdentity:
        """Name the weights that would answer here and now; the server need not run."""
        if self.embedded is not None:
            return await self.embedded.identity()
        hash_ = self._adapter()
        name = "base" if hash_ == BASE else served_name(hash_)
        return ModelIdentity("policy", name, f"{self.weights}+{hash_}" if hash_ else self.weights)

    async def _answer(self, request: Request) -> Completion:
        return await self._complete(request)

    async def _complete(self, request: Request) -> Completion:
        if self.embedded is not None:
            return await self.embedded.complete(request)
        hash_ = self._adapter()
        try:
            model = self.serving.ready(hash_)
            if model is None:
                model = await asyncio.to_thread(self.serving.model, hash_)
            completion = await model.complete(request)
        except ServingError as error:
            if error.kind in _ENDS_RUN:  # it would fail for every other example as well
                raise ServingError(str(error), kind="down") from error
            raise
        if hash_ != BASE and completion.identity.served_name != served_name(hash_):
            raise ServingError(
                f"{served_name(hash_)!r} was asked, and {completion.identity.served_name!r} answered",
                kind="bad_response",
            )
        return replace(completion, identity=await self.identity())

    def _adapter(self) -> str:
        context = current_context()
        name = self.adapter_of(context.node) if context.role == "task" else None
        if name is None:
            return BASE
        with no_tracing():
            return str(self.parameters[name].data)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How rollouts are drawn from trained nodes.

    Attributes:
        temperature: Above 0.
        logprobs: Whether the log-probability of each token is recorded.
    """

    temperature: float
    logprobs: bool = True


class PolicyLM(JournaledLM):
    """The policy behind the journal: every call records token ids, and what is sampled has a seed.

    A seed comes from the run's seed, the example, its repeat, the node, and how often the same was asked before in
    the same rollout; so a run that goes on after a kill asks what it would have asked.

    Args:
        inner: The policy.
        journal: Where calls are recorded.
        budget: Ledger of the run.
        stop: Asked before a new call is begun.
        seed: The run's seed.

    Attributes:
        sampling: Set while rollouts are collected: the workflow's own settings of trained nodes are set aside.
    """

    def __init__(self, inner: AdapterLM, journal: Journal, budget: Budget, stop: StopRequest, *, seed: int) -> None:
        super().__init__(inner, journal, budget, stop=stop)
        self.policy = inner
        self.seed = seed
        self.sampling: Sampling | None = None

    async def _complete(self, request: Request) -> Completion:
        return await super()._complete(self._settled(request))

    def _settled(self, request: Request) -> Request:
        """Return the request as it is to be asked."""
        context = current_context()
        if context.role != "task":
            return request
        request = replace(request, token_ids=True)
        if self.sampling is not None and self.policy.adapter_of(context.node) is not None:
            # A seed of the workflow's (a Step has one) would make all repeats of an example the same rollout.
            request = replace(request, temperature=self.sampling.temperature, top_p=1.0, seed=None)
            if self.sampling.logprobs and self.capabilities.max_logprobs:
                request = replace(request, logprobs=max(1, request.logprobs))
        if request.temperature == 0 or request.seed is not None:
            return request
        key = [self.seed, context.example, context.repeat, context.node]
        draw = next_draw(content_hash([*key, canonical_json(request.to_json())]))
        return replace(request, seed=int(content_hash(key)[:8], 16) % 2**31, draw=draw)
