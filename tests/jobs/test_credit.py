"""Credit per node: counted by hand for a branching workflow whose proposals, blame and edits are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypedDict

import pytest

from optograph.agents import Module
from optograph.evals import Example, SealedSplit, Task, exact
from optograph.graphs import Feedback, Parameter, op, propagate
from optograph.jobs import RunOptions, optimize
from optograph.jobs.credit import credit_of
from optograph.jobs.report_rows import SEARCH_SPLITS, latest_evaluations
from optograph.jobs.reporting import load_report
from optograph.report import Credit, NodeCredit
from optograph.serving import Request, ScriptedLM
from optograph.storage import CandidateRow, DecisionRow, EvaluationRow, Journal, content_hash


class Branches(Module):
    """Answers short texts in one op and long ones in another; the one for long texts is at fault."""

    def __init__(self) -> None:
        self.prompts = {
            name: Parameter(value, name=f"{name}.prompt")
            for name, value in (("short", "say"), ("long", "wrong"), ("polish", "nice"))
        }

        @op(name="short")
        def short(text: str, prompt: str) -> str:
            return text

        @op(name="long")
        def long(text: str, prompt: str) -> str:
            return text if prompt == "right" else text[:3]

        @op(name="polish")
        def polish(answer: str, prompt: str) -> str:
            return answer.strip()

        self.short, self.long, self.polish = short, long, polish

    def parameters(self) -> list[Parameter]:
        """Return the prompts."""
        return list(self.prompts.values())

    def forward(self, text: str) -> Any:
        """Answer."""
        way = self.long if len(text) > 10 else self.short
        prompt = self.prompts["long" if len(text) > 10 else "short"]
        return self.polish(way(text, prompt), self.prompts["polish"])


def texts(prefix: str) -> list[Example]:
    """Return nine texts, six of them long."""
    found = [f"{prefix} {number}" + (" and more words" if number % 3 else "") for number in range(9)]
    return [Example(f"{prefix}{number}", {"text": text}, text) for number, text in enumerate(found)]


PROPOSALS: list[tuple[dict[str, str], list[str]]] = [
    ({"polish": "clean"}, ["polish"]),  # blames the wrong one, changes nothing that matters: rejected
    ({"long": "almost", "polish": "tidy"}, ["long", "polish"]),  # rejected
    ({"long": "right"}, ["long"]),  # accepted
]


class Proposer:
    """Gives the proposals in turn, then says that nothing is left to improve."""

    def __init__(self, proposals: list[tuple[dict[str, str], list[str]]]) -> None:
        self.left = list(proposals)

    def __call__(self, request: Request) -> str:
        """Answer with the names that the prompt uses."""
        if not self.left:
            return "TERMINATE"
        change, blame = self.left.pop(0)
        found = re.findall(r"The variables are: (.*)\.", request.text)[-1].split(", ")
        names = {name.replace("_", ".").partition(".")[0]: name for name in found}
        suggestion = {names[key]: value for key, value in change.items()}
        answer = {
            "reasoning": "r",
            "blame": [names[key] for key in blame],
            "answer": "CHANGE",
            "suggestion": suggestion,
        }
        return json.dumps(answer)


@pytest.fixture
def task() -> Task:
    """Nine texts a split."""
    return Task(texts("a"), texts("b"), SealedSplit(texts("c")), exact(), "branches")


def by_name(credit: Credit | None) -> dict[str, NodeCredit]:
    assert credit is not None
    return {node.node: node for node in credit.nodes}


def test_the_counts_are_those_made_by_hand(task: Task, tmp_path: Path) -> None:
    options = RunOptions(run_dir=tmp_path / "run")
    stages: Any = [("optoprime", {"steps": 4, "minibatch": 9})]
    result = optimize(
        Branches(), task, optimizer=stages, optimizer_lm=ScriptedLM(Proposer(PROPOSALS), name="p"), options=options
    )
    assert result.best.values["long.prompt"] == "right"
    credit = load_report(tmp_path / "run").credit
    assert credit is not None
    assert [node.node for node in credit.nodes] in (["short", "long", "polish"], ["long", "short", "polish"])
    assert (credit.proposals, credit.runs_before) == (4, 9)
    nodes = by_name(credit)
    short, long, polish = nodes["short"], nodes["long"], nodes["polish"]
    # The minibatch of all nine train examples, traced under the start: each of the six long ones fails.
    assert (short.failed_before, short.passed_before) == (0, 3)
    assert (long.failed_before, long.passed_before) == (6, 0)
    assert (polish.failed_before, polish.passed_before) == (6, 3)
    assert (long.failed_after, long.passed_after > 0) == (0, True)
    assert polish.after == credit.runs_after >= 9
    assert [(one.named, one.tried, one.accepted, one.shared) for one in (short, long, polish)] == [
        (0, 0, 0, 0),
        (2, 2, 1, 0),
        (2, 2, 0, 0),
    ]
    assert long.gain == pytest.approx(6 / 9)
    assert polish.gain is None
    assert long.parameters == ["long.prompt"]


def test_a_gain_of_several_nodes_counts_for_each_and_says_so(task: Task, tmp_path: Path) -> None:
    proposals = [({"long": "right", "polish": "tidy"}, ["long"])]
    optimize(
        Branches(),
        task,
        optimizer=[("optoprime", {"steps": 1, "minibatch": 9})],
        optimizer_lm=ScriptedLM(Proposer(proposals), name="p"),
        options=RunOptions(run_dir=tmp_path / "run"),
    )
    nodes = by_name(load_report(tmp_path / "run").credit)
    assert [(nodes[name].accepted, nodes[name].shared) for name in ("short", "long", "polish")] == [
        (0, 0),
        (1, 1),
        (1, 1),
    ]
    assert nodes["long"].gain == nodes["polish"].gain == pytest.approx(6 / 9)


class Asked(TypedDict):
    """State of a small app."""

    text: str
    answer: str


RULE = "Answer the question as well as you can."


def test_nodes_of_a_langgraph_app_have_their_names(tmp_path: Path) -> None:
    from langgraph.graph import END, START, StateGraph

    from optograph.agents.langgraph import trace_langgraph

    lm = ScriptedLM(lambda request: request.text.rpartition(": ")[2] if "right" in request.text else "?", name="m")

    def answer(state: Asked) -> Any:
        return {"answer": lm(f"{RULE} : {state['text']}")}

    def check(state: Asked) -> Any:
        return {"answer": state["answer"].strip()}

    graph = StateGraph(Asked)
    graph.add_node("answer", answer)
    graph.add_node("check", check)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "check")
    graph.add_edge("check", END)
    app = trace_langgraph(graph.compile(), output="answer")
    rows = {name: [Example(f"{name}{n}", {"text": f"{name}{n}"}, f"{name}{n}") for n in range(4)] for name in "abc"}
    task = Task(rows["a"], rows["b"], SealedSplit(rows["c"]), exact(), "app")
    optimize(
        app,
        task,
        optimizer=[("optoprime", {"steps": 1, "minibatch": 4})],
        optimizer_lm=ScriptedLM(Proposer([({"answer": "Give the right answer."}, ["answer"])]), name="p"),
        options=RunOptions(run_dir=tmp_path / "run"),
    )
    nodes = by_name(load_report(tmp_path / "run").credit)
    assert list(nodes) == ["answer", "check"]
    first = nodes["answer"]
    assert first.parameters == ["answer.RULE"]
    assert (first.failed_before, first.named, first.tried, first.accepted, first.gain) == (4, 1, 1, 1, 1.0)
    assert (nodes["check"].failed_before, nodes["check"].parameters) == (4, [])


def test_inputs_outputs_and_routers_of_langgraph_apps_are_no_nodes() -> None:
    from langgraph.graph import END, START, StateGraph

    from optograph.agents.langgraph import trace_langgraph

    lm = ScriptedLM(lambda request: request.text.rpartition(" ")[2], name="m")

    def draft(state: Asked) -> Any:
        return {"answer": lm(f"{RULE} {state['text']}")}

    def route(state: Asked) -> str:
        return lm(f"Say what is to be done next in this case: {'polish' if state['answer'] else END}")

    def polish(state: Asked) -> Any:
        return {"answer": state["answer"].strip()}

    inner_graph = StateGraph(Asked)
    inner_graph.add_node("draft", draft)
    inner_graph.add_node("polish", polish)
    inner_graph.add_edge(START, "draft")
    inner_graph.add_conditional_edges("draft", route, ["polish", END])
    inner_graph.add_edge("polish", END)
    inner = inner_graph.compile()

    def ask(state: Asked) -> Any:
        return {"answer": inner.invoke({"text": state["text"], "answer": ""})["answer"]}

    graph = StateGraph(Asked)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    app = trace_langgraph(graph.compile(), output="answer")
    prefix = Parameter("Well, ", name="prefix.prompt")

    @op(name="before")
    def before(text: str, prompt: str) -> str:
        return prompt + text

    wanted = [prefix, *app.parameters()]
    journal = Journal.memory()
    candidate(journal, "start", {one.name: one.data for one in wanted if one.name})
    journal.add_decision(decision("start", "seed", 0.25))
    traced(journal, "start", "0", app(text=before("why?", prefix)), 0.0, wanted)
    nodes = by_name(counted(journal, "start"))
    assert {name: sorted(node.parameters) for name, node in nodes.items()} == {
        "before": ["prefix.prompt"],
        "ask/draft": ["ask/draft.RULE", "ask/draft.route.text"],
        "ask/polish": [],
        "ask": [],
    }


# Journals written by hand -----------------------------------------------------------------------------------------


def candidate(journal: Journal, name: str, values: dict[str, Any], parent: str | None = None) -> None:
    parents = (parent,) if parent else ()
    journal.add_candidate(CandidateRow(id=name, parents=parents, origin="o", values=journal.put(values)))


def decision(name: str, verdict: str, score: float | None = None, incumbent: str | None = None) -> DecisionRow:
    return DecisionRow(
        step=0, optimizer="o", candidate=name, incumbent=incumbent, verdict=verdict, reason="", score=score,
        incumbent_score=None if incumbent is None else 0.25, low=None, high=None, n=4, calls=0, seconds=0.0,
    )  # fmt: skip


def traced(journal: Journal, name: str, example: str, output: Any, score: float, wanted: list[Parameter]) -> None:
    feedback = Feedback(score)
    journal.add_evaluation(
        EvaluationRow(
            candidate=name, split="train", example=example, repeat=0, feedback=feedback.to_json(),
            subgraph=journal.put(propagate(output, feedback, wanted).to_json()),
        )
    )  # fmt: skip


def counted(journal: Journal, final: str | None) -> Credit | None:
    rows = [row for row in latest_evaluations(journal) if row.split in SEARCH_SPLITS]
    return credit_of(journal, rows, final)


def test_a_parameter_belongs_to_the_first_calls_that_it_reaches() -> None:
    greeting, rules = Parameter("Hello", name="greeting"), Parameter("Rules", name="rules")

    @op(name="ask")
    def ask(prompt: str) -> str:
        return f"{prompt} {rules.data}"

    @op(name="check")
    def check(answer: str) -> str:
        return answer

    @op(name="unrelated")
    def unrelated(text: str) -> str:
        return text

    journal = Journal.memory()
    candidate(journal, "start", {"greeting": "Hello", "rules": "Rules", "spare.prompt": "x"})
    journal.add_decision(decision("start", "seed", 0.25))
    for number in range(2):
        output = check(ask(greeting + "!")) + unrelated("text")
        traced(journal, "start", str(number), output, float(number), [greeting, rules])
    credit = counted(journal, "start")
    nodes = by_name(credit)
    assert list(nodes) == ["ask", "check", "spare"]  # no parameter leads to unrelated, so no feedback goes there
    assert nodes["ask"].parameters == ["greeting", "rules"]
    assert nodes["check"].parameters == []
    assert nodes["spare"].parameters == ["spare.prompt"]
    assert (nodes["check"].failed_before, nodes["check"].passed_before) == (1, 1)
    assert (nodes["spare"].before, nodes["spare"].after) == (0, 0)
    assert credit is not None
    assert (credit.runs_before, credit.runs_after, credit.proposals) == (2, 0, 0)


def test_what_the_journal_lacks_is_left_out() -> None:
    assert counted(Journal.memory(), None) is None
    journal = Journal.memory()
    candidate(journal, "start", {"judge.demos": []})
    assert counted(journal, "start") is None  # nothing was traced, proposed or changed
    candidate(journal, "set 1", {"judge.demos": [1]}, "start")
    candidate(journal, "set 2", {"judge.demos": [2]}, "start")
    journal.add_decision(decision("start", "seed", 0.25))
    journal.add_decision(decision("set 2", "accepted", 0.75, "start"))
    credit = counted(journal, "set 2")
    assert credit is not None
    assert (credit.runs_before, credit.runs_after, credit.proposals) == (0, 0, 0)
    assert credit.nodes == [
        NodeCredit(node="judge", parameters=["judge.demos"], tried=2, accepted=1, gain=0.5),
    ]


def test_events_of_other_forms_are_passed_over_and_unusable_values_counted() -> None:
    journal = Journal.memory()
    candidate(journal, "start", {"a.prompt": "x", "b.prompt": "y"})
    journal.add_decision(decision("start", "seed", 0.25))
    journal.add_event("optoprime.step", step=0, result="unchanged", reason="no part in the outputs")
    for blame, kind in ((["a.prompt"], "invalid"), ([], "unchanged"), (["a.prompt", "b.prompt"], "updated")):
        journal.add_event("optoprime.step", step=1, blame=blame, outcomes={"a.prompt": [kind, ""]})
    credit = counted(journal, "start")
    nodes = by_name(credit)
    assert credit is not None
    assert credit.proposals == 3
    assert [(nodes[name].named, nodes[name].unusable) for name in "ab"] == [(2, 1), (1, 0)]


def test_damage_costs_what_it_holds_and_no_more() -> None:
    prompt = Parameter("x", name="a.prompt")

    @op(name="a")
    def a(text: str) -> str:
        return text

    journal = Journal.memory()
    candidate(journal, "start", {"a.prompt": "x"})
    lost = content_hash("never stored")
    journal.add_candidate(CandidateRow(id="lost", parents=("start",), origin="o", values=lost))
    journal.add_decision(decision("start", "seed", 0.25))
    journal.add_decision(decision("lost", "accepted", 0.5, "start"))
    traced(journal, "start", "whole", a(prompt), 0.0, [prompt])
    for example, digest in (("lost", lost), ("no graph", journal.put({"version": 99}))):
        row = EvaluationRow(
            candidate="start", split="dev", example=example, repeat=0, feedback=Feedback(1.0).to_json(), subgraph=digest
        )
        journal.add_evaluation(row)
    nodes = by_name(counted(journal, "lost"))
    assert (nodes["a"].failed_before, nodes["a"].passed_before, nodes["a"].tried) == (1, 0, 0)
