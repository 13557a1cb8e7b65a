"""The base class of models that answer by another one."""

from __future__ import annotations

from optograph.serving.base import LM, BaseLM
from optograph.serving.types import Completion, ModelIdentity, Request


class WrappingLM(BaseLM):
    """Stands in the place of another model, with its name, capabilities and identity: implement `_complete`.

    Limits, retries, deadlines and checks are the inner model's, so there are none here.

    Args:
        inner: The model that is asked; closed with this one.
    """

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
