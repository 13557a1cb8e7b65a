"""Requests to a server of our own that are no model calls: health, adapters, metrics, logprobs of given tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.errors import ServingError
from optograph.secrets import scrub
from optograph.serving.vllm.metrics import ServerMetrics, parse_metrics
from optograph.serving.wire import decode, excerpt

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 120.0
_HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An entry of the server's list of models.

    Attributes:
        name: Name under which it answers.
        parent: Name of the base model where it is an adapter, else None.
        root: Folder or name that it was loaded from.
    """

    name: str
    parent: str | None
    root: str


class Control:
    """Speaks to one server on this machine; blocking, from any thread.

    Args:
        root: Its address, such as ``"http://127.0.0.1:8000"``.
        key: The API key.
    """

    def __init__(self, root: str, key: str) -> None:
        import httpx

        self.root = root
        self._client = httpx.Client(
            base_url=root, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S, trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def healthy(self) -> bool:
        """Tell whether the server answers that it is well; never raises for one that does not."""
        import httpx

        try:
            return self._client.get("/health", timeout=_HEALTH_TIMEOUT_S).status_code == 200
        except httpx.HTTPError:
            return False

    def models(self) -> list[ServedModel]:
        """List what is served, the base model first.

        Raises:
            ServingError: The server does not answer, or in an unknown form.
        """
        listed = self._json("GET", "/v1/models").get("data")
        try:
            return [ServedModel(str(one["id"]), one.get("parent"), str(one.get("root"))) for one in listed or ()]
        except (TypeError, KeyError, AttributeError) as error:
            raise ServingError(
                f"{self.root} lists its models in an unknown form: {error}", kind="bad_response"
            ) from None

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter.

        Raises:
            ServingError: The server cannot load it.
        """
        self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> None:
        """Unload an adapter.

        Raises:
            ServingError: There is none of that name.
        """
        self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def metrics(self) -> ServerMetrics:
        """Read the counters.

        Raises:
            ServingError: The server does not answer, or is no vLLM.
        """
        return parse_metrics(self._ask("GET", "/metrics").text)

    def logprobs(self, model: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> list[float]:
        """Return the log-probability that a model gives each token of an answer, at temperature 1.

        Raises:
            ServingError: The server does not answer, or another model answers, or not for these tokens.
        """
        ids = [*prompt_ids, *answer_ids]
        body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        answer = self._json("POST", "/v1/completions", body)
        if answer.get("model") != model:
            raise ServingError(
                f"{self.root} was asked for {model!r}, but {answer.get('model')!r} answered", kind="wrong_model"
            )
        try:
            rows = answer["choices"][0]["prompt_logprobs"][len(prompt_ids) :]
            found = [float(row[str(token)]["logprob"]) for row, token in zip(rows, answer_ids, strict=True)]
        except (LookupError, TypeError, ValueError) as error:
            raise ServingError(
                f"{self.root} gave no log-probabilities for the tokens of a prompt ({type(error).__name__}: {error})",
                kind="bad_response",
            ) from None
        if not all(math.isfinite(one) for one in found):
            raise ServingError(f"{self.root} gave a log-probability that is not finite: {found!r}", kind="bad_response")
        return found

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return decode(self._ask(method, path, body).text, self.root)

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        import httpx

        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ServingError(
                f"the server at {self.root} does not answer ({type(error).__name__}: {error})", kind="connection"
            ) from None
        if answer.status_code != 200:
            said = scrub(excerpt(" ".join(answer.text.split()), 400))
            raise ServingError(f"the server at {self.root} refused {path} ({answer.status_code}): {said}", kind="http")
        return answer
