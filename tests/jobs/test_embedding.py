"""The loop and whole optimizations as LangGraph graphs: drawn, streamed, interrupted, and nodes of a user's graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from optograph import optimization_node
from optograph.errors import UserError
from optograph.evals import Evaluator, EvaluatorOptions, Task
from optograph.graphs import Candidate
from optograph.jobs import RunOptions, optimize
from optograph.optimizers import Loop, OptimizerContext, OptoPrime, OptoPrimeOptions, ReviewDesk, optimization_graph
from optograph.serving import Request, ScriptedLM
from optograph.storage import Journal

GOOD, BETTER = "Judge carefully.", "Judge carefully!"
THREAD: Any = {"configurable": {"thread_id": "one"}}
FIRST: Any = {"trials": []}


def proposing(obedient: ScriptedLM) -> ScriptedLM:
    """Return a model that judges, and proposes a careful instruction."""
    script = obedient._script
    assert script is not None

    def reply(request: Request) -> Any:
        if "improve a program" in request.messages[0].content:
            return {"reasoning": "r", "answer": "CHANGE", "suggestion": {"judge.instruction": GOOD}}
        return script(request)

    return ScriptedLM(reply, name="obedient")


@pytest.fixture
def make_loop(make_moods: Callable[[ScriptedLM], Any], task: Task, task_lm: ScriptedLM) -> Callable[..., Loop]:
    """Make a loop over a journal."""

    def make(journal: Journal, **more: Any) -> Loop:
        lm = proposing(task_lm)
        moods = make_moods(lm)
        parameters = moods.named_parameters()
        optimizer = OptoPrime(OptoPrimeOptions(steps=2, minibatch=4))
        start = Candidate({name: one.spec.to_json(one.base) for name, one in parameters.items()})
        optimizer.bind(OptimizerContext(parameters, task, journal, lm), start)
        return Loop(optimizer, Evaluator(moods, task, parameters, journal, EvaluatorOptions(4)), journal, **more)

    return make


# -- the loop ---------------------------------------------------------------------------------------


def test_the_graphs_are_drawn(make_loop: Any) -> None:
    drawn = make_loop(Journal.memory()).graph().get_graph().draw_mermaid()
    assert "evaluate --> tell;" in drawn
    assert "accept -.-> review;" in drawn
    alone = OptoPrime().graph().get_graph().draw_mermaid()
    assert "render -.-> propose;" in alone
    assert "repair --> propose;" in alone
    both = optimization_graph(OptoPrime()).get_graph(xray=True).draw_mermaid()
    assert "subgraph ask" in both
    assert "subgraph" not in optimization_graph().get_graph(xray=True).draw_mermaid()


def test_the_loop_is_streamed(make_loop: Any) -> None:
    loop = make_loop(Journal.memory())
    updates: list[str] = []
    events: list[dict[str, Any]] = []
    for mode, part in loop.graph().stream(FIRST, stream_mode=["updates", "custom"]):
        updates += list(part) if mode == "updates" else []
        events += [part] if mode == "custom" else []
    step = ["ask", "evaluate", "tell"]
    assert updates == ["start", *step, *step, "accept", *step, "ask"]
    assert [one["kind"] for one in events].count("verdict") == 1
    (verdict,) = [one for one in events if one["kind"] == "verdict"]
    assert (verdict["verdict"], verdict["score"], verdict["incumbent_score"]) == ("accepted", 1.0, 0.5)
    assert loop.result().best.values["judge.instruction"] == GOOD
    assert loop.result().status == "finished"
    assert list(loop.graph().stream(FIRST)) == [{"start": {"nominated": None, "review": None, "finished": True}}]


def test_a_loop_that_has_not_begun_has_no_result(make_loop: Any) -> None:
    with pytest.raises(UserError, match="has not begun"):
        make_loop(Journal.memory()).result()


@pytest.mark.parametrize("again", [False, True], ids=["same process", "another process"])
def test_the_loop_is_interrupted_for_a_review_and_goes_on(make_loop: Any, again: bool) -> None:
    journal, saver = Journal.memory(), InMemorySaver()
    loop = make_loop(journal, desk=ReviewDesk(journal))
    paused = loop.graph(saver).invoke(FIRST, THREAD)
    (request,) = paused["__interrupt__"]
    assert request.value["candidate"]["values"]["judge.instruction"] == GOOD
    if again:
        loop = make_loop(journal, desk=ReviewDesk(journal))
    graph = loop.graph(saver)
    wrong = graph.invoke(Command(resume={"verdict": "edit", "values": {"judge.instruction": GOOD}}), THREAD)
    assert "approve the candidate as it is" in wrong["__interrupt__"][0].value["error"]
    values = {"judge.instruction": BETTER}
    graph.invoke(Command(resume={"verdict": "edit", "values": values, "by": "ana"}), THREAD)
    assert loop.result().best.values["judge.instruction"] == BETTER
    assert [row.verdict for row in journal.decisions()] == ["seed", "edited", "accepted"]
    assert [one["by"] for one in journal.events("review")] == ["ana"]


def test_the_proposal_alone_is_run(make_loop: Any) -> None:
    loop = make_loop(Journal.memory())
    optimizer = loop.optimizer
    optimizer.tell(loop.evaluator.evaluate(optimizer.ask()))
    start: Any = {"messages": (), "text": "", "answer": None, "attempts": 0}
    nodes = [name for part in optimizer.graph().stream(start, stream_mode="updates") for name in part]
    assert nodes == ["render", "propose", "validate"]
    assert optimizer.ask()[0].candidate.values["judge.instruction"] == GOOD
    with pytest.raises(UserError, match="observed no runs yet"):
        OptoPrime().graph().invoke(start)


# -- in a user's graph ------------------------------------------------------------------------------


class State(TypedDict, total=False):
    question: str
    candidate: dict[str, Any]
    scores: dict[str, Any]
    answer: str


@pytest.fixture
def app(make_moods: Callable[[ScriptedLM], Any], task: Task, task_lm: ScriptedLM) -> Callable[..., Any]:
    """Build a user's graph: something before, the optimization, something after that uses what it found."""

    def build(saver: Any = None, optimizer: Any = None, **options: Any) -> Any:
        moods = make_moods(proposing(task_lm))
        node = optimization_node(
            moods,
            task,
            optimizer=optimizer or [("optoprime", {"steps": 2, "minibatch": 4})],
            options=RunOptions(evaluation=EvaluatorOptions(concurrency=4), **options),
        )

        def after(state: State) -> dict[str, Any]:
            return {"answer": f"{state['candidate']['judge.instruction']} {moods(text='rain').data}"}

        graph = StateGraph(State)
        graph.add_node("before", lambda state: {"question": "?"})
        graph.add_node("optimize", node)
        graph.add_node("after", after)
        graph.add_edge(START, "before")
        graph.add_edge("before", "optimize")
        graph.add_edge("optimize", "after")
        graph.add_edge("after", END)
        return graph.compile(checkpointer=saver)

    return build


