"""The contract of models, run over every model that ships."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optograph.serving import (
    BaseLM,
    Capabilities,
    Choice,
    JsonSchema,
    LlamaCppLM,
    OpenAILM,
    Regex,
    Request,
    ScriptedLM,
    load_lm,
)
from optograph.serving.openai_lm import Flavour
from optograph.testing import LMConformance, LoopbackServer

COUNT = "one two three four five six seven eight nine ten"


def scripted(request: Request) -> str:
    """Answer as a model under constraints would."""
    match request.schema:
        case Choice(options=options):
            return options[1]
        case Regex():
            return "12/34"
        case JsonSchema():
            return '{"mood": "bad", "sure": true}'
        case None:
            return COUNT


class TestScriptedLM(LMConformance):
    def make_lm(self) -> BaseLM:
        return ScriptedLM(scripted)


class TestScriptedLMThatCanDoNothing(LMConformance):
    def make_lm(self) -> BaseLM:
        return ScriptedLM(scripted, capabilities=Capabilities())


class OverHttp(LMConformance):
    flavour: Flavour = "openai"
    stream = False

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        def reply(body: dict[str, object]) -> str:
            return "12/34" if "regex" in str(body.get("structured_outputs")) else COUNT

        labels = {f"word{k}": -0.5 - k for k in range(10)}
        with LoopbackServer(reply, labels=lambda body: labels) as self.running:
            yield

    def make_lm(self) -> BaseLM:
        return OpenAILM("test-model", base_url=self.running.url, flavour=self.flavour, stream=self.stream)


class TestOpenAILM(OverHttp):
    pass


class TestOpenAILMOnVllm(OverHttp):
    flavour: Flavour = "vllm"


class TestOpenAILMStreamed(OverHttp):
    stream = True


class TestOpenAILMOnVllmStreamed(OverHttp):
    flavour: Flavour = "vllm"
    stream = True


class TestLlamaCppLM(LMConformance):
    """The embedded model itself, fetched once."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def engine(cls) -> Iterator[None]:
        keep = load_lm("local/smollm2-135m")  # one engine for the whole class
        keep("Hello", max_tokens=1)
        yield
        del keep

    def make_lm(self) -> BaseLM:
        lm = load_lm("local/smollm2-135m")
        assert isinstance(lm, LlamaCppLM)
        return lm
