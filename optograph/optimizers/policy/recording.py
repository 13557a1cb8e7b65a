"""A model that is always asked for token ids, so that the journal holds what training needs."""

from __future__ import annotations

from dataclasses import replace

from optograph.errors import UserError
from optograph.serving import LM, Completion, Request, WrappingLM


def with_token_ids(lm: LM, *, logprobs: int = 0) -> LM:
    """Return the model with every request asking for the token ids of prompt and answer.

    Give it to a workflow in the place of the model; steps, agents and raw calls are recorded alike.

    Args:
        lm: The model.
        logprobs: How many alternatives with their log-probabilities every request asks for at least; from 1 on, the
            journal also holds what the policy that sampled gave each token that it wrote.

    Raises:
        UserError: The model's endpoint cannot give token ids, or not so many log-probabilities.
    """
    if not lm.capabilities.token_ids:
        raise UserError(
            f"model {lm.name!r} cannot give token ids, so its calls cannot become rows for training: embed it "
            "('local/FILE.gguf') or serve it with vLLM ('vllm/NAME@URL')"
        )
    most = lm.capabilities.max_logprobs if lm.capabilities.logprobs else 0
    if not 0 <= logprobs <= most:
        raise UserError(f"logprobs must be from 0 to {most} for model {lm.name!r}, got {logprobs!r}")
    return _TokenIdsLM(lm, logprobs)


class _TokenIdsLM(WrappingLM):
    """Hands requests on with `token_ids` set."""

    def __init__(self, inner: LM, logprobs: int) -> None:
        super().__init__(inner)
        self.logprobs = logprobs

    async def _complete(self, request: Request) -> Completion:
        most = max(self.logprobs, request.logprobs)
        return await self.inner.complete(replace(request, token_ids=True, logprobs=most))
