"""Steps: typed in and out, traced, repaired where an answer does not fit."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from optograph.agents import Module, Step, StepOptions
from optograph.errors import ModelError, UserError
from optograph.graphs import OpError, applying, op
from optograph.serving import Capabilities, Request, ScriptedLM


class Question(BaseModel):
    """A question."""

    text: str


class Answer(BaseModel):
    """An answer."""

    number: int
    why: str = ""


class Mood(BaseModel):
    """A mood."""

    mood: Literal["happy", "sad"]


class Free(BaseModel):
    """Free text."""

    reply: str


def json_step(lm: ScriptedLM, **options: Any) -> Step:
    return Step("solve", lm=lm, inputs=Question, output=Answer, instruction="Solve.", options=StepOptions(**options))


def mood_step(lm: ScriptedLM, **options: Any) -> Step:
    return Step("feel", lm=lm, inputs=Question, output=Mood, instruction="Feel.", options=StepOptions(**options))


def test_the_output_is_typed_and_its_fields_are_traced() -> None:
    lm = ScriptedLM(['{"number": 4, "why": "2+2"}'])
    value = json_step(lm)(text="2+2?")
    assert value.data == Answer(number=4, why="2+2")
    number = value.number
    assert number.data == 4
    assert value in number.parents
    assert {parent.name for parent in value.parents} >= {"solve.instruction", "solve.demos"}


def test_the_call_hangs_under_the_step() -> None:
    value = json_step(ScriptedLM(['{"number": 1}']))(text="?")
    (call,) = (value.info or {})["calls"]
    assert call["messages"][0] == {"role": "system", "content": "Solve."}
    assert call["texts"] == ['{"number": 1}']
    assert call["identity"]["served_name"] == "scripted"


def test_a_raw_call_in_an_op_shows_too() -> None:
    lm = ScriptedLM(["hello"])

    @op
    def shout(text: str) -> str:
        return lm(text).upper()

    from optograph.agents import recording_calls

    with recording_calls():
        value = shout("hi")
    assert value.data == "HELLO"
    assert (value.info or {})["calls"][0]["texts"] == ["hello"]


def test_an_answer_that_does_not_fit_is_asked_for_again() -> None:
    lm = ScriptedLM(["I think four", '{"number": "many"}', '{"number": 4}'])
    assert json_step(lm, repairs=2)(text="?").data.number == 4
    last = lm.requests[-1].messages
    assert [message.role for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "number" in last[-1].content


def test_the_repairs_are_bounded_and_the_failure_is_typed() -> None:
    lm = ScriptedLM(["no", "no"])
    with pytest.raises(OpError) as caught:
        json_step(lm)(text="?")
    assert isinstance(caught.value.original, ModelError)
    assert len(lm.requests) == 2
    assert {parent.name for parent in caught.value.value.parents} >= {"solve.instruction"}


def test_a_truncated_answer_is_not_used() -> None:
    lm = ScriptedLM(['{"number": 4, "why": "a b c d e"}', '{"number": 5}'])
    assert json_step(lm, max_tokens=3)(text="?").data.number == 5


def test_the_schema_is_spelled_out_where_the_server_cannot_enforce_it() -> None:
    lm = ScriptedLM(['{"number": 4}'], capabilities=Capabilities())
    json_step(lm)(text="?")
    assert lm.requests[0].schema is None
    assert '"number"' in lm.requests[0].messages[0].content


def test_demonstrations_become_turns() -> None:
    lm = ScriptedLM(['{"number": 4}'])
    step = json_step(lm)
    step.demos.set([{"text": "1+1?", "number": 2}])
    step(text="2+2?")
    contents = [message.content for message in lm.requests[0].messages]
    assert contents == ["Solve.", "1+1?", '{"number": 2}', "2+2?"]


def test_a_candidate_changes_the_prompt_in_its_scope_only() -> None:
    lm = ScriptedLM(lambda request: json.dumps({"number": 1, "why": request.messages[0].content}))
    step = json_step(lm)
    with applying({"solve.instruction": "Solve slowly."}):
        assert step(text="?").data.why == "Solve slowly."
    assert step(text="?").data.why == "Solve."


def test_choices() -> None:
    lm = ScriptedLM(["happy", "I am sad."])
    step = mood_step(lm)
    assert step(text="?").mood.data == "happy"
    assert step(text="?").mood.data == "sad"
    assert lm.requests[0].schema is not None


def test_free_text() -> None:
    step = Step("write", lm=ScriptedLM([" <think>x</think> hi "]), inputs=Question, output=Free, instruction="Write.")
    assert step(text="?").reply.data == "hi"


def labels(request: Request) -> dict[str, float]:
    """A model that is biased towards happy, and a little less so where the text says rain."""
    sad = 0.3 if "rain" in request.messages[-1].content else 0.1
    return {" happy": math.log(0.6), "Sad": math.log(sad), "the": math.log(0.05)}


def test_label_scores_and_batch_calibration() -> None:
    lm = ScriptedLM(lambda request: "happy", labels=labels)
    step = mood_step(lm, answer="score")
    assert step(text="rain").mood.data == "happy"
    step.calibrate([{"text": "rain"}, {"text": "sun"}])
    assert step(text="rain").mood.data == "sad"
    assert step(text="sun").mood.data == "happy"
    calls = len(lm.requests)
    assert step(text="rain").mood.data == "sad"
    assert len(lm.requests) == calls + 1


def test_calibration_is_measured_once_however_many_ask() -> None:
    lm = ScriptedLM(lambda request: "happy", labels=labels)
    step = mood_step(lm, answer="score")
    step.calibrate([{"text": f"rain {number}"} for number in range(4)])

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(step.acall(text="sun") for _ in range(10)))

    assert {value.data.mood for value in asyncio.run(all_at_once())} == {"happy"}
    assert len(lm.requests) == 4 + 10


def test_calibration_is_charged_to_no_example() -> None:
    step = mood_step(ScriptedLM(lambda request: "happy", labels=labels), answer="score")
    step.calibrate([{"text": f"rain {number}"} for number in range(4)])
    value = step(text="sun")
    assert len((value.info or {})["calls"]) == 1


def test_a_model_without_the_labels_is_a_typed_failure() -> None:
    step = mood_step(ScriptedLM(lambda request: "x", labels=lambda request: {"x": 0.0}), answer="score")
    with pytest.raises(OpError, match="none of the labels"):
        step(text="?")


def test_wrong_use_is_refused_early() -> None:
    lm = ScriptedLM([])
    with pytest.raises(UserError, match="needs an output with one field of type Literal"):
        json_step(lm, answer="score")
    with pytest.raises(UserError, match="only answer='score' can be calibrated"):
        mood_step(lm).calibrate([])
    with pytest.raises(UserError, match="repairs >= 0"):
        StepOptions(repairs=-1)

    class Clash(BaseModel):
        instruction: str

    with pytest.raises(UserError, match="rename the input fields"):
        Step("s", lm=lm, inputs=Clash, output=Mood, instruction="x")

    class Alike(BaseModel):
        kind: Literal["not_spam", "not_sure"]

    with pytest.raises(UserError, match="begin alike"):
        Step("s", lm=lm, inputs=Question, output=Alike, instruction="x", options=StepOptions(answer="score"))
    with pytest.raises(OpError, match="does not fit Question"):
        mood_step(lm)(wrong="?")


def test_modules_find_steps_and_export_them(tmp_path: Any) -> None:
    class Two(Module):
        def __init__(self) -> None:
            self.first = mood_step(ScriptedLM([]))
            self.rest = {"solve": [json_step(ScriptedLM([]))]}

    two = Two()
    assert [module.name for module in two.modules() if isinstance(module, Step)] == ["solve", "feel"]
    assert sorted(path.name for path in two.export(tmp_path)) == [
        "feel.demos.json",
        "feel.instruction.txt",
        "solve.demos.json",
        "solve.instruction.txt",
    ]
    assert (tmp_path / "feel.instruction.txt").read_text() == "Feel.\n"
    state = two.state_dict()
    two.first.instruction.set("Feel more.")
    two.load_state_dict(state)
    assert two.first.instruction.data == "Feel."
    with pytest.raises(UserError, match="has no forward"):
        two()
