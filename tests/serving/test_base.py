"""The base class, its observers and the background loop, with scripted models."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest

from optograph.context import call_context
from optograph.errors import ModelError, ServingError, UserError
from optograph.serving import (
    LM,
    BaseLM,
    CallEvent,
    Capabilities,
    Completion,
    Deadline,
    ModelIdentity,
    Request,
    Retry,
    ScriptedLM,
    observing,
    on_background_loop,
    run_sync,
)


def ask(text: str = "hello", **fields: object) -> Request:
    return Request(prompt=text, **fields)  # type: ignore[arg-type]


def test_a_plain_call_gives_the_text() -> None:
    lm = ScriptedLM(["one", "two"])
    assert [lm("hi"), lm("there")] == ["one", "two"]
    assert isinstance(lm, LM)


def test_a_call_works_inside_someone_elses_running_loop() -> None:
    lm = ScriptedLM(["one"])

    async def main() -> str:
        return lm("hi")

    assert asyncio.run(main()) == "one"


def test_one_model_serves_many_loops_and_threads() -> None:
    lm = ScriptedLM(lambda request: request.text, max_concurrency=2)
    texts: list[str] = []

    async def main(k: int) -> None:
        answers = await asyncio.gather(*(lm.complete(ask(f"{k}.{i}")) for i in range(20)))
        texts.extend(one.text for one in answers)

    threads = [threading.Thread(target=lambda k=k: asyncio.run(main(k))) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(f"{k}.{i}" for k in range(5) for i in range(20))


def test_the_blocking_form_refuses_its_own_loop() -> None:
    lm = ScriptedLM(lambda request: "inner")

    async def nested() -> str:
        assert on_background_loop()
        return lm("hi")

    with pytest.raises(UserError, match=r"await lm\.complete"):
        run_sync(nested())


def test_context_variables_travel_with_run_sync() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="default")

    async def read() -> str:
        return variable.get()

    variable.set("mine")
    assert run_sync(read()) == "mine"


def test_an_error_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        run_sync(fail())


def test_cancelling_the_caller_cancels_the_call() -> None:
    cancelled = threading.Event()

    async def hang(request: Request) -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    async def main() -> None:
        async with asyncio.timeout(0.1):
            await ScriptedLM(hang).complete(ask())

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert cancelled.wait(2)


def test_observers_see_every_call_with_its_context() -> None:
    events: list[CallEvent] = []
    lm = ScriptedLM(["one", ServingError("down", kind="connection"), "three"])
    with observing(events.append), call_context(role="judge", example="7"):
        lm("first")
        with pytest.raises(ServingError):
            lm("second")
        asyncio.run(lm.complete(ask("third")))
    lm2 = ScriptedLM(["unseen"])
    lm2("after")
    assert [event.request.text for event in events] == ["user: first", "user: second", "third"]
    assert [event.completion and event.completion.text for event in events] == ["one", None, "three"]
    assert [type(event.error) for event in events] == [type(None), ServingError, type(None)]
    assert {(event.context.role, event.context.example) for event in events} == {("judge", "7")}
    assert events[0].model == "scripted"


def test_observers_run_in_the_callers_thread() -> None:
    threads: list[threading.Thread] = []
    with observing(lambda event: threads.append(threading.current_thread())):
        ScriptedLM(["one"])("hi")
    assert threads == [threading.current_thread()]


def test_observers_of_one_thread_are_not_those_of_another() -> None:
    seen: dict[int, list[str]] = {}

    def work(k: int) -> None:
        seen[k] = []
        lm = ScriptedLM(lambda request: f"{k}")
        with observing(lambda event: seen[k].append(event.completion.text if event.completion else "")):
            for _ in range(20):
                lm("hi")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {k: [str(k)] * 20 for k in range(4)}


class Wrapper(BaseLM):
    """A model that asks another one, as a cache does."""

    def __init__(self, inner: BaseLM) -> None:
        super().__init__("wrapper", inner.capabilities)
        self.inner = inner

    async def identity(self) -> ModelIdentity:
        return await self.inner.identity()

    async def _complete(self, request: Request) -> Completion:
        return await self.inner.complete(request)


def test_a_wrapped_model_is_announced_once() -> None:
    events: list[CallEvent] = []
    with observing(events.append):
        Wrapper(ScriptedLM(["one", "two"]))("hi")
    assert [event.model for event in events] == ["wrapper"]


def test_the_concurrency_limit_holds() -> None:
    running = 0
    peak = 0

    async def reply(request: Request) -> str:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.005)
        running -= 1
        return "ok"

    lm = ScriptedLM(reply, max_concurrency=3)

    async def main() -> None:
        await asyncio.gather(*(lm.complete(ask()) for _ in range(20)))

    asyncio.run(main())
    assert peak == 3


def test_the_total_deadline_holds() -> None:
    async def hang(request: Request) -> str:
        await asyncio.sleep(30)
        return "never"

    lm = ScriptedLM(hang, deadline=Deadline(total_s=0.1))
    started = time.monotonic()
    with pytest.raises(ServingError, match=r"deadline of 0\.1 s") as caught:
        lm("hi")
    assert time.monotonic() - started < 1.0
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)


def test_the_deadline_covers_retries_but_not_the_queue() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.1)
        return "ok"

    lm = ScriptedLM(slow, max_concurrency=1, deadline=Deadline(total_s=0.3))

    async def main() -> list[Completion]:
        return await asyncio.gather(*(lm.complete(ask()) for _ in range(6)))

    assert len(asyncio.run(main())) == 6
    down = ScriptedLM(
        lambda request: ServingError("down", retryable=True),
        retry=Retry(attempts=50, base_s=0.05),
        deadline=Deadline(total_s=0.3),
    )
    with pytest.raises(ServingError, match="total deadline"):
        down("hi")


def test_what_the_model_cannot_do_is_refused_before_the_call() -> None:
    lm = ScriptedLM(["one"], capabilities=Capabilities(logprobs=True, max_logprobs=5))
    for fields, words in (
        ({"schema": {"type": "object"}}, "JSON schema"),
        ({"schema": ["a", "b"]}, "choice"),
        ({"token_ids": True}, "token ids"),
        ({"logprobs": 6}, "at most 5"),
    ):
        with pytest.raises(UserError, match=words):
            lm("hi", **fields)
    assert lm.requests == []


def test_a_bad_field_names_the_good_ones() -> None:
    with pytest.raises(UserError, match=r"no field 'max_token'; its fields are.*max_tokens"):
        ScriptedLM(["one"])("hi", max_token=3)


class Broken(BaseLM):
    """A model that answers with what it is given."""

    def __init__(self, completion: Completion) -> None:
        super().__init__("broken", Capabilities(logprobs=True, max_logprobs=5))
        self.completion = completion

    async def identity(self) -> ModelIdentity:
        return self.completion.identity

    async def _complete(self, request: Request) -> Completion:
        return self.completion


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    good = ScriptedLM(["a"], labels=lambda request: {"a": bad}).ask
    with pytest.raises(ServingError, match="not finite") as caught:
        good(ask(logprobs=2))
    assert caught.value.kind == "bad_response"


def test_too_few_texts_are_refused() -> None:
    completion = ScriptedLM(["a"]).ask(ask())
    with pytest.raises(ServingError, match="1 texts where 3"):
        Broken(completion).ask(ask(n=3))


def test_latency_is_measured() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.05)
        return "ok"

    assert 0.05 <= ScriptedLM(slow).ask(ask()).latency_s < 1.0
