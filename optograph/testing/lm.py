"""What every model must do, as tests: subclass `LMConformance`, give it a model, and let pytest run it."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optograph.context import call_context
from optograph.errors import UserError
from optograph.serving.base import BaseLM, make_request
from optograph.serving.observing import CallEvent, observing
from optograph.serving.schemas import Choice, JsonSchema, Regex
from optograph.serving.types import Capabilities, Completion, Message, Request


class LMConformance:
    """Tests of the `LM` contract for any model that answers questions.

    Subclass it in a test file as ``class TestMyModel(LMConformance)`` and implement `make_lm`. The model should write
    at least three words when asked to count from one to twenty.
    """

    def make_lm(self) -> BaseLM:
        """Make the model under test; called once for each test."""
        raise NotImplementedError("make_lm must give the model under test")

    @contextmanager
    def lm(self) -> Iterator[BaseLM]:
        """Give a model for one test, and close it."""
        lm = self.make_lm()
        try:
            yield lm
        finally:
            asyncio.run(lm.aclose())

    def test_identity_is_known_and_stable(self) -> None:
        """The identity is known before the first call and stays the same."""
        with self.lm() as lm:
            before = asyncio.run(lm.identity())
            answered = lm.ask(_count(max_tokens=4)).identity
            check(before == asyncio.run(lm.identity()), "the identity changed")
            check(answered.endpoint == before.endpoint, "another endpoint answered")
            check(bool(before.key) and answered.weights == before.weights, "other weights answered")
            check(bool(lm.name), "the model has no name")

    def test_blocking_and_async_calls_agree(self) -> None:
        """A greedy request gives the same text, whichever way it is made."""
        with self.lm() as lm:
            first = lm("Count from one to twenty.", max_tokens=8)
            second = asyncio.run(lm.complete(_count(max_tokens=8))).text
            check(bool(first) and first == second, f"two answers to one request: {first!r} and {second!r}")

    def test_a_prompt_is_continued(self) -> None:
        """A raw prompt is answered as well as messages are."""
        with self.lm() as lm:
            completion = lm.ask(Request(prompt="One, two, three,", max_tokens=4))
            check(completion.usage.completion_tokens >= 1, "nothing was written")

    def test_the_answer_is_complete_in_form(self) -> None:
        """All fields have one entry per text, and the numbers make sense."""
        with self.lm() as lm:
            completion = lm.ask(_count(max_tokens=6, n=3, temperature=1.0, seed=1))
            check(len(completion.texts) == 3, f"{len(completion.texts)} texts instead of 3")
            check(all(isinstance(text, str) for text in completion.texts), "a text is no string")
            check(len(completion.finish_reasons) == 3, "one finish reason for each text")
            check(completion.usage.prompt_tokens > 0, "no prompt tokens counted")
            check(0 < completion.usage.completion_tokens <= 18, "completion tokens miscounted")
            check(completion.latency_s >= 0.0, "negative latency")
            check(completion.logprobs == (None,) * 3, "log-probabilities although nobody asked")
            check(completion.token_ids == (None,) * 3, "token ids although nobody asked")

    def test_the_token_limit_is_kept_and_told(self) -> None:
        """A text that is cut off says so."""
        with self.lm() as lm:
            completion = lm.ask(_count(max_tokens=2))
            check(completion.finish_reasons == ("length",), f"finish reason {completion.finish_reasons!r}")
            check(completion.truncated, "a cut text must show as truncated")
            check(completion.usage.completion_tokens <= 2, "more tokens than allowed")

    def test_stop_strings_end_the_text(self) -> None:
        """A stop string is not part of the text."""
        with self.lm() as lm:
            text = lm("Count from one to twenty.", max_tokens=8, stop=(" ",))
            check(" " not in text, f"the stop string is in {text!r}")

    def test_a_seed_repeats_and_draws_differ_in_seed(self) -> None:
        """The same seed gives the same sample."""
        with self.lm() as lm:
            request = _count(max_tokens=6, temperature=1.0, seed=7)
            check(lm.ask(request).texts == lm.ask(request).texts, "the same seed gave another sample")

    def test_a_choice_is_obeyed(self) -> None:
        """The answer is one of the options, also with quotes and line feeds in them."""
        options = ("good news", 'not "so" good', "neither\nnor")
        with self.lm() as lm:
            self._constrained(lm, Choice(options), lm.capabilities.choice, lambda text: text in options)

    def test_a_json_schema_is_obeyed(self) -> None:
        """The answer is JSON of the right form."""
        schema = JsonSchema(
            {
                "type": "object",
                "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
                "required": ["mood", "sure"],
                "additionalProperties": False,
            }
        )

        def good(text: str) -> bool:
            data = json.loads(text)
            return set(data) == {"mood", "sure"} and data["mood"] in ("good", "bad") and isinstance(data["sure"], bool)

        with self.lm() as lm:
            self._constrained(lm, schema, lm.capabilities.json_schema, good)

    def test_a_regex_is_obeyed(self) -> None:
        """The whole answer matches."""
        pattern = "[0-9]{2}/[0-9]{2}"
        with self.lm() as lm:
            self._constrained(
                lm, Regex(pattern), lm.capabilities.regex, lambda text: re.fullmatch(pattern, text) is not None
            )

    def test_logprobs_are_finite_and_ranked(self) -> None:
        """Log-probabilities are finite, and the alternatives come best first."""
        with self.lm() as lm:
            if not lm.capabilities.logprobs:
                return self._refused(lm, logprobs=1)
            tokens = lm.ask(_count(max_tokens=3, logprobs=5)).logprobs[0]
            check(bool(tokens), "no log-probabilities although asked for")
            for token in tokens or ():
                values = [value for _, value in token.top]
                check(math.isfinite(token.logprob) and token.logprob < 0.01, f"bad log-probability {token!r}")
                check(1 <= len(values) <= 5, f"{len(values)} alternatives instead of 1 to 5")
                check(values == sorted(values, reverse=True), "the alternatives are not ranked")
            return self._refused(lm, logprobs=lm.capabilities.max_logprobs + 1)

    def test_token_ids_are_given(self) -> None:
        """Token ids come with the text, one for each token."""
        with self.lm() as lm:
            if not lm.capabilities.token_ids:
                return self._refused(lm, token_ids=True)
            completion = lm.ask(_count(max_tokens=4, token_ids=True))
            ids = completion.token_ids[0]
            check(ids is not None and 1 <= len(ids) <= 5, f"token ids {ids!r}")
            return None

    def test_many_calls_at_once(self) -> None:
        """Twenty calls at once, all answered."""
        with self.lm() as lm:

            async def main() -> list[Completion]:
                calls = (lm.complete(_count(max_tokens=2, seed=k)) for k in range(20))
                return await asyncio.gather(*calls)

            check(all(one.texts for one in asyncio.run(main())), "a call was not answered")

    def test_calls_are_announced(self) -> None:
        """Observers see request, answer and context."""
        events: list[CallEvent] = []
        with self.lm() as lm, observing(events.append), call_context(role="judge", example="3"):
            lm.ask(_count(max_tokens=2))
        check(len(events) == 1, f"{len(events)} events for one call")
        check(events[0].completion is not None and events[0].error is None, "the answer is missing")
        check((events[0].context.role, events[0].context.example) == ("judge", "3"), "the context is missing")

    def test_an_answer_survives_json(self) -> None:
        """A completion is the same after JSON."""
        with self.lm() as lm:
            can: Capabilities = lm.capabilities
            request = _count(max_tokens=3, logprobs=2 * can.logprobs, token_ids=can.token_ids)
            completion = lm.ask(request)
            again = Completion.from_json(json.loads(json.dumps(completion.to_json(), allow_nan=False)))
            check(again == completion, "the completion changed on its way through JSON")

    def _constrained(
        self, lm: BaseLM, schema: JsonSchema | Choice | Regex, able: bool, good: Callable[[str], bool]
    ) -> None:
        request = make_request("How is the weather? Answer in the form that was agreed.", schema=schema, max_tokens=40)
        if not able:
            with expecting(UserError):
                lm.ask(request)
            return
        completion = lm.ask(request)
        check(completion.finish_reasons == ("stop",) and good(completion.text), f"{completion!r} breaks {schema!r}")

    def _refused(self, lm: BaseLM, **fields: int) -> None:
        with expecting(UserError):
            lm.ask(_count(**fields))


def check(condition: bool, message: str) -> None:
    """Fail the test with `message` unless the condition holds (works under ``python -O`` too)."""
    if not condition:
        raise AssertionError(message)


@contextmanager
def expecting(kind: type[BaseException]) -> Iterator[None]:
    """Fail the test unless the ``with`` block raises `kind`."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def _count(**fields: Any) -> Request:
    return Request(messages=(Message("user", "Count from one to twenty."),), **fields)
