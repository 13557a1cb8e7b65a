"""A subgraph with a state of its own, called inside a node.

The calling node is not done when the inner graph runs: the inner input comes from what the node had read by then. The
node reads the inner graph's output.
"""

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

SEARCH_PROMPT = "List what an encyclopedia would say."


class ResearchState(TypedDict, total=False):
    subject: str
    notes: str
    report: str


class ResearchInput(TypedDict):
    subject: str


class ResearchOutput(TypedDict):
    report: str


class State(TypedDict, total=False):
    question: str
    background: str
    answer: str


def search(state: ResearchState) -> dict[str, Any]:
    return {"notes": model.invoke([("system", SEARCH_PROMPT), ("human", state["subject"])]).content}


def write_up(state: ResearchState) -> dict[str, Any]:
    subject = state["subject"]
    reply = model.invoke(
        [("system", "Turn the notes into one paragraph."), ("human", f"On {subject}: {state['notes']}")]
    )
    return {"report": reply.content}


def make_research() -> Any:
    builder = StateGraph(ResearchState, input_schema=ResearchInput, output_schema=ResearchOutput)
    builder.add_node(search)
    builder.add_node(write_up)
    builder.add_edge(START, "search")
    builder.add_edge("search", "write_up")
    builder.add_edge("write_up", END)
    return builder.compile()


research_graph = make_research()


def research(state: State, config: RunnableConfig) -> dict[str, Any]:
    found = research_graph.invoke({"subject": state["question"].split()[-1]}, config)
    return {"background": found["report"]}


def answer(state: State) -> dict[str, Any]:
    messages = [("system", "Answer with the background in mind."), ("human", state["question"])]
    return {"answer": model.invoke([*messages, ("human", state["background"])]).content}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node(research)
    builder.add_node(answer)
    builder.add_edge(START, "research")
    builder.add_edge("research", "answer")
    builder.add_edge("answer", END)
    return builder.compile()


INPUT = {"question": "What moves the tides"}
EDGES = {
    ("__start__", "research", "question"),
    ("__start__", "research/search", "subject"),
    ("__start__", "research/write_up", "subject"),
    ("research/search", "research/write_up", "notes"),
    ("research/write_up", "research", "report"),
    ("__start__", "answer", "question"),
    ("research", "answer", "background"),
    ("__start__", "__end__", "question"),
    ("research", "__end__", "background"),
    ("answer", "__end__", "answer"),
}
PROMPTS = {
    ("research/search", SEARCH_PROMPT),
    ("research/write_up", "Turn the notes into one paragraph."),
    ("answer", "Answer with the background in mind."),
}
OTHER = {"On {subject}: {state['notes']}"}
