"""Our models as LangChain chat models, so that LangGraph apps run on the embedded model, vLLM or a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from optograph.agents.chat_messages import PROVIDER, metadata_of, to_ours, usage_of
from optograph.agents.chat_tools import ChatTools, tool_choice_of
from optograph.errors import ModelError, ServingError, UserError
from optograph.serving import LM, Completion, Message, Request, load_lm, on_background_loop, run_sync, streaming_to
from optograph.serving.loop import start

_Put = Callable[[Any], None]
_DONE = object()
_SETTINGS = ("temperature", "top_p", "max_tokens", "seed")


class ChatModel(BaseChatModel):
    """A LangChain chat model over any of our models.

    Calls go through ``lm.complete``: a run's journal and budget, observers and the trace see them. Tools and structured
    output are one JSON object, held to the tools' schemas where the endpoint can do that, else read and asked for again
    with what was wrong. Sync and async, in any thread and any event loop; text is streamed where the model streams.

    Args:
        lm: The model, or a model string such as ``"local/smollm2-135m"``.
        temperature: 0 for the likeliest answer, to 2.
        top_p: Nucleus sampling mass, above 0 and at most 1.
        max_tokens: Most tokens of an answer.
        seed: Sampling seed.
        stop_sequences: Strings that end an answer, besides those that a call gives.
        token_ids: Whether ``response_metadata`` is to hold the token ids.
        logprobs: Alternatives wanted for each token; 0 for no log-probabilities.
        repairs: How often a tool call that cannot be used is asked for again.

    Raises:
        UserError: From a call: a setting is unknown, or a message holds more than text.
        ModelError: From a call: no usable tool call after the repairs.
        ServingError: From a call: the endpoint failed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    lm: Any
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    token_ids: bool = False
    logprobs: int = 0
    repairs: int = Field(default=1, ge=0)

    def __init__(self, lm: LM | str, **settings: Any) -> None:
        if isinstance(lm, str):
            lm = load_lm(lm)
        if not isinstance(lm, LM):
            raise UserError(f"lm is a model or a model string such as 'local/smollm2-135m', got {lm!r}")
        super().__init__(**{"lm": lm, **settings})

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        fields = ("temperature", "top_p", "max_tokens", "seed", "stop_sequences", "token_ids", "logprobs")
        return {"model_name": self.lm.name, **{name: getattr(self, name) for name in fields}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = self.lm.name
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Args:
            tools: Functions, LangChain tools, pydantic classes or JSON schemas.
            tool_choice: None or ``"auto"`` (a call or a reply in words), ``"any"`` or True (a call), ``"none"`` or
                False, or the name of the tool to call.
            **kwargs: Settings of the calls, such as ``temperature``. ``strict`` and ``parallel_tool_calls`` change
                nothing: calls are always held to their schemas where that can be done, and come one at a time.
        """
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        choice = tool_choice_of(tool_choice, [tool["function"]["name"] for tool in formatted])
        settings = {name: one for name, one in kwargs.items() if name not in ("strict", "parallel_tool_calls")}
        return self.bind(tools=formatted, tool_choice=choice, **settings)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return run_sync(self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, stop, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if on_background_loop():
            raise UserError("a blocking call on the model loop's own thread would wait for ever: use `astream`")
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        future = start(self._aloud(messages, stop, kwargs, heard.put))
        future.add_done_callback(lambda _: heard.put(_DONE))
        try:
            while (piece := heard.get()) is not _DONE:
                yield piece
            future.result()
        finally:
            future.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Any] = asyncio.Queue()

        def put(piece: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody reads any more
                loop.call_soon_threadsafe(heard.put_nowait, piece)

        task = loop.create_task(self._aloud(messages, stop, kwargs, put))
        task.add_done_callback(lambda _: put(_DONE))
        try:
            while (piece := await heard.get()) is not _DONE:
                yield piece
            await task
        finally:
            task.cancel()

    async def _aloud(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Any, put: _Put) -> None:
        """Answer, and hand on chunks: text as it is written, a tool call when it is whole."""
        request, tools = self._asked(messages, stop, kwargs)
        if tools is not None:
            message = await self._call_tools(request, tools)
            put(_chunk(message, message.content if isinstance(message.content, str) else "", message.tool_calls))
            return
        written = _Written(put)
        with streaming_to(written.hear) as pieces:
            completion = await self.lm.complete(request)
            pieces.finish(completion.text)
        written.check(completion)
        put(_chunk(self._message([completion], ""), "", ()))

    async def _answer(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Any) -> ChatResult:
        request, tools = self._asked(messages, stop, kwargs)
        if tools is not None:
            message = await self._call_tools(request, tools)
        else:
            completion = await self.lm.complete(request)
            message = self._message([completion], completion.text)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Request, ChatTools | None]:
        """Make the request, and say which tools are offered, if any."""
        given = {name: one for name, one in kwargs.items() if name not in ("tools", "tool_choice", "stream")}
        unknown = sorted(set(given) - set(_SETTINGS))
        if unknown:
            known = ", ".join((*_SETTINGS, "stop", "tools", "tool_choice"))
            raise UserError(f"this chat model has no setting {unknown[0]!r}; its settings are {known}")
        tools = ChatTools.of(kwargs.get("tools"), kwargs.get("tool_choice"))
        ours = to_ours(messages)
        can = self.lm.capabilities.json_schema
        request = Request(
            messages=tuple(ours if tools is None else tools.explained(ours)),
            stop=tuple(dict.fromkeys([*self.stop_sequences, *(stop or ())])),
            schema=tools.schema if tools is not None and can else None,
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            **{name: given.get(name, getattr(self, name)) for name in _SETTINGS},
        )
        return request, tools

    async def _call_tools(self, request: Request, tools: ChatTools) -> AIMessage:
        """Ask for a tool call or a reply, again where it cannot be used."""
        done: list[Completion] = []
        messages = request.messages
        for attempt in range(self.repairs + 1):
            asked = replace(request, messages=messages)
            completion = await self.lm.complete(asked)
            done.append(completion)
            try:
                if completion.truncated:
                    raise ModelError(f"it was cut off at {request.max_tokens} tokens")
                text, calls = tools.read(completion.text, asked)
            except ModelError as error:
                if attempt == self.repairs:
                    raise
                complaint = f"That cannot be used: {error}. Reply again, with one JSON object only."
                messages = (*messages, Message("assistant", completion.text), Message("user", complaint))
            else:
                return self._message(done, text, calls)
        raise ModelError("nothing was asked: repairs must be at least 0")

    def _message(self, done: Sequence[Completion], text: str, calls: Sequence[ToolCall] = ()) -> AIMessage:
        return AIMessage(
            content=text,
            tool_calls=list(calls),
            usage_metadata=usage_of(done),
            response_metadata=metadata_of(done[-1], self.lm.name),
        )


class _Written:
    """What a stream's reader has been given; pieces that come again after a broken answer are not given twice."""

    def __init__(self, put: _Put) -> None:
        self._put = put
        self._given = ""
        self._now = ""

    def hear(self, piece: str) -> None:
        self._now = self._now + piece if piece else ""
        if len(self._now) > len(self._given) and self._now.startswith(self._given):
            self._put(ChatGenerationChunk(message=AIMessageChunk(content=self._now[len(self._given) :])))
            self._given = self._now

    def check(self, completion: Completion) -> None:
        """Refuse an answer that is not what has been given: a reader cannot be told to forget.

        Raises:
            ServingError: Of kind ``"restarted"``.
        """
        if completion.text != self._given:
            raise ServingError(
                "an answer broke off while it was streamed, and when it was asked for again another one came; "
                "set a seed, or use `invoke`",
                kind="restarted",
                retryable=True,
            )


def _chunk(message: AIMessage, text: str, calls: Sequence[ToolCall]) -> ChatGenerationChunk:
    """Make the last chunk of a message."""
    pieces = [
        tool_call_chunk(
            name=call["name"], args=json.dumps(call["args"], ensure_ascii=False), id=call["id"], index=number
        )
        for number, call in enumerate(calls)
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=text,
            tool_call_chunks=pieces,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )
