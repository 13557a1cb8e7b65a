"""Streamed answers: server-sent events, put together into the answer that would have come in one body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optograph.errors import ServingError
from optograph.secrets import scrub
from optograph.serving.retry import RetryableError, status_is_retryable
from optograph.serving.wire import JsonObject, bad_response, decode, excerpt

_LONGEST_LINE = 4 * 1024 * 1024


class StreamAssembler:
    """Takes the bytes of a stream in any pieces and gives the whole answer.

    Lines follow the event stream format of the HTML standard (section 9.2.6); comments, which some servers send to keep
    a connection open, are no events. The chat and the raw completion format are both known.

    Args:
        where: What answers, for messages.
        choices: How many texts were asked for.
        on_text: Is given each piece of the first text.

    Attributes:
        events: How many events came.
        done: Whether the mark of the end (``[DONE]``) came.
    """

    def __init__(self, where: str, choices: int = 1, *, on_text: Callable[[str], None] | None = None) -> None:
        self.where = where
        self._on_text = on_text
        self.events = 0
        self.done = False
        self._wanted = choices
        self._rest = b""
        self._lines: list[bytes] = []
        self._frame: JsonObject = {}
        self._choices: dict[int, JsonObject] = {}

    def feed(self, content: bytes) -> bool:
        """Take in bytes.

        Returns:
            Whether they ended at least one event.

        Raises:
            ServingError: For an event that cannot be used, or an error that the server reports.
        """
        before = self.events
        lines = (self._rest + content).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE:
            raise bad_response(f"{self.where} streamed a line of more than {_LONGEST_LINE} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                self._lines.append(line[5:].removeprefix(b" "))
            elif not line and self._lines:
                self._take(b"\n".join(self._lines))
                self._lines = []
        return self.events > before

    def result(self) -> JsonObject:
        """Return the answer in the form of one body.

        Raises:
            ServingError: Of kind ``"bad_response"`` when the stream ended before the answer did.
        """
        choices = [self._choices[index] for index in sorted(self._choices)]
        finished = sum(choice.get("finish_reason") is not None for choice in choices)
        if not self.done or not choices or finished < len(choices):
            raise bad_response(
                f"{self.where} ended its stream before the answer was whole "
                f"({self.events} events, {finished} of {self._wanted} texts finished)"
            )
        return {**self._frame, "choices": choices}

    def _take(self, line: bytes) -> None:
        self.events += 1
        if line.strip() == b"[DONE]":
            self.done = True
            return
        event = decode(line.decode("utf-8", "replace"), self.where)
        if event.get("error") is not None:
            raise self._reported(event["error"])
        text = ""
        try:
            for name in ("model", "usage", "prompt_token_ids"):
                if event.get(name) is not None:
                    self._frame[name] = event[name]
            for piece in event.get("choices") or ():
                text += self._add(piece)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            shown = excerpt(line.decode("utf-8", "replace"))
            raise bad_response(f"{self.where} streamed an unknown form ({error}): {shown!r}") from None
        if text and self._on_text is not None:
            self._on_text(text)

    def _add(self, piece: JsonObject) -> str:
        """Append a piece to the text that it belongs to; return what it adds to the first text."""
        index = int(piece.get("index", 0))
        whole = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        added = ""
        if "delta" in piece:
            message = whole.setdefault("message", {"role": "assistant", "content": ""})
            for name in ("content", "refusal"):
                if piece["delta"].get(name):
                    message[name] = (message.get(name) or "") + piece["delta"][name]
            added = piece["delta"].get("content") or ""
        elif "text" in piece:
            added = piece["text"] or ""
            whole["text"] = whole.get("text", "") + added
        if piece.get("finish_reason") is not None:
            whole["finish_reason"] = piece["finish_reason"]
        if piece.get("token_ids"):
            whole.setdefault("token_ids", []).extend(piece["token_ids"])
        if piece.get("prompt_token_ids") is not None:
            whole["prompt_token_ids"] = piece["prompt_token_ids"]
        for name, rows in (piece.get("logprobs") or {}).items():
            if isinstance(rows, list):
                whole.setdefault("logprobs", {}).setdefault(name, []).extend(rows)
        return added if index == 0 else ""

    def _reported(self, error: Any) -> ServingError:
        """Make the failure that a server reports in the midst of a stream."""
        said = error.get("message", error) if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        message = f"{self.where} broke off its stream with an error: {scrub(excerpt(str(said)))}"
        if isinstance(code, int) and 400 <= code < 500 and not status_is_retryable(code):
            return ServingError(message, kind="bad_request")
        return RetryableError(message, kind="rate_limit" if code == 429 else "server")
