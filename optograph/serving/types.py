"""What is asked of a model and what it answers: frozen records that go to JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optograph.errors import UserError
from optograph.serving.schemas import Schema, schema_from_json

_ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"``, ``"developer"`` or ``"tool"``.
        content: The text.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise UserError(f"a message's role is one of {', '.join(_ROLES)}, got {self.role!r}")
        if not isinstance(self.content, str):
            raise UserError(f"a message's content is text, got {self.content!r}")

    def to_json(self) -> dict[str, str]:
        """Return the message as the chat APIs write it."""
        return {"role": self.role, "content": self.content}


MessageLike = Message | Mapping[str, str]
MessagesLike = str | Message | Sequence[MessageLike]


def messages_of(source: MessagesLike) -> tuple[Message, ...]:
    """Make messages from a string (one user turn), a message, or a list of messages or role/content dicts.

    Raises:
        UserError: When `source` is none of these or empty.
    """
    if isinstance(source, str):
        return (Message("user", source),)
    if isinstance(source, Message):
        return (source,)
    if isinstance(source, list | tuple) and source:
        return tuple(_message(one) for one in source)
    raise UserError(f"messages are a string or a non-empty list of messages, got {source!r}")


def _message(one: MessageLike) -> Message:
    if isinstance(one, Message):
        return one
    if not isinstance(one, Mapping) or set(one) != {"role", "content"}:
        raise UserError(f"a message is a Message or a dict with 'role' and 'content', got {one!r}")
    return Message(one["role"], one["content"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model; frozen, so that it can be a cache key.

    Attributes:
        messages: The conversation (or leave it empty and give `prompt`).
        prompt: Raw text to be continued, without the model's chat template.
        max_tokens: Most tokens per text, at least 1.
        temperature: Sampling temperature, 0 (greedy) to 2.
        top_p: Nucleus sampling mass, above 0 and at most 1.
        stop: Strings that end a text; they are not part of it.
        n: How many texts, at least 1.
        seed: Sampling seed (0 to 2**31 - 1), or None for the server's own.
        draw: Which sample of the same request this is, from 0; draws of one seed differ (see `sampling_seed`).
        schema: What each text must look like, enforced while decoding.
        logprobs: Alternatives wanted for each token, 0 for no log-probabilities at all.
        token_ids: Whether the token ids of prompt and texts are wanted.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    draw: int = 0
    schema: Schema | None = None
    logprobs: int = 0
    token_ids: bool = False

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise UserError(
                f"a request has messages or a prompt, one of the two; got messages={self.messages!r} "
                f"and prompt={self.prompt!r}"
            )
        for name, low, high in (
            ("max_tokens", 1, None),
            ("n", 1, 1024),
            ("draw", 0, None),
            ("logprobs", 0, None),
        ):
            _check_int(name, getattr(self, name), low, high)
        if self.seed is not None:
            _check_int("seed", self.seed, 0, 2**31 - 1)
        if not _is_number(self.temperature) or not 0.0 <= self.temperature <= 2.0:
            raise UserError(f"temperature must be a number from 0 to 2, got {self.temperature!r}")
        if not _is_number(self.top_p) or not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p must be a number above 0 and at most 1, got {self.top_p!r}")
        if not isinstance(self.stop, tuple) or any(not isinstance(one, str) or not one for one in self.stop):
            raise UserError(f"stop is a tuple of non-empty strings, got {self.stop!r}")

    @property
    def sampling_seed(self) -> int | None:
        """The seed to send: `seed` for draw 0, and another one, always the same, for each later draw."""
        return None if self.seed is None else (self.seed + 1_000_003 * self.draw) % 2**31

    @property
    def text(self) -> str:
        """The prompt, or all messages below each other: for logs and error messages."""
        if self.prompt is not None:
            return self.prompt
        return "\n".join(f"{one.role}: {one.content}" for one in self.messages)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; equal requests give equal data."""
        return {
            "messages": [one.to_json() for one in self.messages],
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "stop": list(self.stop),
            "n": self.n,
            "seed": self.seed,
            "draw": self.draw,
            "schema": None if self.schema is None else self.schema.to_json(),
            "logprobs": self.logprobs,
            "token_ids": self.token_ids,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """Read what `to_json` wrote."""
        fields = dict(data)
        schema = fields["schema"]
        fields["messages"] = tuple(_message(one) for one in fields["messages"])
        fields["stop"] = tuple(fields["stop"])
        fields["schema"] = None if schema is None else schema_from_json(schema)
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a call cost.

    Attributes:
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written, over all texts.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token with its log-probability.

    Attributes:
        token: The token as text.
        logprob: Natural logarithm of its probability, at most 0 but for rounding; always finite.
        top: The likeliest alternatives with theirs, best first (the token itself is usually among them).
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> list[Any]:
        """Return ``[token, logprob, [[token, logprob], …]]``."""
        return [self.token, self.logprob, [list(one) for one in self.top]]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> TokenLogprob:
        """Read what `to_json` wrote."""
        token, logprob, top = data
        return cls(token, logprob, tuple((name, value) for name, value in top))


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answered, behind which door.

    Attributes:
        endpoint: Where: a base URL without credentials, or ``"local"`` or ``"scripted"``.
        served_name: Name under which the endpoint serves the model.
        weights: Content hash of the weights or adapter where it is known, such as ``"sha256:…"``.
    """

    endpoint: str
    served_name: str
    weights: str | None = None

    @property
    def key(self) -> str:
        """What a cache may be keyed by: the weights where they are known, otherwise endpoint and name."""
        return self.weights if self.weights is not None else f"{self.endpoint}#{self.served_name}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"endpoint": self.endpoint, "served_name": self.served_name, "weights": self.weights}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelIdentity:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model's endpoint can do; a request for more is refused before it is sent.

    Attributes:
        json_schema: Answers held to a JSON schema while decoding.
        choice: Answers held to a list of choices.
        regex: Answers held to a regular expression.
        logprobs: Log-probabilities of tokens.
        token_ids: Token ids of prompt and answer.
        max_logprobs: Most alternatives per token.
    """

    json_schema: bool = False
    choice: bool = False
    regex: bool = False
    logprobs: bool = False
    token_ids: bool = False
    max_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A model's answer.

    Attributes:
        texts: The `Request.n` texts.
        finish_reasons: For each text ``"stop"``, ``"length"`` (cut off at `Request.max_tokens`) or the server's word.
        token_ids: For each text its token ids, or None where they were not asked for. All tokens that the model wrote:
            the one that ended its turn where it ended by itself, and those of a stop string, are there too.
        logprobs: For each text its tokens with their log-probabilities, or None where they were not asked for.
        usage: Tokens read and written.
        latency_s: Wall-clock time of the whole call in seconds, retries included.
        identity: The model that answered.
        prompt_token_ids: Token ids of the prompt as the model saw it, where asked for.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    token_ids: tuple[tuple[int, ...] | None, ...]
    logprobs: tuple[tuple[TokenLogprob, ...] | None, ...]
    usage: Usage
    latency_s: float
    identity: ModelIdentity
    prompt_token_ids: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0]

    @property
    def truncated(self) -> bool:
        """Whether any text was cut off at the token limit."""
        return "length" in self.finish_reasons

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "texts": list(self.texts),
            "finish_reasons": list(self.finish_reasons),
            "token_ids": [None if one is None else list(one) for one in self.token_ids],
            "logprobs": [None if one is None else [token.to_json() for token in one] for one in self.logprobs],
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
            },
            "latency_s": self.latency_s,
            "identity": self.identity.to_json(),
            "prompt_token_ids": None if self.prompt_token_ids is None else list(self.prompt_token_ids),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Completion:
        """Read what `to_json` wrote."""
        prompt_ids = data["prompt_token_ids"]
        return cls(
            texts=tuple(data["texts"]),
            finish_reasons=tuple(data["finish_reasons"]),
            token_ids=tuple(None if one is None else tuple(one) for one in data["token_ids"]),
            logprobs=tuple(
                None if one is None else tuple(TokenLogprob.from_json(token) for token in one)
                for one in data["logprobs"]
            ),
            usage=Usage(**data["usage"]),
            latency_s=data["latency_s"],
            identity=ModelIdentity.from_json(data["identity"]),
            prompt_token_ids=None if prompt_ids is None else tuple(prompt_ids),
        )


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name} must be a whole number {bound}, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
