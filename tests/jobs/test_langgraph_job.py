"""A job over a LangGraph app as it is: its prompts are learned, its calls journalled, its source is part of the run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optograph.agents.langgraph import TracedGraph, trace_langgraph
from optograph.errors import UserError
from optograph.evals import Task
from optograph.graphs import BoolSpec, ChoiceSpec, FloatSpec, IntSpec, TextSpec
from optograph.jobs import load_job, resume_job, run_job
from optograph.jobs.estimate import estimate_job
from optograph.jobs.fingerprint import differences, fingerprint_of
from optograph.jobs.job import ExtraSection, WorkflowSection
from optograph.jobs.workflows import build_workflow, find_target, spec_of
from optograph.serving import ScriptedLM
from optograph.storage import Journal
from optograph.testing import LoopbackServer

APP = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph
from words import clean

JUDGE = "Judge the note."


class State(TypedDict, total=False):
    text: str
    cleaned: str
    mood: str


def build(model, strict: bool = False):
    def tidy(state):
        return {"cleaned": clean(state["text"])}

    def judge(state):
        return {"mood": model.invoke([("system", JUDGE), ("human", state["cleaned"])]).text}

    graph = StateGraph(State)
    graph.add_node("tidy", tidy)
    graph.add_node("judge", judge)
    graph.add_edge(START, "tidy")
    graph.add_edge("tidy", "judge")
    graph.add_edge("judge", END)
    return graph.compile()
"""
PLAIN = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

RULE = "Say happy, whatever the note says."


class State(TypedDict, total=False):
    text: str
    mood: str


def judge(state: State) -> State:
    return {"mood": "sad" if "carefully" in RULE and "rain" in state["text"] else "happy"}


