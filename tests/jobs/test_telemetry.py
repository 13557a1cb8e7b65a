"""OpenTelemetry spans of a run: whose child each is, what they say and keep to themselves, and what off means."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from optograph.errors import ModelError, ServingError
from optograph.evals import EvaluatorOptions, Example, SealedSplit, Task, exact
from optograph.jobs import RunEvent, optimize
from optograph.jobs.telemetry import run_spans
from optograph.secrets import register_secret
from optograph.serving import JsonSchema, Message, Request, ScriptedLM
from optograph.telemetry import called, current_spans
from tests.jobs.conftest import Spans

SECRET = "canary-telemetry-5d1c7a"


def said(one: ReadableSpan) -> dict[str, Any]:
    return dict(one.attributes or {})


def test_each_span_stands_below_what_made_it(run: Any, spans: Spans) -> None:
    result = run(spans.options(title="Moods"))
    assert result.best.id != result.start.id
    (root,) = [one for one in spans.all() if one.parent is None]
    assert root.name == "invoke_workflow Moods"
    chains = Counter(len(spans.chain(one)) for one in spans.named("chat"))
    assert set(chains) == {3, 4}
    proposals = [one for one in spans.named("chat") if len(spans.chain(one)) == 3]
    assert {tuple(spans.chain(one)[1:]) for one in proposals} == {("optoprime", root.name)}
    examples = spans.named("evaluate_example")
    assert {spans.chain(one)[1] for one in examples} == {root.name}
    assert len(examples) == chains[4]
    assert {said(one)["optograph.split"] for one in examples} == {"train", "dev", "test"}
    outcome = said(root)
    assert outcome["optograph.status"] == "finished"
    assert outcome["optograph.test.after"] == result.test[1].mean == 1.0
    assert outcome["gen_ai.operation.name"] == "invoke_workflow"


class Crowd:
    """A model that answers nobody until a number of calls are in flight."""

    def __init__(self, size: int) -> None:
        self.size, self.waiting, self.most = size, 0, 0
        self.full: asyncio.Event | None = None

    async def __call__(self, request: Request) -> str:
        self.full = self.full or asyncio.Event()
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting >= self.size:
            self.full.set()
        await asyncio.wait_for(self.full.wait(), 20)
        self.waiting -= 1
        return request.messages[-1].content


@pytest.mark.parametrize("form", ["thread", "async", "threads of its own", "langgraph"])
def test_sixteen_examples_at_once_keep_their_spans_apart(form: str, spans: Spans) -> None:
    crowd = Crowd(16)
    lm = ScriptedLM(crowd, name="echo")
    rows = [Example(f"x{number}", {"text": f"x{number}"}, f"x{number}") for number in range(16)]
    task = Task(rows, [Example("d", {"text": "d"}, "d")], SealedSplit([Example("t", {"text": "t"}, "t")]), exact())

    from optograph.evals import Evaluator, Trial
    from optograph.graphs import Candidate

    evaluator = Evaluator(workflow_of(form, lm), task, {}, options=EvaluatorOptions(16))
    with run_spans(spans.options(content=True).telemetry, "crowd", {}):
        (evaluation,) = evaluator.evaluate([Trial(Candidate({}), "train", tuple(row.id for row in rows))])
    assert evaluation.mean == 1.0
    assert crowd.most == 16
    calls = spans.named("chat echo")
    assert len(calls) == 16
    for one in calls:
        middle = ["node"] if form != "threads of its own" else []
        _, *way = spans.chain(one)
        assert [name for name in way if not name.startswith("x")] == [*middle, "invoke_workflow crowd"]
        example = next(name for name in way if name.startswith("x"))
        assert json.loads(str(said(one)["gen_ai.input.messages"]))[0]["parts"][0]["content"] == example
    owners = Counter(next(name for name in spans.chain(one) if name.startswith("x")) for one in calls)
    assert owners == Counter({row.id: 1 for row in rows})


class Asked(TypedDict):
    """State of a small graph."""

    text: str


def workflow_of(form: str, lm: ScriptedLM) -> Callable[..., Any]:
    """Return a workflow that asks in one of the ways in which people write it."""
    from optograph.context import call_context

    def ask(text: str) -> str:
        with call_context(node="node"):
            return lm(text)

    async def ask_async(text: str) -> str:
        with call_context(node="node"):
            return (await lm.complete(Request(messages=(Message("user", text),)))).text

    def own_thread(text: str) -> str:
        from contextvars import copy_context

        answers: list[str] = []
        thread = threading.Thread(target=copy_context().run, args=(lambda: answers.append(lm(text)),))
        thread.start()
        thread.join()
        return answers[0]

    def graph(text: str) -> str:
        from langgraph.graph import END, START, StateGraph

        def node(state: Asked) -> Asked:
            return {"text": ask(state["text"])}

        built = StateGraph(Asked)
        built.add_node("ask", node)
        built.add_edge(START, "ask")
        built.add_edge("ask", END)
        return str(built.compile().invoke({"text": text})["text"])

    return {"thread": ask, "async": ask_async, "threads of its own": own_thread, "langgraph": graph}[form]


def test_spans_of_the_callers_own_nest(
    run: Any, spans: Spans, make_moods: Any, task: Task, task_lm: ScriptedLM
) -> None:
    tracer = spans.provider.get_tracer("mine")
    moods = make_moods(task_lm)
    forward = moods.forward

    def watched(text: str) -> Any:
        with tracer.start_as_current_span("mine inside"):
            return forward(text)

    moods.forward = watched
    with tracer.start_as_current_span("mine outside"):
        optimize(moods, task, optimizer=[("fewshot", {"sets": 2, "size": 2, "first_rung": 4})], options=spans.options())
    one = spans.named("chat")[0]
    way = spans.chain(one)
    assert way[1:3] == ["judge", "mine inside"]
    assert way[4:] == ["invoke_workflow moods", "mine outside"]


def test_a_call_says_what_the_conventions_ask_for(spans: Spans) -> None:
    lm = ScriptedLM(["four five"], name="vllm/tiny-2@http://127.0.0.1:8123/v1")
    request = Request(
        messages=(Message("user", "one two three"),),
        max_tokens=1,
        temperature=0.5,
        seed=7,
        draw=1,
        stop=("six",),
        schema=JsonSchema({"type": "object"}, "thing"),
    )
    with run_spans(spans.options().telemetry, "t", {}):
        lm.ask(request)
    one = spans.named("chat")[0]
    assert one.name == "chat tiny-2"
    assert one.kind == trace.SpanKind.CLIENT
    assert said(one) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny-2",
        "gen_ai.request.max_tokens": 1,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 1_000_010,
        "gen_ai.request.stop_sequences": ("six",),
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "vllm/tiny-2@http://127.0.0.1:8123/v1",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 1,
        "server.address": "127.0.0.1",
        "server.port": 8123,
    }
    assert one.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (ServingError("no answer for 'the text'", kind="timeout"), "timeout"),
        (ModelError("odd 'the text'"), "ModelError"),
    ],
)
def test_a_failed_call_says_how(failure: Exception, kind: str, spans: Spans) -> None:
    lm = ScriptedLM([failure], name="tiny")
    with run_spans(spans.options().telemetry, "t", {}), pytest.raises(type(failure)):
        lm.ask(Request(prompt="the text"))
    one = spans.named("text_completion tiny")[0]
    assert said(one)["error.type"] == kind
    assert one.status.status_code is trace.StatusCode.ERROR
    assert one.status.description is None
    assert said(spans.named("invoke_workflow")[0]).get("error.type") is None


def test_a_run_that_fails_says_so(run: Any, spans: Spans) -> None:
    def stop(event: RunEvent) -> None:
        if event.kind == "verdict":
            raise ModelError("enough")

    with pytest.raises(ModelError, match="enough"):
        run(spans.options(on_event=stop))
    (root,) = [one for one in spans.all() if one.parent is None]
    assert said(root)["error.type"] == "ModelError"
    assert current_spans() is None


def test_an_example_says_its_score_and_its_failure(spans: Spans, task: Task) -> None:
    def breaks(text: str) -> str:
        if "rain" in text:
            raise RuntimeError(f"cannot read {text!r}")
        return "happy"

    from optograph.evals import Evaluator, Trial
    from optograph.graphs import Candidate

    trial = Trial(Candidate({}), "dev", ("b0", "b1"))
    with run_spans(spans.options(content=True).telemetry, "t", {}):
        Evaluator(breaks, task, {}).evaluate([trial])
    good, bad = sorted(spans.named("evaluate_example"), key=lambda one: str(said(one)["optograph.example.id"]))
    assert said(good)["gen_ai.evaluation.score.value"] == 1.0
    assert said(bad)["gen_ai.evaluation.score.value"] == 0.0
    assert said(bad)["error.type"] == said(bad)["gen_ai.evaluation.score.label"] == "RuntimeError"
    assert "cannot read" in str(bad.status.description)
    assert good.status.status_code is trace.StatusCode.UNSET


def test_no_message_leaves_without_leave(run: Any, spans: Spans) -> None:
    run(spans.options())
    text = "".join(one.to_json() for one in spans.all())
    for word in ("came over the town", "Judge", "happy", "carefully"):
        assert word not in text
    assert "judge" in text


def test_with_leave_messages_are_told_without_secrets(
    spans: Spans, make_moods: Any, task: Task, task_lm: ScriptedLM
) -> None:
    register_secret(SECRET)
    moods = make_moods(task_lm)
    moods.judge.instruction.set(f"Judge with {SECRET}.")
    stages: Any = [("fewshot", {"sets": 2, "size": 2, "first_rung": 4})]
    optimize(moods, task, optimizer=stages, options=spans.options(content=True, title=f"key {SECRET}"))
    text = "".join(one.to_json() for one in spans.all())
    assert SECRET not in text
    one = said(spans.named("chat")[0])
    asked, answered = (json.loads(str(one[f"gen_ai.{way}.messages"])) for way in ("input", "output"))
    assert asked[0] == {"role": "system", "parts": [{"type": "text", "content": asked[0]["parts"][0]["content"]}]}
    assert "Judge with …." in asked[0]["parts"][0]["content"]
    assert answered[0]["role"] == "assistant"
    assert answered[0]["finish_reason"] == "stop"
    assert answered[0]["parts"][0]["content"] in ("happy", "sad")


def test_a_calibration_belongs_to_the_run(spans: Spans) -> None:
    from typing import Literal

    from pydantic import BaseModel

    from optograph.agents import Step, StepOptions

    class Ask(BaseModel):
        text: str

    class Label(BaseModel):
        label: Literal["yes", "no"]

    lm = ScriptedLM(lambda request: "yes", name="labels", labels=lambda request: {"yes": -0.1, "no": -2.0})
    step = Step("judge", lm=lm, inputs=Ask, output=Label, instruction="?", options=StepOptions(answer="score"))
    step.calibrate([{"text": "a"}, {"text": "b"}])
    with run_spans(spans.options().telemetry, "t", {}):
        step(text="c")
    ways = Counter(tuple(spans.chain(one)) for one in spans.named("chat"))
    assert ways == {
        ("chat labels", "judge.calibration", "invoke_workflow t"): 2,
        ("chat labels", "judge", "invoke_workflow t"): 1,
    }


def test_calls_of_a_langgraph_apps_own_models_stand_below_their_nodes(spans: Spans) -> None:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, StateGraph

    from optograph.agents.langgraph import trace_langgraph

    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    answers = [AIMessage("an answer", usage_metadata=usage, response_metadata={"finish_reason": "stop"})]
    model = GenericFakeChatModel(messages=iter(answers))

    def answer(state: Asked) -> Asked:
        return {"text": str(model.invoke(f"Answer this: {state['text']}").content)}

    def fail(state: Asked) -> Asked:
        return {"text": str(model.invoke("once more").content)}  # it has no answer left

    graph = StateGraph(Asked)
    graph.add_node("answer", answer)
    graph.add_node("fail", fail)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "fail")
    graph.add_edge("fail", END)
    app = trace_langgraph(graph.compile(), output="text")
    with run_spans(spans.options(content=True).telemetry, "t", {}), pytest.raises(Exception, match="StopIteration"):
        app(text="a question")
    calls = spans.named("chat")
    assert [spans.chain(one)[1:] for one in calls] == [["answer", "invoke_workflow t"], ["fail", "invoke_workflow t"]]
    good, bad = map(said, calls)
    assert good["gen_ai.provider.name"] == "langchain"
    assert (good["gen_ai.usage.input_tokens"], good["gen_ai.usage.output_tokens"]) == (5, 2)
    assert good["gen_ai.response.finish_reasons"] == ("stop",)
    assert json.loads(str(good["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Answer this: a question"}]}
    ]
    assert json.loads(str(good["gen_ai.output.messages"]))[0]["parts"][0]["content"] == "an answer"
    assert bad["error.type"] == "StopIteration"
    assert calls[1].status.status_code is trace.StatusCode.ERROR


def test_a_pause_of_a_langgraph_app_is_no_error(spans: Spans) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Command, interrupt

    from optograph.agents.langgraph import trace_langgraph

    def ask(state: Asked) -> Asked:
        return {"text": str(interrupt("which?"))}

    graph = StateGraph(Asked)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    app = trace_langgraph(graph.compile(checkpointer=InMemorySaver()))
    thread = {"configurable": {"thread_id": "1"}}
    with run_spans(spans.options().telemetry, "t", {}):
        app.invoke({"text": ""}, thread)
        assert app.invoke(Command(resume="this one"), thread)["text"] == "this one"
    nodes = spans.named("run_node ask")
    assert len(nodes) == 2
    assert all("error.type" not in said(one) for one in nodes)


def test_a_call_told_afterwards_began_when_it_did(spans: Spans) -> None:
    note = {"model": "m", "prompt": "continue this", "texts": ["so"], "usage": [3, 1], "latency_s": 1.5}
    called("openai", note)  # nobody listens
    with run_spans(spans.options().telemetry, "t", {}):
        called("openai", note)
        called("openai", {"model": "m", "messages": [], "error": "RateLimitError: slow down, 'continue this'"})
    first, second = spans.named("text_completion m")[0], spans.named("chat m")[0]
    assert first.end_time is not None
    assert first.start_time is not None
    assert first.end_time - first.start_time == 1_500_000_000
    assert said(second)["error.type"] == "RateLimitError"
    assert "continue this" not in first.to_json() + second.to_json()