def test_an_optimization_is_a_node(app: Any) -> None:
    graph = app()
    found = graph.invoke({})
    assert found["candidate"] == {"judge.demos": [], "judge.instruction": GOOD}
    assert found["scores"]["dev"] == {"before": 0.5, "after": 1.0}
    assert found["scores"]["test"]["difference"] == 0.5
    assert found["scores"]["status"] == "finished"
    assert found["answer"] == f"{GOOD} sad"
    assert set(found) == {"question", "candidate", "scores", "answer"}
    drawn = graph.get_graph(xray=True).draw_mermaid()
    assert "optimize\\3asearch -.-> optimize\\3areview;" in drawn


def test_it_starts_from_the_state_and_streams_its_events(app: Any) -> None:
    start: Any = {"candidate": {"judge.instruction": "Judge hastily."}}
    parts = list(app().stream(start, stream_mode="custom", subgraphs=True))
    assert [part["kind"] for _, part in parts][:3] == ["accept", "ask", "evaluate"]
    assert parts[-1][1]["verdict"] is None
    with pytest.raises(UserError, match=r"unknown parameters \['x'\]"):
        app().invoke({"candidate": {"x": "y"}})


def test_it_runs_in_an_async_graph(app: Any) -> None:
    async def run() -> Any:
        events = [part async for _, part in app().astream({}, stream_mode="custom", subgraphs=True)]
        return events, await app().ainvoke({})

    events, found = asyncio.run(run())
    assert {"ask", "evaluate", "accept", "verdict"} == {one["kind"] for one in events}
    assert found["answer"] == f"{GOOD} sad"


