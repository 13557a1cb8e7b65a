"""How many tokens a request can cost at most, before a model has seen it."""

from __future__ import annotations

import json

from optograph.serving.schemas import JsonSchema
from optograph.serving.types import Request

MESSAGE_TOKENS = 16
"""Most tokens that a chat template puts around a message."""
TEMPLATE_TOKENS = 128
"""Most tokens that a chat template puts around a conversation."""
SYSTEM_TOKENS = 512
"""Most tokens of the system message that some templates put in where the conversation has none."""


def prompt_bound(request: Request) -> int:
    """Return the most tokens that a model can read for a request.

    No token is shorter than a byte, so text has at most as many tokens as bytes. To that come what chat templates add,
    and the JSON schema, which some endpoints write into the prompt.
    """
    tokens = len(request.text.encode("utf-8", "replace")) + TEMPLATE_TOKENS
    if request.messages:
        tokens += MESSAGE_TOKENS * len(request.messages)
        if not any(one.role in ("system", "developer") for one in request.messages):
            tokens += SYSTEM_TOKENS
    if isinstance(request.schema, JsonSchema):
        tokens += len(json.dumps(request.schema.schema)) + TEMPLATE_TOKENS
    return tokens


def token_bound(request: Request) -> int:
    """Return the most tokens that a model can read and write for a request."""
    return prompt_bound(request) + request.max_tokens * request.n
