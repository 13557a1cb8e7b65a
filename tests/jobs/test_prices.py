"""A limit in US dollars needs prices: the job's, else what the endpoint lists, else the run is refused unpaid."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import BudgetExceeded, UserError
from optograph.evals import Task
from optograph.jobs import RunOptions, RunResult, load_job, optimize, run_job
from optograph.jobs import pricing as pricing_module
from optograph.jobs.estimate import estimate_job
from optograph.jobs.pricing import settle_prices
from optograph.serving import Budget, BudgetLimits, OpenAILM, Price, PriceTable, RoleLimits
from optograph.serving import prices as prices_module
from optograph.storage import CallRow, Journal
from optograph.testing import LoopbackServer
from optograph.testing.http import Reply, error_reply
from tests.cli.conftest import JOB, fill, reply

PRICING = {"pricing": {"prompt": "0.0000025", "completion": "0.00001"}}
"""2.5 and 10 US dollars per million tokens."""
SEARCH: list[tuple[str, dict[str, Any]]] = [("fewshot", {"sets": 2, "size": 2, "first_rung": 8})]


class Forgetful(LoopbackServer):
    """A server that lists its models once, for the check that it serves the model; later it fails, or says nothing."""

    hangs = False
    lists = 0

    def _other(self, method: str, path: str) -> Reply:
        self.lists += path == "/v1/models"
        if self.lists > 1 and path == "/v1/models":
            return Reply((), ending="hang") if self.hangs else error_reply(500, "the list is broken")
        return super()._other(method, path)


Run = Callable[..., RunResult]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a workflow and its data."""
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers at a loopback address count as any other, so that they cost something."""
    monkeypatch.setattr(prices_module, "is_loopback", lambda url: False)


@pytest.fixture
def run(folder: Path) -> Run:
    """Run the job of the folder on a server."""

    def start(server: LoopbackServer, *overrides: str, **more: Any) -> RunResult:
        (folder / "job.toml").write_text(JOB.format(url=server.url))
        job = load_job(folder / "job.toml", list(overrides))
        return run_job(job, folder, folder / more.pop("to", "run"), **more)

    return start


def serve(kind: type[LoopbackServer] = LoopbackServer, **more: Any) -> LoopbackServer:
    return kind(reply, models=("tiny",), **more)


def calls_of(directory: Path) -> list[CallRow]:
    with Journal.read(directory) as journal:
        return journal.calls()


def lists(server: LoopbackServer) -> int:
    return sum(one.path == "/v1/models" for one in server.received)


@pytest.mark.usefixtures("far")
def test_a_model_without_a_price_is_refused_before_anything_is_paid(run: Run, folder: Path) -> None:
    with serve() as server:
        with pytest.raises(UserError, match=r"(?s)price of 'vllm/tiny@http://127.*\[prices.\"vllm/tiny\"\]") as caught:
            run(server, "budget.usd=1")
        assert server.calls == 0
        assert "take the limit `usd` out" in str(caught.value)
        assert calls_of(folder / "run") == []
        # put right, the same directory goes on
        run(server, "budget.usd=1", "prices.vllm/tiny.input=2", "prices.vllm/tiny.output=4")
    assert {call.usd for call in calls_of(folder / "run")} == {
        Price(2, 4).usd(call.prompt_tokens, call.completion_tokens) for call in calls_of(folder / "run")
    }


@pytest.mark.usefixtures("far")
def test_a_proposer_without_a_price_is_refused_before_the_task_model_is_paid(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as priced, serve() as plain:
        with pytest.raises(UserError, match=f"needs the price of 'vllm/tiny@{plain.url}'"):
            run(priced, "budget.usd=1", f"models.optimizer=vllm/tiny@{plain.url}")
        assert (priced.calls, plain.calls) == (0, 0)


@pytest.mark.usefixtures("far")
def test_listed_prices_are_taken_and_charged(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as server:
        result = run(server, "budget.usd=1")
        assert result.status == "finished"
        assert lists(server) == 2
        spent = calls_of(folder / "run")
        assert [call.usd for call in spent] == [
            Price(2.5, 10).usd(call.prompt_tokens, call.completion_tokens) for call in spent
        ]
        paid = sum(call.usd or 0.0 for call in spent)
        assert paid > 0
        before = server.calls
        with pytest.raises(BudgetExceeded, match="US dollars does not cover another call"):
            run(server, "budget.usd=0.0001", to="less")
        assert server.calls == before


def test_what_the_job_says_counts_more_and_spares_the_question(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as server:
        run(server, "budget.usd=1", "prices.vllm/*.input=1", "prices.vllm/*.output=1")
        assert lists(server) == 1
        (call, *_) = calls_of(folder / "run")
        assert call.usd == Price(1, 1).usd(call.prompt_tokens, call.completion_tokens)


def test_a_price_that_is_listed_at_this_machine_counts_too(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as server:
        run(server, "budget.optimizer.usd=1")
    assert all(call.usd for call in calls_of(folder / "run"))


@pytest.mark.usefixtures("far")
def test_without_a_limit_in_dollars_nobody_is_asked(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as server:
        run(server, "budget.calls=2000")
        assert lists(server) == 1
    assert {call.usd for call in calls_of(folder / "run")} == {None}


@pytest.mark.parametrize("hangs", [False, True])
def test_a_list_that_fails_is_no_error_of_its_own(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(pricing_module, "LIST_TIMEOUT_S", 0.2)
    with serve(Forgetful) as server:
        assert isinstance(server, Forgetful)
        server.hangs = hangs
        assert run(server, "budget.usd=1").status == "finished"
        assert server.lists > 1
        monkeypatch.setattr(prices_module, "is_loopback", lambda url: False)
        server.lists, before = 0, server.calls
        started = time.monotonic()
        with pytest.raises(UserError, match="needs the price of 'vllm/tiny@"):
            run(server, "budget.usd=1", to="other")
        assert time.monotonic() - started < 30
        assert server.calls == before


@pytest.mark.usefixtures("far")
def test_only_the_role_with_the_limit_needs_a_price() -> None:
    with serve(models_extra=PRICING) as priced, serve() as plain:
        task = OpenAILM("tiny", base_url=plain.url, name=f"vllm/tiny@{plain.url}")
        optimizer = OpenAILM("tiny", base_url=priced.url, name=f"vllm/tiny@{priced.url}")
        budget = Budget(BudgetLimits(roles={"optimizer": RoleLimits(usd=1)}))
        settle_prices(budget, [("task", task), ("optimizer", optimizer)])
        assert budget.prices.find(optimizer.name) == Price(2.5, 10)
        assert budget.prices.find(task.name) is None
        assert lists(plain) == 0
        # The same name at another endpoint is another model.
        budget.limits = BudgetLimits(usd=1)
        with pytest.raises(UserError, match=f"price of {task.name!r}"):
            settle_prices(budget, [("task", task), ("optimizer", optimizer)])


@pytest.mark.usefixtures("far")
def test_what_was_spent_before_is_counted_by_the_listed_prices(run: Run, folder: Path) -> None:
    with serve(models_extra=PRICING) as server:
        run(server, "budget.calls=2000")
        spent = calls_of(folder / "run")
        tokens = [sum(getattr(call, name) for call in spent) for name in ("prompt_tokens", "completion_tokens")]
        limit = Price(2.5, 10).usd(*tokens)
        again = run(server, f"budget.usd={limit:.9f}", changed=["budget.usd", "budget.calls"])
        assert again.status == "finished"
        assert len(calls_of(folder / "run")) == len(spent)


@pytest.mark.usefixtures("far")
def test_a_replay_pays_nothing_and_needs_no_price(run: Run, folder: Path) -> None:
    with serve() as server:
        run(server)
        asked = len(server.received)
        run(server, "budget.usd=1", to="again", replay=folder / "run")
        assert len(server.received) == asked


@pytest.mark.usefixtures("far")
def test_the_call_in_python_is_refused_likewise(make_moods: Callable[[Any], Any], task: Task) -> None:
    with serve() as server:
        lm = OpenAILM("tiny", base_url=server.url, flavour="vllm")
        with pytest.raises(UserError, match=f"needs the price of {lm.name!r}"):
            optimize(make_moods(lm), task, optimizer=SEARCH, options=RunOptions(limits=BudgetLimits(usd=1)))
        assert server.calls == 0
        table = PriceTable({lm.name: Price(1, 1)})
        options = RunOptions(limits=BudgetLimits(usd=1), prices=table)
        assert optimize(make_moods(lm), task, optimizer=SEARCH, options=options).status == "finished"


@pytest.mark.usefixtures("far")
def test_a_probe_is_refused_likewise(folder: Path) -> None:
    with serve() as server:
        (folder / "job.toml").write_text(JOB.format(url=server.url))
        with pytest.raises(UserError, match="needs the price of 'vllm/tiny@"):
            estimate_job(load_job(folder / "job.toml", ["budget.usd=1"]), folder, probe=2)
        assert server.calls == 0
