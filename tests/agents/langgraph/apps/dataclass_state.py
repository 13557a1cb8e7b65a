"""State as a dataclass; callable objects as nodes, their prompts in attributes; the whole state in an f-string.

The input is a State, so the start writes all of its fields.
"""

from dataclasses import asdict, dataclass
from typing import Any

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import EchoModel


@dataclass
class State:
    text: str
    language: str = "French"
    translation: str = ""
    back: str = ""
    report: str = ""
    size: int = 0


class Translator:
    def __init__(self, model: EchoModel, instruction: str) -> None:
        self.model = model
        self.instruction = instruction

    def __call__(self, state: State) -> dict[str, Any]:
        reply = self.model.invoke([("system", self.instruction), ("human", f"Into {state.language}: {state.text}")])
        return {"translation": reply.content}


class BackTranslator:
    prompt = "Translate the text back into English."

    def __init__(self, model: EchoModel) -> None:
        self._model = model

    def run(self, state: State) -> dict[str, Any]:
        return {"back": self._model.invoke([("system", self.prompt), ("human", state.translation)]).content}

    __call__ = run


class Reporter:
    def __init__(self, model: EchoModel, prompts: dict[str, str]) -> None:
        self.model = model
        self.prompts = prompts

    def __call__(self, state: State) -> dict[str, Any]:
        reply = self.model.invoke([("system", self.prompts["report"]), ("human", f"This is the record: {state}")])
        return {"report": reply.content}


def measure(state: State) -> dict[str, Any]:
    return {"size": sum(len(str(value)) for value in asdict(state).values()) + isinstance(state, State)}


def build() -> Any:
    model = EchoModel()
    builder = StateGraph(State)
    builder.add_node("translate", Translator(model, "Translate so that a child understands it."))
    builder.add_node("back", BackTranslator(model))
    builder.add_node("report", Reporter(model, {"report": "Compare the text with its translation."}))
    builder.add_node("measure", measure)
    builder.add_edge(START, "translate")
    builder.add_edge("translate", "back")
    builder.add_edge("back", "report")
    builder.add_edge("report", "measure")
    builder.add_edge("measure", END)
    return builder.compile()


INPUT = State(text="The moon pulls the sea")
EDGES = {
    ("__start__", "translate", "language"),
    ("__start__", "translate", "text"),
    ("translate", "back", "translation"),
    ("__start__", "report", "text"),
    ("__start__", "report", "language"),
    ("translate", "report", "translation"),
    ("back", "report", "back"),
    ("__start__", "report", "report"),
    ("__start__", "report", "size"),
    ("__start__", "measure", "text"),
    ("__start__", "measure", "language"),
    ("translate", "measure", "translation"),
    ("back", "measure", "back"),
    ("report", "measure", "report"),
    ("__start__", "measure", "size"),
    ("__start__", "__end__", "text"),
    ("__start__", "__end__", "language"),
    ("translate", "__end__", "translation"),
    ("back", "__end__", "back"),
    ("report", "__end__", "report"),
    ("measure", "__end__", "size"),
}
PROMPTS = {
    ("translate", "Translate so that a child understands it."),
    ("back", "Translate the text back into English."),
    ("report", "Compare the text with its translation."),
    ("report", "This is the record: {state}"),
}
OTHER = {"Into {state.language}: {state.text}"}
