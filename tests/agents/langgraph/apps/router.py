"""A conditional edge to one of three branches (two stay dead); prompts in a dict, and a str.format template.

The router's read makes no edge into the branch: it decides that the branch runs, and hands it nothing.
"""

from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model

CLASSIFY = "Tell what this customer wants, in one word: {message}"
HELP = {
    "billing": "You explain invoices and never promise money back.",
    "technical": "You repair devices over the phone, step by step.",
    "other": "You ask politely what the customer needs.",
}


class State(TypedDict, total=False):
    message: str
    kind: str
    note: str
    reply: str
    signed: str


def classify(state: State) -> dict[str, Any]:
    note = model.invoke(CLASSIFY.format(message=state["message"])).content
    message = state["message"].lower()
    kind = "billing" if "invoice" in message else "technical" if "broken" in message else "other"
    return {"note": note, "kind": kind}


def route(state: State) -> Literal["billing", "technical", "other"]:
    return state["kind"]  # type: ignore[return-value]


def billing(state: State) -> dict[str, Any]:
    return {"reply": model.invoke([("system", HELP["billing"]), ("human", state["message"])]).content}


def technical(state: State) -> dict[str, Any]:
    reply = model.invoke([("system", HELP["technical"]), ("human", state["message"]), ("human", state["note"])])
    return {"reply": reply.content}


def other(state: State) -> dict[str, Any]:
    return {"reply": model.invoke([("system", HELP["other"]), ("human", state["message"])]).content}


def sign(state: State) -> dict[str, Any]:
    return {"signed": f"{state['reply']}\nYours, the help desk"}


def build() -> Any:
    builder = StateGraph(State)
    for node in (classify, billing, technical, other, sign):
        builder.add_node(node)
    builder.add_edge(START, "classify")
    builder.add_conditional_edges("classify", route)
    for name in ("billing", "technical", "other"):
        builder.add_edge(name, "sign")
    builder.add_edge("sign", END)
    return builder.compile()


INPUT = {"message": "My phone is broken"}
MORE_INPUTS = [{"message": "My invoice is too high"}, {"message": "Good morning"}]
EDGES = {
    ("__start__", "classify", "message"),
    ("__start__", "technical", "message"),
    ("classify", "technical", "note"),
    ("technical", "sign", "reply"),
    ("__start__", "__end__", "message"),
    ("classify", "__end__", "kind"),
    ("classify", "__end__", "note"),
    ("technical", "__end__", "reply"),
    ("sign", "__end__", "signed"),
}
PROMPTS = {
    ("classify", CLASSIFY),
    ("billing", HELP["billing"]),
    ("technical", HELP["technical"]),
    ("other", HELP["other"]),
}
OTHER = {"{state['reply']}\nYours, the help desk"}
