"""`optograph inspect` lists the prompts of an app, and says what is wrong where it finds none."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

APP = '''
import sys
from typing import TypedDict
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from tones import TONE

print("a user's print at import")
PLAN = "Make an outline\\nof three points."


class State(TypedDict, total=False):
    topic: str
    plan: str
    draft: str


def make(model=None):
    def plan(state: State) -> State:
        """Plan the text."""
        if model is not None:
            return {"plan": model.invoke([SystemMessage(PLAN)]).text}
        return {"plan": f"{PLAN} {TONE} {state['topic']}"}

    def draft(state: State) -> State:
        return {"draft": PLAN + "Write a draft along the outline, and say nothing else." + state["plan"]}

    inner = StateGraph(State)
    inner.add_node("polish", lambda state: {"draft": "Polish the language, please. " + state["draft"]})
    inner.add_edge(START, "polish")
    graph = StateGraph(State)
    graph.add_node("plan", plan)
    graph.add_node("draft", draft)
    graph.add_node("team", inner.compile())
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: "draft" if state["plan"] else END, ["draft", END])
    graph.add_edge("draft", "team")
    return graph


app = make().compile()
uncompiled = make()
number = 17
settings = {"a": 1}


def build():
    return make().compile()


async def abuild(config):
    return make().compile()


def over(model):
    return make(model).compile()


def needs(database, lm):
    return app


def broken():
    raise OSError("no such database")


def gives_text():
    return "text"
'''
NAMES = ["plan.PLAN", "plan.TONE", "draft.text", "team/polish.text"]


@pytest.fixture
def project(folder: Path) -> Path:
    """A folder with an app that imports what stands beside it."""
    package = folder / "src" / "flow"
    package.mkdir(parents=True)
    (package / "graph.py").write_text(APP)
    (package / "tones.py").write_text('TONE = "Speak like a friendly neighbour."\n')
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from .graph import app\n")
    return folder


@pytest.mark.parametrize("name", ["app", "build", "abuild", "over"])
def test_prompts_are_listed_with_node_file_and_line(here: Command, project: Path, name: str) -> None:
    done = here("inspect", f"src/flow/graph.py:{name}", "--json")
    assert done.code == 0, done.err
    assert "a user's print" not in done.out
    found = done.data["prompts"]
    assert {one["name"] for one in found} == set(NAMES)
    (plan, also) = [one for one in found if one["name"] == "plan.PLAN"]
    assert (plan["node"], also["node"], plan["where"]) == ("plan", "draft", "global")
    assert plan["text"] == "Make an outline\nof three points."
    assert (
        Path(plan["file"]).name == "graph.py"
        and plan["line"] == APP.splitlines().index('PLAN = "Make an outline\\nof three points."') + 1
    )
    (tone,) = [one for one in found if one["name"] == "plan.TONE"]
    assert (Path(tone["file"]).name, tone["line"]) == ("tones.py", 1)
    nodes = {one["node"]: one for one in done.data["nodes"]}
    assert list(nodes) == ["plan", "draft", "team", "team/polish"]
    assert (nodes["plan"]["then"], nodes["plan"]["conditional"]) == (["draft", "__end__"], ["draft", "__end__"])
    assert (nodes["draft"]["then"], nodes["draft"]["conditional"]) == (["team"], [])
    assert [nodes[one]["kind"] for one in ("draft", "team", "team/polish")] == ["function", "graph", "function"]
    assert nodes["plan"]["channels"] == ["topic", "plan", "draft"]


def test_the_tables_show_each_parameter_once(here: Command, project: Path) -> None:
    done = here("inspect", "src/flow/graph.py:app")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if line.startswith("plan.PLAN")]
    assert len(rows) == 1 and "plan, draft" in rows[0] and "Make an outline of three" in rows[0]
    assert "src/flow/graph.py:9" in rows[0]
    assert "4 prompts. [workflow.langgraph]" in done.out
    nodes = done.out[done.out.index("then (? if chosen)") :]
    assert "draft?, END?" in nodes


def test_whole_texts_are_shown_as_they_are(here: Command, project: Path) -> None:
    done = here("inspect", "src/flow/graph.py:app", "--full")
    assert "plan.PLAN  global of plan, draft, src/flow/graph.py:9\nMake an outline\nof three points.\n" in done.out


def test_modules_are_found_from_the_folder(process: Command, project: Path) -> None:
    (project / "tones.py").write_text('TONE = "Speak like a friendly neighbour."\n')
    done = process("inspect", "src.flow.graph:app", "--json")
    assert done.code == 0, done.err
    assert {one["name"] for one in done.data["prompts"]} == set(NAMES)


def test_a_job_names_freezes_and_adds(here: Command, project: Path) -> None:
    (project / "job.toml").write_text(
        textwrap.dedent(
            """
            [workflow]
            target = "src/flow/graph.py:over"
            [workflow.langgraph]
            output = "draft"
            freeze = ["plan.TONE"]
            rename = { "draft.text" = "writing" }
            extra = { "plan.model.temperature" = { kind = "float", low = 0, high = 1 } }
            model = { max_tokens = 40, temperature = 0.5 }
            [task]
            train = "train.jsonl"
            dev = "dev.jsonl"
            test = "test.jsonl"
            """
        )
    )
    done = here("inspect", "job.toml", "--json")
    assert done.code == 0, done.err
    assert {one["name"] for one in done.data["prompts"]} == {"plan.PLAN", "plan.TONE", "writing", "team/polish.text"}
    assert [one["name"] for one in done.data["prompts"] if one["frozen"]] == ["plan.TONE"]
    (setting,) = done.data["settings"]
    assert setting == {"name": "plan.model.temperature", "kind": "float", "value": 0.5, "trainable": True}
    shown = here("inspect", "job.toml", "--set", "workflow.langgraph.rename.plan.PLAN=the plan").out
    assert "plan.TONE (frozen)" in shown and "the plan" in shown and "plan.model.temperature" in shown
    wrong = here("inspect", "job.toml", "--set", 'workflow.langgraph.freeze=["plan.TONES"]')
    assert wrong.code == 2 and "freeze names 'plan.TONES', which is not in the app; it has ['plan.PLAN'" in wrong.err


def test_a_workflow_of_our_own_shows_its_parameters(here: Command, server: Any) -> None:
    done = here("inspect", "job.toml", "--json")
    assert [(one["name"], one["kind"], one["trainable"]) for one in done.data["parameters"]] == [
        ("judge.instruction", "text", True),
        ("judge.demos", "demos", True),
        ("weight", "float", False),
    ]
    shown = here("inspect", "job.toml").out
    assert "weight (frozen)" in shown and "3 parameters." in shown


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("src/flow/graph.py:uncompiled", "takes a compiled StateGraph, not StateGraph: call .compile() first"),
        ("src/flow/graph.py:nothing", "has no 'nothing'; it defines ['State', 'abuild', 'app', 'broken'"),
        ("src/flow/graph.py:number", "is int: name a function that builds the workflow, or a compiled LangGraph app"),
        ("src/flow/graph.py:settings", "is dict: name a function"),
        ("src/flow/graph.py:needs", "the factory asks for ['database']; it may take ['lm', 'train'] only"),
        ("src/flow/graph.py:broken", "the factory 'broken' failed at graph.py:"),
        ("src/flow/graph.py:gives_text", "gives a str: name a compiled LangGraph app"),
        ("src/flow/graph.py", "names no app: write src/flow/graph.py:NAME; it holds the apps ['app']"),
        ("src/flow/grph.py:app", "grph.py' does not exist: give the path of the file"),
        ("src/flow/inner.py:app", "a file in a package is named as package.module:NAME"),
        ("no.such.module:app", "cannot import 'no.such.module'"),
        ("nosuch.toml", "job file 'nosuch.toml' does not exist"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(here: Command, project: Path, target: str, said: str) -> None:
    done = here("inspect", target)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_settings_are_of_jobs_only(here: Command, project: Path) -> None:
    done = here("inspect", "src/flow/graph.py:app", "--set", "a=1", "--json")
    assert done.code == 2 and "--set changes a job" in done.data["error"]["message"]


def test_an_app_without_prompts_says_so(here: Command, folder: Path) -> None:
    (folder / "plain.py").write_text(
        "from langgraph.graph import START, StateGraph\n"
        "graph = StateGraph(dict)\ngraph.add_node('a', lambda state: state)\ngraph.add_edge(START, 'a')\n"
        "app = graph.compile()\n"
    )
    done = here("inspect", "plain.py:app")
    assert done.code == 0, done.err
    assert "No prompt was found in the app's code" in done.out
    assert json.loads(here("inspect", "plain.py:app", "--json").out)["prompts"] == []
