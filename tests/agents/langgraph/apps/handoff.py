"""Two agents as subgraphs: the first hands over to a node of the parent graph with Command(graph=PARENT).

The inner node that returns the command is the writer of its update in the parent.
"""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command

from tests.agents.langgraph.apps.models import model

SALES_PROMPT = "You sell boats; say what you know of the wish."


class State(TypedDict, total=False):
    wish: str
    lead: str
    contract: str


class SalesState(TypedDict, total=False):
    wish: str
    talk: str


def listen(state: SalesState) -> dict[str, Any]:
    return {"talk": model.invoke([("system", SALES_PROMPT), ("human", state["wish"])]).content}


def hand_over(state: SalesState) -> Command[Any]:
    reply = model.invoke([("system", "Write a handover note to the lawyer."), ("human", state["talk"])])
    return Command(goto="lawyer", update={"lead": reply.content}, graph=Command.PARENT)


def draw_up(state: State) -> dict[str, Any]:
    messages = [("system", "Draw up the contract from the note."), ("human", state["lead"]), ("human", state["wish"])]
    return {"contract": model.invoke(messages).content}


def build() -> Any:
    sales = StateGraph(SalesState)
    sales.add_node(listen)
    sales.add_node(hand_over)
    sales.add_edge(START, "listen")
    sales.add_edge("listen", "hand_over")

    lawyer = StateGraph(State)
    lawyer.add_node(draw_up)
    lawyer.add_edge(START, "draw_up")

    builder = StateGraph(State)
    builder.add_node("sales", sales.compile(), destinations=("lawyer",))
    builder.add_node("lawyer", lawyer.compile())
    builder.add_edge(START, "sales")
    return builder.compile()


INPUT = {"wish": "a red boat"}
EDGES = {
    ("__start__", "sales/listen", "wish"),
    ("sales/listen", "sales/hand_over", "talk"),
    ("sales/hand_over", "lawyer/draw_up", "lead"),
    ("__start__", "lawyer/draw_up", "wish"),
    ("__start__", "__end__", "wish"),
    ("sales/hand_over", "__end__", "lead"),
    ("lawyer/draw_up", "__end__", "contract"),
}
PROMPTS = {
    ("sales/listen", SALES_PROMPT),
    ("sales/hand_over", "Write a handover note to the lawyer."),
    ("lawyer/draw_up", "Draw up the contract from the note."),
}
