"""The ids of the tokens that the embedded engine read: its own template and tokenizer, asked on its loopback port."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from optograph.errors import ServingError

_TIMEOUT_S = 60.0


class EngineTokenizer:
    """Asks a running llama.cpp server how it tokenizes; any thread may ask.

    Args:
        address: ``http://127.0.0.1:PORT``, where the server listens.
        key: The server's API key.
    """

    def __init__(self, address: str, key: str) -> None:
        parts = urlsplit(address)
        if parts.hostname is None:
            raise ServingError(f"llama.cpp does not say where it listens: {address!r}", kind="load")
        self._host, self._port = parts.hostname, parts.port
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def prompt_ids(self, body: Mapping[str, Any], seen: Mapping[str, Any]) -> list[int]:
        """Return the ids of the tokens of a prompt that the server has answered.

        The server's chat template and tokenizer are run again on the same request, special tokens and the beginning
        of the sequence included. What comes out must be as many tokens as the answer says were read, and must read
        back as the very text that it says was read.

        Args:
            body: The request, with ``messages`` or with a ``prompt``.
            seen: The answer's ``__verbose`` part: ``tokens_evaluated`` and ``prompt``.

        Raises:
            ServingError: Of kind ``"bad_response"``: the server does not answer, or it read other tokens.
        """
        text = body["prompt"] if "prompt" in body else self._ask("/apply-template", body)["prompt"]
        ids = self._ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        back = self._ask("/detokenize", {"tokens": ids})["content"]
        if len(ids) != seen.get("tokens_evaluated") or back != seen.get("prompt"):
            raise ServingError(
                f"llama.cpp tokenized a prompt to {len(ids)} tokens, but had read {seen.get('tokens_evaluated')!r}, or "
                "others: its ids cannot be told; ask without token_ids",
                kind="bad_response",
            )
        return [int(one) for one in ids]

    def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            data = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServingError(f"llama.cpp did not answer {path}: {error!r}", kind="bad_response") from error
        finally:
            connection.close()
        if answer.status != 200 or not isinstance(data, dict):
            raise ServingError(f"llama.cpp refused {path}: {data!r}", kind="bad_response")
        return data
