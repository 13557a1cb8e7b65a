"""Records of questions and answers: validation, JSON and back."""

from __future__ import annotations

import enum
import json
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from optograph.errors import UserError
from optograph.serving import (
    Choice,
    Completion,
    JsonSchema,
    Message,
    ModelIdentity,
    Regex,
    Request,
    TokenLogprob,
    Usage,
    messages_of,
    schema_of,
)


class Answer(BaseModel):
    label: Literal["a", "b"]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def test_schemas_from_what_one_has() -> None:
    from_class = schema_of(Answer)
    assert isinstance(from_class, JsonSchema)
    assert (from_class.name, from_class.schema["required"]) == ("Answer", ["label"])
    assert schema_of({"type": "object", "title": "My Answer"}) == JsonSchema(
        {"type": "object", "title": "My Answer"}, "My_Answer"
    )
    assert schema_of(["x", "y"]) == Choice(("x", "y"))
    assert schema_of(Literal["x", "y"]) == Choice(("x", "y"))
    assert schema_of(Colour) == Choice(("red", "blue"))
    assert schema_of(re.compile("[0-9]+")) == Regex("[0-9]+")
    assert schema_of(Choice(("x",))) == Choice(("x",))


@pytest.mark.parametrize(
    "bad",
    [3, "text", None, int, [], ["a", "a"], [""], [1], re.compile("a", re.IGNORECASE), {"a": float("nan")}],
)
def test_bad_schemas_are_refused(bad: Any) -> None:
    with pytest.raises(UserError):
        schema_of(bad)


def test_a_bad_regex_is_refused() -> None:
    with pytest.raises(UserError, match="no regular expression"):
        Regex("(")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": (Message("user", "a"),)},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "max_tokens": True},
        {"prompt": "a", "n": 0},
        {"prompt": "a", "temperature": float("nan")},
        {"prompt": "a", "temperature": 3},
        {"prompt": "a", "top_p": 0},
        {"prompt": "a", "seed": -1},
        {"prompt": "a", "draw": -1},
        {"prompt": "a", "stop": "word"},
        {"prompt": "a", "stop": ("",)},
        {"prompt": "a", "logprobs": -1},
    ],
)
def test_bad_requests_are_refused(fields: dict[str, Any]) -> None:
    if "messages" in fields:
        fields = {**fields, "prompt": "both"}
    with pytest.raises(UserError):
        Request(**fields)


def test_messages() -> None:
    assert messages_of("hi") == (Message("user", "hi"),)
    assert messages_of([{"role": "system", "content": "s"}, Message("user", "u")]) == (
        Message("system", "s"),
        Message("user", "u"),
    )
    for bad in ([], [{"role": "user"}], 3, [{"role": "robot", "content": "x"}], [Message], b"bytes"):
        with pytest.raises(UserError):
            messages_of(bad)  # type: ignore[arg-type]


def test_draws_have_seeds_of_their_own() -> None:
    seeds = [Request(prompt="a", seed=3, draw=draw).sampling_seed for draw in range(1000)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 1000
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    assert Request(prompt="a", draw=4).sampling_seed is None


SCHEMAS = st.one_of(
    st.none(),
    st.just(JsonSchema({"type": "object"}, "thing")),
    st.lists(st.text(min_size=1), min_size=1, unique=True).map(lambda items: Choice(tuple(items))),
    st.just(Regex("[a-z]+")),
)


@given(
    text=st.text(),
    chat=st.booleans(),
    temperature=st.floats(0, 2),
    seed=st.none() | st.integers(0, 2**31 - 1),
    stop=st.lists(st.text(min_size=1)).map(tuple),
    schema=SCHEMAS,
)
def test_a_request_survives_json(
    text: str, chat: bool, temperature: float, seed: int | None, stop: tuple[str, ...], schema: Any
) -> None:
    request = Request(
        messages=(Message("user", text),) if chat else (),
        prompt=None if chat else text,
        temperature=temperature,
        seed=seed,
        stop=stop,
        schema=schema,
    )
    again = Request.from_json(json.loads(json.dumps(request.to_json())))
    assert again == request
    assert hash(again) == hash(request)


def test_a_completion_survives_json() -> None:
    completion = Completion(
        texts=("a b", "c"),
        finish_reasons=("stop", "length"),
        token_ids=((1, 2), None),
        logprobs=((TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.5))),), None),
        usage=Usage(3, 4),
        latency_s=0.25,
        identity=ModelIdentity("http://127.0.0.1:8000/v1", "m", "sha256:00"),
        prompt_token_ids=(5, 6),
    )
    assert Completion.from_json(json.loads(json.dumps(completion.to_json()))) == completion
    assert completion.text == "a b"
    assert completion.truncated
    assert completion.usage.total_tokens == 7


def test_the_identity_key_prefers_the_weights() -> None:
    assert ModelIdentity("http://a/v1", "m", "sha256:00").key == ModelIdentity("http://b/v1", "m", "sha256:00").key
    one, other = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"
    assert ModelIdentity(one, "m", "sha256:00").key == ModelIdentity(other, "m", "sha256:00").key
    assert ModelIdentity(one, "m").key != ModelIdentity(other, "m").key