def test_an_optimizer_of_ones_own_is_left_as_it_was(app: Any) -> None:
    mine = OptoPrime(OptoPrimeOptions(steps=2, minibatch=4))
    graph = app(optimizer=mine)
    assert graph.invoke({})["answer"] == f"{GOOD} sad"
    assert mine.state_dict()["step"] == 0


@pytest.mark.parametrize("again", [False, True], ids=["same process", "another process"])
def test_reviews_interrupt_the_users_graph(app: Any, tmp_path: Path, again: bool) -> None:
    saver = InMemorySaver()
    graph = app(saver, run_dir=tmp_path / "run", review="accepted")
    (request,) = graph.invoke({}, THREAD)["__interrupt__"]
    assert request.value["run_dir"] == str(tmp_path / "run")
    assert request.value["changed"] == ["judge.instruction"]
    if again:
        graph = app(saver, run_dir=tmp_path / "run", review="accepted")
    failing = {"verdict": "edit", "values": {"judge.instruction": "Judge hastily."}, "by": "ana"}
    (request,) = graph.invoke(Command(resume=failing), THREAD)["__interrupt__"]
    assert request.value["edits"][0]["outcome"] == "rejected"
    (request,) = graph.invoke(Command(resume="perhaps"), THREAD)["__interrupt__"]
    assert "not 'perhaps'" in request.value["error"]
    found = graph.invoke(Command(resume="approve"), THREAD)
    assert found["answer"] == f"{GOOD} sad"
    with Journal.read(tmp_path / "run") as journal:
        assert [one["verdict"] for one in journal.events("review")] == ["edit", "approve"]
        assert journal.lives == 3


def test_an_answer_from_elsewhere_is_taken(app: Any, tmp_path: Path) -> None:
    from optograph.optimizers import Review, file_review, pending_review

    graph = app(InMemorySaver(), run_dir=tmp_path / "run", review="accepted")
    graph.invoke({}, THREAD)
    with Journal.open(tmp_path / "run", counted=False) as journal:
        pending = pending_review(journal)
        assert pending is not None
        file_review(journal, pending[0], Review("reject", by="ben"))
    found = graph.invoke(Command(resume="see the journal"), THREAD)
    assert found["candidate"]["judge.instruction"] == "Judge."
    with pytest.raises(UserError, match="needs RunOptions"):
        app(review="accepted")


def test_a_workflow_with_interrupts_of_its_own_does_not_stop_the_graph_around(task: Task, tmp_path: Path) -> None:
    """What a workflow does in a LangGraph graph of its own is nobody's subgraph, wherever the loop runs."""
    from optograph import Parameter

    instruction = Parameter("Judge.", name="instruction")

    def ask(state: State) -> dict[str, Any]:
        return {"answer": interrupt("which mood?")}

    inner = StateGraph(State)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    inner.add_edge("ask", END)
    compiled = inner.compile()

    def workflow(text: str) -> str:
        paused = compiled.invoke({"question": text})
        assert "__interrupt__" in paused
        return "happy" if instruction.data else ""

    def outer(state: State) -> dict[str, Any]:
        result = optimize(
            workflow,
            task,
            optimizer=[("optoprime", {"steps": 1, "style": "compact"})],
            optimizer_lm=ScriptedLM(lambda request: {"instruction": "Judge it: happy or sad?"}),
            parameters=[instruction],
            options=RunOptions(run_dir=tmp_path / "run"),
        )
        return {"scores": {"after": result.test[1].mean}}

    graph = StateGraph(State)
    graph.add_node("outer", outer)
    graph.add_edge(START, "outer")
    graph.add_edge("outer", END)
    assert graph.compile(checkpointer=InMemorySaver()).invoke({}, THREAD) == {"scores": {"after": 0.5}}
