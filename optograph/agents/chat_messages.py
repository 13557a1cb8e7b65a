"""LangChain's messages as ours, and our completions as LangChain's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata

from optograph.agents.calling import write_call
from optograph.errors import UserError
from optograph.serving import Completion, Message

PROVIDER = "optograph"
_ROLES: dict[type[BaseMessage], str] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "user",
    FunctionMessage: "user",
}
_WORDS = {"human": "user", "ai": "assistant"}


def to_ours(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return a LangChain conversation as ours.

    A tool call is written out as JSON, as our models write it, and a tool's result is a user's turn: chat templates
    and servers know no ``tool`` role without calls in their own format. Results that follow each other share a turn.

    Raises:
        UserError: There is no message, or one holds more than text.
    """
    if not messages:
        raise UserError("a conversation needs at least one message, got none")
    names: dict[str, str] = {}
    ours: list[Message] = []
    after_result = False
    for one in messages:
        is_result = isinstance(one, ToolMessage | FunctionMessage)
        if isinstance(one, AIMessage):
            names |= {call["id"]: call["name"] for call in one.tool_calls if call["id"]}
        text = _result_text(one, names) if is_result else _text(one)
        if is_result and after_result:
            text = f"{ours.pop().content}\n{text}"
        ours.append(Message(_role(one), text))
        after_result = is_result
    return ours


def _role(message: BaseMessage) -> str:
    for kind, role in _ROLES.items():
        if isinstance(message, kind):
            return role
    if isinstance(message, ChatMessage):
        return _WORDS.get(message.role, message.role)
    raise UserError(f"a chat model takes system, human, ai and tool messages, got {message!r}")


def _result_text(message: BaseMessage, names: Mapping[str, str]) -> str:
    name = message.name or names.get(getattr(message, "tool_call_id", ""), "")
    what = "Error" if getattr(message, "status", "success") == "error" else "Result"
    return f"{what}{f' of {name}' if name else ''}: {_plain(message.content)}"


def _text(message: BaseMessage) -> str:
    text = _plain(message.content)
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return text
    calls = [write_call(call["name"], call["args"]) for call in message.tool_calls]
    return "\n".join([*([text] if text.strip() else []), *calls])


def _plain(content: Any) -> str:
    """Return the text of a message's content, which may come in blocks."""
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, Mapping) and block.get("type") == "text":
            texts.append(str(block.get("text", "")))
        elif not (isinstance(block, Mapping) and block.get("type") in ("tool_use", "tool_call", "reasoning")):
            kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
            raise UserError(f"a message holds {kind!r}; models take text only here")
    return "".join(texts)


def usage_of(completions: Sequence[Completion]) -> UsageMetadata:
    """Return the tokens of a call, those of its repairs included."""
    read = sum(one.usage.prompt_tokens for one in completions)
    written = sum(one.usage.completion_tokens for one in completions)
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


def metadata_of(completion: Completion, model: str) -> dict[str, Any]:
    """Return what is known of an answer besides its text; token ids and log-probabilities where they were asked for."""
    metadata: dict[str, Any] = {
        "model_name": model,
        "model_provider": PROVIDER,
        "finish_reason": completion.finish_reasons[0],
        "identity": completion.identity.to_json(),
    }
    ids, logprobs = completion.token_ids[0], completion.logprobs[0]
    if ids is not None:
        metadata["token_ids"] = list(ids)
    if completion.prompt_token_ids is not None:
        metadata["prompt_token_ids"] = list(completion.prompt_token_ids)
    if logprobs is not None:
        metadata["logprobs"] = [token.to_json() for token in logprobs]
    return metadata
