"""The circuit breaker: alone with a clock of its own, in a model, and against a server that goes away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving import (
    BaseLM,
    Breaker,
    Capabilities,
    Completion,
    Deadline,
    ModelIdentity,
    OpenAILM,
    Request,
    Retry,
    ScriptedLM,
    make_request,
)
from optograph.serving.breaker import CircuitBreaker
from optograph.serving.retry import NO_DEADLINE, RetryableError
from optograph.serving.types import Usage
from optograph.testing import LoopbackServer

QUICK = Breaker(probe_s=0.02, probe_cap_s=0.05, give_up_s=5.0, first_answer_s=0.4)


def failure(kind: str = "server", *, reached: bool = True) -> ServingError:
    return RetryableError(f"it failed ({kind})", kind=kind, reached=reached)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_of_several_requests() -> None:
    breaker = CircuitBreaker(Breaker(failures=5), "m", clock=Clock())
    verdicts = [breaker.failed(failure(), witness, probe=False) for witness in (1, 2, 3, 1, 2)]
    assert verdicts == [False, False, False, False, True]
    assert (breaker.state, breaker.opened) == ("open", 1)


def test_one_request_alone_opens_it_only_when_nothing_could_be_reached() -> None:
    breaker = CircuitBreaker(Breaker(failures=5), "m", clock=Clock())
    assert not any(breaker.failed(failure(), 1, probe=False) for _ in range(50))
    breaker = CircuitBreaker(Breaker(failures=5), "m", clock=Clock())
    assert any(breaker.failed(failure("connection", reached=False), 1, probe=False) for _ in range(5))


@pytest.mark.parametrize("kind", ["rate_limit", "bad_response", "bad_request", "auth"])
def test_an_answer_of_any_kind_is_a_sign_of_life(kind: str) -> None:
    breaker = CircuitBreaker(Breaker(failures=5), "m", clock=Clock())
    for k in range(50):
        breaker.failed(failure(kind if k % 4 == 3 else "server"), k, probe=False)
    assert breaker.state == "closed"


def test_probes_come_one_at_a_time_and_ever_more_seldom() -> None:
    clock = Clock()
    breaker = CircuitBreaker(Breaker(failures=1, probe_s=1.0, probe_cap_s=3.0), "m", clock=clock)
    breaker.succeeded()
    breaker.failed(failure(reached=False), 1, probe=False)

    async def main() -> list[float]:
        times = []
        for _ in range(5):
            waits = 0.0
            while True:
                clock.now += 0.5
                waits += 0.5
                task = asyncio.ensure_future(breaker.enter())
                await asyncio.sleep(0)
                if task.done():
                    break
                task.cancel()
            assert task.result() is True
            assert breaker.state == "half-open"
            other = asyncio.ensure_future(breaker.enter())
            await asyncio.sleep(0)
            assert not other.done()
            other.cancel()
            breaker.failed(failure(), 1, probe=True)
            times.append(waits)
        return times

    assert asyncio.run(main()) == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_long_outage_is_given_up_and_a_later_answer_closes_it_again() -> None:
    clock = Clock()
    breaker = CircuitBreaker(Breaker(failures=1, give_up_s=60.0), "m", clock=clock)

    async def main() -> None:
        breaker.succeeded()
        breaker.failed(failure("connection", reached=False), 1, probe=False)
        clock.now += 61.0
        assert await breaker.enter() is True
        waiting = [asyncio.ensure_future(breaker.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ServingError, match=r"'m' has been down for 61 s .*it failed") as caught:
            breaker.failed(failure("connection"), 1, probe=True)
        assert (caught.value.kind, caught.value.retryable) == ("down", False)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(one, "kind", None) for one in results] == ["down"] * 3
        with pytest.raises(ServingError, match="down"):
            await breaker.enter()
        clock.now += 100.0
        assert await breaker.enter() is True
        breaker.succeeded()
        assert breaker.state == "closed"
        assert await breaker.enter() is False

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields", [{"failures": 0}, {"probe_s": 0.0}, {"give_up_s": -1.0}, {"probe_cap_s": float("nan")}]
)
def test_bad_options_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Breaker(**fields)


class Wire(BaseLM):
    """A model whose endpoint is a function."""

    def __init__(self, ask: Callable[[Request], str], **options: Any) -> None:
        defaults: dict[str, Any] = {
            "retry": Retry(attempts=3, base_s=0.001),
            "breaker": QUICK,
            "deadline": NO_DEADLINE,
            "max_concurrency": 16,
        }
        super().__init__("wire", Capabilities(), **(defaults | options))
        self._ask = ask
        self.asked = 0

    async def identity(self) -> ModelIdentity:
        return ModelIdentity("test", "wire")

    async def _complete(self, request: Request) -> Completion:
        self.asked += 1
        await asyncio.sleep(0.001)
        text = self._ask(request)
        return Completion(
            texts=(text,),
            finish_reasons=("stop",),
            token_ids=(None,),
            logprobs=(None,),
            usage=Usage(1, 1),
            latency_s=0.0,
            identity=await self.identity(),
        )


async def ask_all(lm: BaseLM, count: int) -> list[Completion | BaseException]:
    calls = (lm.complete(make_request(f"{k}")) for k in range(count))
    return await asyncio.gather(*calls, return_exceptions=True)


def kinds(results: list[Completion | BaseException]) -> list[str]:
    return ["text" if isinstance(one, Completion) else str(getattr(one, "kind", type(one))) for one in results]


def test_an_outage_is_waited_for_without_hammering() -> None:
    back = [0.0]

    def ask(request: Request) -> str:
        if time.monotonic() < back[0]:
            raise failure("connection", reached=False)
        return "ok"

    lm = Wire(ask)
    lm("before")
    back[0] = time.monotonic() + 0.4
    asked = lm.asked
    results = asyncio.run(ask_all(lm, 100))
    assert kinds(results) == ["text"] * 100
    assert lm.breaker is not None
    assert (lm.breaker.state, lm.breaker.opened) == ("closed", 1)
    assert lm.breaker.waited >= 16
    # Those that opened it, one attempt for each place, and the probes failed; 100 succeeded.
    assert lm.asked - asked <= 100 + QUICK.failures + 16 + lm.breaker.probes
    assert lm.breaker.probes <= 15


def test_an_endpoint_that_never_answered_is_given_up_soon() -> None:
    def ask(request: Request) -> str:
        raise failure("connection", reached=False)

    results = asyncio.run(ask_all(Wire(ask), 40))
    assert set(kinds(results)) == {"down"}


def test_waiting_ends_with_the_calls_own_deadline() -> None:
    up = [True]

    def ask(request: Request) -> str:
        if not up[0]:
            raise failure("connection", reached=False)
        return "ok"

    lm = Wire(ask, deadline=Deadline(total_s=0.2), breaker=Breaker(probe_s=0.02, probe_cap_s=0.05, give_up_s=60.0))
    lm("before")
    up[0] = False
    assert set(kinds(asyncio.run(ask_all(lm, 30)))) == {"timeout"}
    up[0] = True
    assert lm("after") == "ok"


def test_a_request_that_always_fails_does_not_stop_the_others() -> None:
    def ask(request: Request) -> str:
        if request.text in ("user: 3", "user: 4"):
            raise failure("server")
        return "ok"

    results = kinds(asyncio.run(ask_all(Wire(ask, max_concurrency=2), 40)))
    assert [k for k, kind in enumerate(results) if kind != "text"] == [3, 4]
    assert results[3] == results[4] == "server"


def test_an_endpoint_that_hangs_counts_as_down() -> None:
    hanging = threading.Event()

    async def reply(request: Request) -> str:
        if hanging.is_set():
            await asyncio.sleep(60)
        return "ok"

    lm = ScriptedLM(reply, retry=Retry(attempts=2, base_s=0.01), deadline=Deadline(total_s=0.1))
    lm("before")
    hanging.set()
    asyncio.run(ask_all(lm, 8))
    assert lm.breaker is not None
    assert lm.breaker.state in ("open", "half-open")
    hanging.clear()


def test_a_cancelled_probe_hands_its_turn_on() -> None:
    up = [True]

    def ask(request: Request) -> str:
        if not up[0]:
            raise failure("connection", reached=False)
        return "ok"

    lm = Wire(ask)
    lm("before")
    up[0] = False

    async def main() -> list[Completion | BaseException]:
        calls = [asyncio.ensure_future(lm.complete(make_request(f"{k}"))) for k in range(12)]
        await asyncio.sleep(0.05)
        for one in calls[:6]:
            one.cancel()
        await asyncio.sleep(0.05)
        up[0] = True
        return await asyncio.gather(*calls[6:], return_exceptions=True)

    assert kinds(asyncio.run(main())) == ["text"] * 6


def test_models_that_do_not_retry_have_no_breaker() -> None:
    assert ScriptedLM(["x"]).breaker is None
    assert OpenAILM("m", base_url="http://127.0.0.1:1/v1", breaker=None).breaker is None


def test_a_server_that_is_started_again_is_found_again() -> None:
    with LoopbackServer("ok", latency_s=0.005) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        lm = OpenAILM("test-model", base_url=server.url, retry=Retry(attempts=3, base_s=0.01), breaker=QUICK)
        lm("before")
    results: list[Completion | BaseException] = []
    thread = threading.Thread(target=lambda: results.extend(asyncio.run(ask_all(lm, 100))))
    thread.start()
    time.sleep(0.4)
    with LoopbackServer("ok", port=port):
        thread.join()
    assert kinds(results) == ["text"] * 100
    assert lm.breaker is not None
    assert lm.breaker.opened >= 1
