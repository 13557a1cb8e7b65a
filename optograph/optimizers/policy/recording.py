"""A model that is always asked for token ids, so that the journal holds what training needs."""

from __future__ import annotations

from dataclasses import replace

from optograph.errors import UserError
from optograph.serving import LM, BaseLM, Completion, ModelIdentity, Request


def with_token_ids(lm: LM) -> LM:
    """Return the model with every request asking for the token ids of prompt and answer.

    Give it to a workflow in the place of the model; steps, agents and raw calls are recorded alike.

    Raises:
        UserError: The model's endpoint cannot give token ids.
    """
    if not lm.capabilities.token_ids:
        raise UserError(
            f"model {lm.name!r} cannot give token ids, so its calls cannot become rows for training: embed it "
            "('local/FILE.gguf') or serve it with vLLM ('vllm/NAME@URL')"
        )
    return _TokenIdsLM(lm)


class _TokenIdsLM(BaseLM):
    """Hands requests on with `token_ids` set; limits, retries and checks are the inner model's."""

    def __init__(self, inner: LM) -> None:
        super().__init__(inner.name, inner.capabilities)
        self.inner = inner

    async def identity(self) -> ModelIdentity:
        """Return the inner model's identity."""
        return await self.inner.identity()

    async def aclose(self) -> None:
        """Close the inner model."""
        await self.inner.aclose()

    async def _answer(self, request: Request) -> Completion:
        return await self._complete(request)

    async def _complete(self, request: Request) -> Completion:
        return await self.inner.complete(replace(request, token_ids=True))
