"""The model that a server of our own serves: the OpenAI-compatible client, which knows the weights behind the name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optograph.errors import ServingError
from optograph.serving.openai_lm import OpenAILM
from optograph.serving.types import Completion, ModelIdentity, Request


class ServedLM(OpenAILM):
    """A model or adapter on a server that this process started; made by `VLLMServer.lm`.

    Its identity is that of the weights, not of the server, so that a journal's answers are found again when another
    server, on another port, serves the same weights.

    Args:
        model: Name under which it is served.
        weights: Content of the base model and, behind a ``+``, of the adapter; None where it is not known.
        base_url: The server's ``/v1``.
        api_key: The server's key.
        ended: Raises where the server's process has ended.
        **options: Keyword arguments of `OpenAILM`.
    """

    def __init__(
        self,
        model: str,
        *,
        weights: str | None,
        base_url: str,
        api_key: str,
        ended: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(model, base_url=base_url, api_key=api_key, flavour="vllm", **options)
        self._identity = ModelIdentity(self.base_url, model, weights)
        self._ended = ended

    async def _complete(self, request: Request) -> Completion:
        try:
            return await super()._complete(request)
        except ServingError as error:
            if error.kind in ("connection", "timeout"):
                self._ended()
            raise
