"""A tiny chat model for the apps: it answers as a function of what it got, and tells a test what that was."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import ToolCall, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_openai_tool


class Call(NamedTuple):
    """What the model received in one call: from which node, the messages, and the other arguments as JSON."""

    node: str
    messages: tuple[tuple[str, str], ...]
    options: str


_calls: ContextVar[list[Call] | None] = ContextVar("calls", default=None)
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def recording(*, quiet: bool = False) -> Iterator[list[Call]]:
    """List the calls made in this block; where quiet, every answer has the same text."""
    calls: list[Call] = []
    tokens = _calls.set(calls), _quiet.set(quiet)
    try:
        yield calls
    finally:
        _calls.reset(tokens[0])
        _quiet.reset(tokens[1])


def _node(manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> str:
    metadata = {**ensure_config().get("metadata", {}), **({} if manager is None else manager.metadata)}
    namespace = metadata.get("langgraph_checkpoint_ns", "")
    return "/".join(part.split(":")[0] for part in namespace.split("|"))


class EchoModel(BaseChatModel):
    """Answers with a hash of everything it got, then its system text.

    It takes `instructions` beside the messages, as some providers do: a system text. Given tools, it calls each of
    them once, in their order, before it answers.
    """

    @property
    def _llm_type(self) -> str:
        return "echo"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any) -> Runnable[Any, Any]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _answer(self, messages: list[BaseMessage], node: str, options: dict[str, Any]) -> AIMessage:
        options = {key: value for key, value in options.items() if value is not None}
        got = [(message.type, str(message.text)) for message in messages]
        if "instructions" in options:
            got.insert(0, ("system", options.pop("instructions")))
        plain = json.dumps(options, sort_keys=True)
        if (calls := _calls.get()) is not None:
            calls.append(Call(node, tuple(got), plain))
        digest = hashlib.sha256(json.dumps([got, plain]).encode()).hexdigest()[:8]
        system = " ".join(text for kind, text in got if kind == "system")
        text = "ok" if _quiet.get() else f"[{digest}] {system}"
        usage = {"input_tokens": sum(len(text.split()) for _, text in got), "output_tokens": len(text.split())}
        done = sum(kind == "tool" for kind, _ in got)
        tools = options.get("tools", [])
        return AIMessage(
            content="" if done < len(tools) else text,
            tool_calls=[self._tool_call(tools[done]["function"], got, done)] if done < len(tools) else [],
            usage_metadata={**usage, "total_tokens": sum(usage.values())},
        )

    @staticmethod
    def _tool_call(function: dict[str, Any], got: list[tuple[str, str]], number: int) -> ToolCall:
        question = next(text for kind, text in got if kind == "human")
        arguments = {
            name: 2 + place if schema.get("type") == "integer" else question
            for place, (name, schema) in enumerate(function["parameters"]["properties"].items())
        }
        return ToolCall(name=function["name"], args=arguments, id=f"call-{number}")

    def _chunks(self, message: AIMessage) -> Iterator[ChatGenerationChunk]:
        words = str(message.content).split(" ") if message.content else []
        for place, word in enumerate(words):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word if place == 0 else f" {word}"))
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                tool_call_chunks=[
                    tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=place)
                    for place, call in enumerate(message.tool_calls)
                ],
                usage_metadata=message.usage_metadata,
                chunk_position="last",
            )
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=self._answer(messages, _node(run_manager), {"stop": stop, **kwargs}))]
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=self._answer(messages, _node(run_manager), {"stop": stop, **kwargs}))]
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(self._answer(messages, _node(run_manager), {"stop": stop, **kwargs})):
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(self._answer(messages, _node(run_manager), {"stop": stop, **kwargs})):
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk


model = EchoModel()
