"""What the adapter takes apart in LangChain and in Python: a failure here says which part of it has changed."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnableSequence
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langchain_core.tracers.context import register_configure_hook
from pydantic import BaseModel, Field

from optograph.agents.langgraph import trace_langgraph
from optograph.agents.langgraph.functions import GlobalsView, global_names
from optograph.agents.langgraph.sites import Site
from optograph.graphs import applying
from tests.agents.langgraph.small import State, chain

# -- LangChain ------------------------------------------------------------------------------------

_recorder: ContextVar[Any] = ContextVar("recorder", default=None)
register_configure_hook(_recorder, inheritable=True)


class _Recorder(BaseCallbackHandler):
    run_inline = True

    def __init__(self, inside: ContextVar[str]) -> None:
        self.inside = inside
        self.seen: list[tuple[str, str]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.seen.append(("start", self.inside.get()))

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.seen.append((response.generations[0][0].message.content, self.inside.get()))


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_a_handler_of_a_hook_runs_in_the_context_of_the_model_call(way: str) -> None:
    inside: ContextVar[str] = ContextVar("inside", default="outside")
    model = FakeListChatModel(responses=["ok"])

    recorder = _Recorder(inside)

    def node(state: State) -> State:
        inside.set("node")
        _recorder.set(recorder)
        list(model.stream("hi")) if way == "stream" else model.invoke("hi")
        return {}

    async def anode(state: State) -> State:
        inside.set("node")
        _recorder.set(recorder)
        if way == "astream":
            _ = [one async for one in model.astream("hi")]
        else:
            await model.ainvoke("hi")
        return {}

    if way.startswith("a"):
        asyncio.run(chain(("a", anode)).ainvoke({}))
    else:
        chain(("a", node)).invoke({})
    assert recorder.seen == [("start", "node"), ("ok", "node")], "calls would not be hung on the node that made them"


def test_the_parts_of_runnables_are_where_they_are_looked_for() -> None:
    step = RunnableLambda(lambda data: data)
    sequence = step | step | step
    assert isinstance(sequence, RunnableSequence)
    assert (sequence.first, sequence.middle, sequence.last) == (step, [step], step)
    assert sequence.steps == [step, step, step]
    assert set(RunnableParallel(a=step).steps__) == {"a"}
    assert "func" in vars(step), "lambda_site() sets func on a copy"
    bound: Any = FakeListChatModel(responses=["ok"]).bind(instructions="x")
    assert bound.kwargs == {"instructions": "x"} and isinstance(bound.bound, FakeListChatModel)


def test_langchains_pool_hands_the_context_on() -> None:
    word: ContextVar[str] = ContextVar("word", default="outside")

    def run() -> list[str]:
        word.set("inside")
        with ContextThreadPoolExecutor(2) as pool:
            return [pool.submit(word.get).result(), *pool.map(lambda _: word.get(), range(2))]

    assert issubclass(ContextThreadPoolExecutor, ThreadPoolExecutor), "it stands for the standard library's pool"
    assert copy_context().run(run) == ["inside"] * 3, "a node's threads would see no candidate"


def test_the_texts_of_prompts_are_where_they_are_looked_for() -> None:
    prompt = ChatPromptTemplate([("system", "Be {mood}."), HumanMessage("Hello.")], partial_variables={"mood": "kind"})
    system: Any = prompt.messages[0]
    assert system.prompt.template == "Be {mood}." and prompt.partial_variables == {"mood": "kind"}
    made = system.model_copy()
    made.prompt = system.prompt.model_copy()
    made.prompt.template = "Do be {mood}."
    other = prompt.model_copy()
    other.messages = [made, prompt.messages[1]]
    assert other.invoke({}).to_messages()[0].content == "Do be kind.", "a copy of a template would keep the old text"
    assert prompt.invoke({}).to_messages()[0].content == "Be kind.", "the original template would be changed"
    assert PromptTemplate.from_template("Say {x}.").template == "Say {x}."


def test_the_parts_of_tools_are_where_they_are_looked_for() -> None:
    @tool
    def add(left: int, right: int) -> int:
        """Add two numbers."""
        return left + right

    made: Any = add.model_copy()
    made.func = lambda left, right: left - right
    made.description = "Other words."
    assert made.invoke({"left": 3, "right": 1}) == 2 and add.invoke({"left": 3, "right": 1}) == 4
    assert (add.description, made.description, made.coroutine) == ("Add two numbers.", "Other words.", None)


# -- CPython --------------------------------------------------------------------------------------

WORD = "module"
PROMPT = "Answer in one short sentence."


class _Counting(Site):
    def __init__(self, values: Iterator[Any]) -> None:
        self.values = values

    def now(self) -> Any:
        return next(self.values)


def _moved(function: Any, site: Any) -> Any:
    view = GlobalsView(function.__globals__, {"WORD": site})
    return types.FunctionType(function.__code__, view, function.__name__, None, function.__closure__)


def test_the_interpreter_asks_a_dict_subclass_for_each_global_each_time() -> None:
    def read() -> str:
        return WORD

    moved = _moved(read, _Counting(iter([str(number) for number in range(1000)])))
    got = [moved() for _ in range(1000)]  # far beyond the calls after which CPython specializes an instruction
    assert got == [str(number) for number in range(1000)], "a candidate would get the text of another one"
    assert read() == "module"


def test_every_kind_of_code_inside_a_function_asks_too() -> None:
    def read() -> list[str]:
        def inner() -> str:
            return WORD

        class Holder:
            def word(self) -> str:
                return WORD

        return [WORD, inner(), (lambda: WORD)(), *(WORD for _ in range(1)), *[WORD for _ in range(1)], Holder().word()]

    assert _moved(read, _Counting(iter("abcdef")))() == list("abcdef"), "a text in inner code would stay as it was"


def test_the_body_of_a_class_asks_the_dict_itself() -> None:
    def read() -> tuple[str, str]:
        class Holder:
            word = WORD

        return WORD, Holder.word

    assert _moved(read, _Counting(iter(["new"])))() == ("new", "module"), "texts for class bodies could be offered now"
    assert "WORD" in global_names(read.__code__)
    assert "WORD" not in global_names(_only_in_a_class.__code__), "a text would be offered that cannot be changed"


def _only_in_a_class() -> Any:
    class Holder:
        word = WORD

    return Holder


def test_builtins_modules_and_imports_work_in_a_moved_function() -> None:
    def read() -> Any:
        from pathlib import Path as Imported

        return len(WORD), Imported is Path, sys is globals()["sys"], "WORD" in globals(), globals().get("nothing")

    assert _moved(read, _Counting(iter(["four"])))() == (4, True, True, True, None)

    def missing() -> Any:
        return no_such_name  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(NameError, match="no_such_name"):
        _moved(missing, _Counting(iter(())))()


def test_a_node_may_declare_a_class_of_its_own() -> None:
    def node(state: State) -> State:
        class Reply(BaseModel):
            text: str = Field(min_length=1)

        return {"plain": Reply(text=PROMPT).text}

    traced = trace_langgraph(chain(("a", node)))
    assert [one.name for one in traced.prompts] == ["a.PROMPT"]
    assert traced.invoke({})["plain"] == PROMPT
    with applying({"a.PROMPT": "Say something else."}):
        assert traced.invoke({})["plain"] == "Say something else."
