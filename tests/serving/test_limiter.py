"""The concurrency limit: order, and how it follows simulated servers on a clock that jumps, and a real one."""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving import Completion, OpenAILM, Retry, make_request
from optograph.serving.limiter import Limiter
from optograph.serving.wire import waiting_requests
from optograph.testing import LoopbackServer

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.now += timeout or 0.0
        return super().select(0)


def simulate(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


class Server:
    """A server on the running loop's clock.

    `serve` takes `base_s`, more where `slow` says so; above `capacity` it refuses, or (`queueing`) lets requests wait.
    """

    def __init__(self, capacity: int, base_s: float = 0.05, *, queueing: bool = False) -> None:
        self.capacity = capacity
        self.base_s = base_s
        self.queueing = queueing
        self.running = 0
        self.refused = 0
        self.peak = 0
        self._places = asyncio.Semaphore(capacity)
        self._random = random.Random(1)

    async def serve(self) -> bool:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if self.running > self.capacity and not self.queueing:
                self.refused += 1
                await asyncio.sleep(0.005)
                return False
            async with self._places:
                await asyncio.sleep(self.base_s * self._random.uniform(0.8, 1.2))
            return True
        finally:
            self.running -= 1


async def load(limiter: Limiter, serve: Callable[[], Coroutine[Any, Any, bool]], calls: int) -> float:
    """Make calls as a model does, and return how long they took."""

    async def one() -> None:
        await limiter.acquire()
        while True:
            place = limiter.sent()
            if await serve():
                limiter.succeeded(place)
                limiter.release()
                return
            limiter.refused(place)
            limiter.release()
            await asyncio.sleep(0.1)
            await limiter.acquire(front=True)

    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.gather(*(one() for _ in range(calls)))
    return loop.time() - started


def make(most: int, **options: Any) -> Limiter:
    return Limiter(most, clock=asyncio.get_running_loop().time, **options)


def test_a_server_that_refuses_is_left_with_what_it_takes() -> None:
    async def main() -> None:
        server, limiter = Server(10), make(64)
        await load(limiter, server.serve, 300)
        refused = server.refused
        took = await load(limiter, server.serve, 3000)
        assert limiter.limit <= 11
        assert server.refused - refused < 3000 * 0.03
        assert took < 1.35 * 3000 * 0.05 / 10
        assert limiter.in_flight == limiter.waiting == 0

    simulate(main())


def test_a_server_that_gets_more_places_is_used_again() -> None:
    async def main() -> None:
        server, limiter = Server(4), make(32)
        await load(limiter, server.serve, 500)
        assert limiter.limit <= 5
        server.capacity = 1000
        server._places = asyncio.Semaphore(1000)
        await load(limiter, server.serve, 5000)
        assert limiter.limit == 32

    simulate(main())


def test_a_server_that_scales_is_used_to_the_full() -> None:
    async def main() -> None:
        server, limiter = Server(1000), make(64)
        took = await load(limiter, server.serve, 3000)
        assert (limiter.limit, limiter.cuts) == (64, 0)
        assert took < 1.3 * 3000 * 0.05 / 64

    simulate(main())


def test_a_queue_inside_the_server_is_kept_short_where_that_costs_nothing() -> None:
    async def main() -> None:
        server, limiter = Server(6, queueing=True), make(64)
        took = await load(limiter, server.serve, 6000)
        assert limiter.limit <= 40
        assert took < 1.05 * 6000 * 0.05 / 6

    simulate(main())


def test_answers_of_very_different_lengths_are_no_reason_to_be_slow() -> None:
    async def main() -> None:
        draws, limiter = random.Random(2), make(64)

        async def serve() -> bool:
            await asyncio.sleep(0.01 if draws.random() < 0.3 else draws.uniform(0.2, 1.0))
            return True

        took = await load(limiter, serve, 8000)
        ideal = 8000 * (0.3 * 0.01 + 0.7 * 0.6) / 64
        assert limiter.limit >= 48
        assert took < 1.15 * ideal

    simulate(main())


def test_it_does_not_grow_while_requests_wait_in_the_server() -> None:
    async def main() -> None:
        server, limiter = Server(8), make(32)
        await load(limiter, server.serve, 300)
        limit = limiter.limit
        server.capacity = 1000
        limiter.congested = True
        await load(limiter, server.serve, 1000)
        assert limiter.limit <= limit
        limiter.congested = False
        await load(limiter, server.serve, 3000)
        assert limiter.limit > limit

    simulate(main())


def test_many_refusals_in_one_round_trip_halve_it_once() -> None:
    async def main() -> None:
        limiter = make(64)
        for _ in range(64):
            await limiter.acquire()
        places = [limiter.sent() for _ in range(64)]
        assert all(limiter.refused(place) for place in places)
        assert (limiter.limit, limiter.cuts, limiter.refusals) == (32, 1, 64)

    simulate(main())


def test_a_refusal_of_a_lone_call_is_not_blamed_on_the_others() -> None:
    async def main() -> None:
        limiter = make(64)
        await limiter.acquire()
        assert limiter.refused(limiter.sent()) is False
        assert limiter.limit == 1

    simulate(main())


def test_a_fixed_limit_stays() -> None:
    async def main() -> None:
        server, limiter = Server(10, queueing=True), make(16, adaptive=False)
        await load(limiter, server.serve, 500)
        await limiter.acquire()
        assert limiter.refused(limiter.sent()) is False
        assert (limiter.limit, server.peak) == (16, 16)

    simulate(main())


def test_first_come_first_served_and_what_had_a_place_before_all() -> None:
    async def main() -> None:
        limiter = make(1, adaptive=False)
        order: list[str] = []

        async def one(name: str, *, front: bool = False) -> None:
            await limiter.acquire(front=front)
            order.append(name)
            limiter.release()

        await limiter.acquire()
        tasks = [asyncio.ensure_future(one(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(one("first", front=True)))
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        limiter.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["first", "a", "c", "d"]
        assert limiter.in_flight == limiter.waiting == 0

    simulate(main())


def test_a_place_that_was_given_to_a_cancelled_call_is_not_lost() -> None:
    async def main() -> None:
        limiter = make(1, adaptive=False)
        await limiter.acquire()
        task = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        limiter.release()  # gives the place to the task, which is cancelled before it runs
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert limiter.in_flight == 0
        await limiter.acquire()

    simulate(main())


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="got 0"):
        Limiter(0)


@pytest.mark.parametrize("fault_capacity", [1, 4])
def test_no_refusal_reaches_the_caller(fault_capacity: int) -> None:
    with LoopbackServer("ok", latency_s=0.005, capacity=fault_capacity) as server:
        lm = OpenAILM("test-model", base_url=server.url, max_concurrency=32, retry=Retry(attempts=4, base_s=0.005))

        async def main(count: int) -> list[Completion | BaseException]:
            calls = (lm.complete(make_request(f"{k}")) for k in range(count))
            return await asyncio.gather(*calls, return_exceptions=True)

        first = asyncio.run(main(100))
        assert lm.limiter is not None
        early, calls = lm.limiter.refusals, server.calls
        second = asyncio.run(main(300))
        late = lm.limiter.refusals - early
    assert all(isinstance(one, Completion) for one in first + second)
    assert lm.limiter.limit <= 2 * fault_capacity
    assert late < 0.15 * (server.calls - calls)


def test_a_refusal_that_never_passes_reaches_the_caller() -> None:
    with LoopbackServer("429") as server:
        lm = OpenAILM("test-model", base_url=server.url, max_concurrency=8, retry=Retry(attempts=3, base_s=0.001))

        async def main() -> list[Completion | BaseException]:
            calls = (lm.complete(make_request(f"{k}")) for k in range(20))
            return await asyncio.gather(*calls, return_exceptions=True)

        results = asyncio.run(main())
    assert all(isinstance(one, ServingError) and one.kind == "rate_limit" for one in results)
    assert lm.breaker is not None
    assert lm.breaker.opened == 0


METRICS = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:num_requests_running{engine="0",model_name="m"} 8.0
"""


def test_vllms_metrics_are_read() -> None:
    assert waiting_requests(METRICS) == 5
    assert waiting_requests("vllm:num_requests_waiting 0.0\n") == 0
    assert waiting_requests("<html></html>") is None


def test_vllm_is_asked_whether_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optograph.serving.openai_lm._METRICS_EVERY_S", 0.02)
    seen = threading.Event()

    def reply(body: dict[str, Any]) -> str:
        seen.wait(10)
        return "ok"

    with LoopbackServer(reply, metrics=METRICS) as server:
        lm = OpenAILM("test-model", base_url=server.url, flavour="vllm")
        limiter = lm.limiter
        assert limiter is not None

        async def main() -> bool:
            call = asyncio.ensure_future(lm.complete(make_request("hi")))
            for _ in range(500):
                await asyncio.sleep(0.01)
                if limiter.congested:
                    break
            told = limiter.congested
            seen.set()
            await call
            return told

        assert asyncio.run(main())
        assert "/metrics" in [one.path for one in server.received]
        asyncio.run(lm.aclose())


def test_a_server_without_metrics_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optograph.serving.openai_lm._METRICS_EVERY_S", 0.02)
    with LoopbackServer("ok", latency_s=0.2) as server:
        lm = OpenAILM("test-model", base_url=server.url, flavour="vllm")
        lm("hi")
        lm("again")
        assert [one.path for one in server.received].count("/metrics") == 1
        asyncio.run(lm.aclose())
