"""Tools of a LangChain chat model: how a model is told of them, and its answer as tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolCall

from optograph.agents.answers import extract_json, without_thinking
from optograph.agents.calling import (
    Action,
    arguments_schema,
    check_names,
    menu_schema,
    menu_text,
    read_call,
    shape,
)
from optograph.errors import ModelError, UserError
from optograph.serving import JsonSchema, Message, Request
from optograph.storage import content_hash

_REPLY = "reply"


def tool_choice_of(choice: Any, names: Sequence[str]) -> str:
    """Return a tool choice as ``"auto"``, ``"any"``, ``"none"`` or a tool's name.

    Raises:
        UserError: It is none of these.
    """
    if isinstance(choice, dict):
        choice = (choice.get("function") or choice).get("name", choice)
    words = {None: "auto", "auto": "auto", True: "any", "any": "any", "required": "any", False: "none", "none": "none"}
    if isinstance(choice, str | bool | None):
        found = choice if choice in names else words.get(choice)
        if isinstance(found, str):
            return found
    raise UserError(f"tool_choice is 'auto', 'any', 'none' or one of {list(names)!r}, got {choice!r}")


@dataclass(frozen=True, slots=True)
class ChatTools:
    """The tools that are offered in a call.

    Attributes:
        actions: The tools, and a reply in words where that is allowed too.
        reply: Name of that reply, or None.
    """

    actions: tuple[Action, ...]
    reply: str | None

    @classmethod
    def of(cls, tools: Sequence[dict[str, Any]] | None, choice: Any) -> ChatTools | None:
        """Make it from tools in OpenAI's format, or return None where no tool may be called."""
        functions = [tool["function"] for tool in tools or ()]
        choice = tool_choice_of(choice, [one["name"] for one in functions])
        if not functions or choice == "none":
            return None
        actions = tuple(
            Action(one["name"], one.get("description") or one["name"], one.get("parameters") or {"type": "object"})
            for one in functions
            if choice in ("auto", "any", one["name"])
        )
        if choice != "auto":
            return cls(actions, None)
        taken = {action.name for action in actions}
        reply = next(name for name in (_REPLY, *(f"{_REPLY}_{k}" for k in range(len(taken) + 1))) if name not in taken)
        return cls((*actions, Action(reply, "replies in words.", {"type": "string"})), reply)

    @property
    def schema(self) -> JsonSchema:
        """What the answer is held to: the one tool's arguments, or a call of one of several."""
        return arguments_schema(self.actions[0]) if self._alone else menu_schema(self.actions)

    @property
    def _alone(self) -> bool:
        return len(self.actions) == 1

    def explained(self, messages: Sequence[Message]) -> list[Message]:
        """Return the conversation with the tools explained at the end of its system message."""
        text = menu_text(self.actions)
        if self._alone:
            only = self.actions[0]
            text = f"{only.description.strip()}\nReply with one JSON object and nothing else: {shape(only.schema)}"
        head, *rest = messages
        if head.role == "system":
            return [Message("system", f"{head.content.rstrip()}\n\n{text}"), *rest]
        return [Message("system", text), *messages]

    def read(self, text: str, request: Request) -> tuple[str, list[ToolCall]]:
        """Read an answer as words, or as a tool call; equal answers to equal requests have equal ids.

        Raises:
            ModelError: It is neither; the message is fit for a repair prompt.
        """
        if self._alone:
            action, arguments = self.actions[0], self._own(extract_json(text))
        else:
            try:
                action, arguments = read_call(text, self.actions)
            except ModelError:
                visible = without_thinking(text).strip()
                if self.reply is None or not visible or "{" in visible:
                    raise
                return visible, []  # words, from a model that is held to nothing
        if action.name == self.reply:
            return str(arguments), []
        check_names(action, arguments)
        name = f"call_{content_hash([request.to_json(), text])[:24]}"
        return "", [ToolCall(name=action.name, args=arguments, id=name, type="tool_call")]

    def _own(self, data: Any) -> dict[str, Any]:
        """Return the arguments of the only tool, also where they stand under its name."""
        only = self.actions[0]
        if isinstance(data, dict) and set(data) == {only.name} and only.name not in only.schema.get("properties", {}):
            data = data[only.name]
        if not isinstance(data, dict):
            raise ModelError(f"the arguments of {only.name!r} must be a JSON object")
        return data
