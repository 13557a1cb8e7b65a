"""A node that fails at its first attempt and is tried again by its RetryPolicy."""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy

from tests.agents.langgraph.apps.models import model

FETCH = "Describe the weather station in one line."


class State(TypedDict, total=False):
    place: str
    station: str
    forecast: str


def fetch(state: State, runtime: Runtime) -> dict[str, Any]:
    reply = model.invoke([("system", FETCH), ("human", state["place"])])
    if runtime.execution_info is None or runtime.execution_info.node_attempt < 2:
        raise ConnectionError("the station does not answer")
    return {"station": reply.content}


def forecast(state: State) -> dict[str, Any]:
    place = state["place"]
    system = f"You forecast the weather in {place}; three sentences for {place}, no more."
    return {"forecast": model.invoke([("system", system), ("human", state["station"])]).content}


def build() -> Any:
    policy = RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=3, retry_on=ConnectionError)
    builder = StateGraph(State)
    builder.add_node("fetch", fetch, retry_policy=policy)
    builder.add_node("forecast", forecast)
    builder.add_edge(START, "fetch")
    builder.add_edge("fetch", "forecast")
    builder.add_edge("forecast", END)
    return builder.compile()


INPUT = {"place": "Oslo"}
EDGES = {
    ("__start__", "fetch", "place"),
    ("__start__", "forecast", "place"),
    ("fetch", "forecast", "station"),
    ("__start__", "__end__", "place"),
    ("fetch", "__end__", "station"),
    ("forecast", "__end__", "forecast"),
}
PROMPTS = {
    ("fetch", FETCH),
    ("forecast", "You forecast the weather in {place}; three sentences for {place}, no more."),
}
OTHER = {"the station does not answer"}