_graph = StateGraph(State)
_graph.add_node("judge", judge)
_graph.add_edge(START, "judge")
app = _graph.compile()
"""
JOB = """
name = "moods"
[workflow]
target = "{target}"
[workflow.langgraph]
output = "mood"
{more}
[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
scorer = "choice"
[models]
task = "vllm/tiny@{url}"
[optimizer]
name = "optoprime"
steps = 2
minibatch = 4
"""


def reply(request: dict[str, Any]) -> str:
    """Propose careful words for every parameter; judge well where the prompt is careful, else say happy."""
    system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
    if "improve a program" in system:
        name = next(one for one in ("judge.JUDGE", "judge.RULE") if one in question)
        return json.dumps({"reasoning": "r", "answer": "CHANGE", "suggestion": {name: "Judge carefully, please."}})
    return "sad" if "carefully" in system and "rain" in question else "happy"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A model that obeys."""
    with LoopbackServer(reply, models=("tiny",)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with apps and data."""
    (tmp_path / "graph.py").write_text(APP)
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "words.py").write_text("def clean(text):\n    return text.strip()\n")
    for split, count in (("train", 8), ("dev", 12), ("test", 16)):
        rows = [
            {"text": f"{split} {number} {'rain' if number % 2 else 'sun'}", "label": "sad" if number % 2 else "happy"}
            for number in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def write(folder: Path, server: LoopbackServer) -> Callable[..., Path]:
    """Write the job file."""

    def make(target: str = "graph.py:build", more: str = "") -> Path:
        path = folder / "job.toml"
        path.write_text(JOB.format(target=target, more=more, url=server.url))
        return path

    return make


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget the modules of a test's folder."""
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name in ("words", "elsewhere") or name.startswith("optograph_target_"):
            del sys.modules[name]


def test_an_app_over_our_model_is_optimized(write: Callable[..., Path], folder: Path, server: LoopbackServer) -> None:
    path = write(more="model = { max_tokens = 7 }")
    before = (folder / "graph.py").read_text()
    result = run_job(load_job(path), folder, folder / "run", job_file=path)
    assert result.best.values == {"judge.JUDGE": "Judge carefully, please."}
    assert [one.mean for one in result.test] == [0.5, 1.0]
    asked = [one.body for one in server.received if one.path.endswith("completions")]
    assert {one["max_tokens"] for one in asked if len(one["messages"]) == 2 and "improve" not in str(one)} == {7}
    with Journal.read(folder / "run") as journal:
        assert len(journal.calls()) == len(asked) > 50, "calls of the app are journalled and counted"
    assert (folder / "graph.py").read_text() == before
    estimated = estimate_job(load_job(path), folder)
    assert not [note for note in estimated.notes if "could not be rehearsed" in note or "examples failed" in note]


def test_a_compiled_app_is_optimized_as_it_is(write: Callable[..., Path], folder: Path) -> None:
    path = write("plain.py:app")
    result = run_job(load_job(path), folder, folder / "run", job_file=path)
    assert result.best.values == {"judge.RULE": "Judge carefully, please."}
    assert result.test[1].mean == 1.0
    found = estimate_job(load_job(path), folder)
    assert any("takes no `lm` and no `model`" in note for note in found.notes)


@pytest.mark.parametrize("file", ["graph.py", "words.py"])
def test_a_run_whose_app_has_changed_is_refused(write: Callable[..., Path], folder: Path, file: str) -> None:
    path = write()
    run_job(load_job(path, ["budget.calls=200"]), folder, folder / "run", job_file=path)
    text = (folder / file).read_text()
    (folder / file).write_text(text + "\n# a remark\n")
    for name in [name for name in sys.modules if name == "words" or name.startswith("optograph_target_")]:
        del sys.modules[name]
    with pytest.raises(UserError, match=rf"(?s)source '{file}'.*a remark"):
        resume_job(folder / "run")


def test_other_options_of_the_app_are_another_run(write: Callable[..., Path], folder: Path) -> None:
    path = write()
    run_job(load_job(path, ["budget.calls=200"]), folder, folder / "run", job_file=path)
    path = write(more='rename = { "judge.JUDGE" = "judging" }')
    with pytest.raises(UserError, match=r"workflow\.langgraph\.rename"):
        run_job(load_job(path, ["budget.calls=200"]), folder, folder / "run", job_file=path)


def test_the_source_of_an_app_from_elsewhere_counts_too(folder: Path, tmp_path_factory: Any, task: Task) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "plain.py", other / "elsewhere.py")
    sys.path.append(str(other))
    prints = []
    for words in ("Say happy, whatever the note says.", "Say happy or sad."):
        (other / "elsewhere.py").write_text(PLAIN.replace("Say happy, whatever the note says.", words))
        sys.modules.pop("elsewhere", None)
        shutil.rmtree(other / "__pycache__", ignore_errors=True)
        section = WorkflowSection(target="elsewhere:app")
        workflow = build_workflow(find_target(section, folder), section, None, [])
        assert isinstance(workflow, TracedGraph)
        prints.append(fingerprint_of(workflow, task, {}, {}, {"score.py": "kept"}))
    assert set(prints[0].source) == {"score.py", "elsewhere"}
    assert any("Say happy or sad." in line for line in differences(*prints))


def test_an_app_that_was_traced_by_hand_has_its_source_taken(task: Task) -> None:
    from tests.agents.langgraph.apps import chain

    found = fingerprint_of(trace_langgraph(chain.build()), task, {}, {}, {})
    assert found.source[chain.__name__] == Path(chain.__file__).read_text()


def test_a_factory_may_take_what_it_likes(folder: Path) -> None:
    (folder / "ways.py").write_text(
        PLAIN
        + "\n\nasync def later(config): return app\n"
        + "def traced():\n    from optograph.agents.langgraph import trace_langgraph\n"
        + "    return trace_langgraph(app, output='mood')\n"
        + "def defaulted(model='gpt-x'):\n    assert model == 'gpt-x'\n    return app\n"
    )
    for name in ("app", "later", "traced", "defaulted"):
        section = WorkflowSection(target=f"ways.py:{name}")
        workflow = build_workflow(find_target(section, folder), section, ScriptedLM(["x"]), [])
        assert [one.name for one in workflow.parameters()] == ["judge.RULE"], name


@pytest.mark.parametrize(
    ("table", "spec"),
    [
        ({"kind": "float", "low": 0, "high": 1.5}, FloatSpec(0, 1.5)),
        ({"kind": "int", "low": 1}, IntSpec(1, None)),
        ({"kind": "bool"}, BoolSpec()),
        ({"kind": "text"}, TextSpec()),
        ({"choices": ["a", "b"]}, ChoiceSpec(["a", "b"])),
        ({"kind": "choice", "choices": [1, 2]}, ChoiceSpec([1, 2])),
    ],
)
def test_settings_have_specs(table: dict[str, Any], spec: Any) -> None:
    assert spec_of("a.b", ExtraSection(**table)) == spec


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "write { kind = 'float' or 'int'"),
        ({"kind": "text", "low": 1}, "write { kind"),
        ({"kind": "float", "choices": [1.0]}, "write { kind"),
        ({"kind": "choice"}, "write { kind"),
        ({"kind": "int", "low": 0.5}, "whole numbers, got 0.5"),
        ({"kind": "float", "low": 2, "high": 1}, "low=2.0 is above high=1.0"),
        ({"choices": []}, "non-empty"),
    ],
)
def test_settings_that_fit_nothing_are_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        spec_of("a.b", ExtraSection(**table))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('freezes = ["a"]', "unknown key 'workflow.langgraph.freezes'; did you mean 'freeze'?"),
        (
            "extra = { x = { kind = 'float', lo = 1 } }",
            "unknown key 'workflow.langgraph.extra.x.lo'; did you mean 'low'?",
        ),
        ("model = { max_token = 3 }", "workflow.langgraph.model has unknown keys ['max_token']"),
        ('freeze = ["judge.JUGE"]', "freeze names 'judge.JUGE', which is not in the app; it has ['judge.JUDGE']"),
    ],
)
def test_wrong_keys_are_named(write: Callable[..., Path], folder: Path, more: str, said: str) -> None:
    path = write(more=more)
    with pytest.raises(UserError) as raised:
        run_job(load_job(path), folder, folder / "run", job_file=path)
    assert said in str(raised.value)


def test_names_with_dots_can_be_set_on_the_command_line(write: Callable[..., Path]) -> None:
    job = load_job(
        write(),
        [
            "workflow.langgraph.rename.judge.JUDGE=judging",
            'workflow.langgraph.extra.judge.model.temperature={kind = "float", high = 1}',
            'workflow.langgraph.freeze=["tidy.text"]',
        ],
    )
    section = job.workflow.langgraph
    assert section is not None
    assert (section.rename, section.freeze) == ({"judge.JUDGE": "judging"}, ["tidy.text"])
    assert section.extra["judge.model.temperature"].high == 1


def test_the_table_is_for_langgraph_apps_only(folder: Path) -> None:
    (folder / "own.py").write_text("from optograph import Module\n\ndef build():\n    return Module()\n")
    section = WorkflowSection.model_validate({"target": "own.py:build", "langgraph": {"freeze": ["x"]}})
    with pytest.raises(UserError, match=r"gives a Module, so \[workflow.langgraph\] does not apply"):
        build_workflow(find_target(section, folder), section, None, [])
