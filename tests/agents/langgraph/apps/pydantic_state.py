"""State as a pydantic model that checks and converts; bound methods as nodes.

A field that nobody wrote has its default: reading it makes no edge.
"""

from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field, field_validator

from tests.agents.langgraph.apps.models import EchoModel


def merge(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    return {**old, **new}


class Order(BaseModel):
    item: str
    count: int = 1


class State(BaseModel):
    order: Order
    currency: str = "euro"
    remarks: Annotated[dict[str, str], merge] = Field(default_factory=dict)
    offer: str | None = None

    @field_validator("currency")
    @classmethod
    def lower(cls, value: str) -> str:
        return value.lower()


class Shop:
    def __init__(self, model: BaseChatModel, greeting: str) -> None:
        self.model = model
        self.greeting = greeting

    def stock(self, state: State) -> dict[str, Any]:
        order = state.order
        reply = self.model.invoke(
            [("system", "Say whether the shop has it."), ("human", f"{order.count} of {order.item}")]
        )
        return {"remarks": {"stock": reply.content}}

    def price(self, state: State) -> dict[str, Any]:
        messages = [("system", f"Name a price in {state.currency} and stay polite."), ("human", state.order.item)]
        return {"remarks": {"price": self.model.invoke(messages).content}}

    def offer(self, state: State) -> dict[str, Any]:
        data = state.model_dump()
        notes = " ".join(data["remarks"][key] for key in sorted(data["remarks"]))
        return {"offer": self.model.invoke([("system", self.greeting), ("human", notes)]).content}


def build() -> Any:
    shop = Shop(EchoModel(), "Greet the customer, then make an offer.")
    builder = StateGraph(State)
    builder.add_node("stock", shop.stock)
    builder.add_node("price", shop.price)
    builder.add_node("offer", shop.offer)
    builder.add_edge(START, "stock")
    builder.add_edge(START, "price")
    builder.add_edge(["stock", "price"], "offer")
    builder.add_edge("offer", END)
    return builder.compile()


PARALLEL = True
INPUT = {"order": {"item": "tea pot", "count": "2"}}
MORE_INPUTS = [State(order=Order(item="lamp"), currency="FRANC")]
EDGES = {
    ("__start__", "stock", "order"),
    ("__start__", "price", "order"),
    ("__start__", "offer", "order"),
    ("stock", "offer", "remarks"),
    ("price", "offer", "remarks"),
    ("__start__", "__end__", "order"),
    ("stock", "__end__", "remarks"),
    ("price", "__end__", "remarks"),
    ("offer", "__end__", "offer"),
}
PROMPTS = {
    ("stock", "Say whether the shop has it."),
    ("price", "Name a price in {state.currency} and stay polite."),
    ("offer", "Greet the customer, then make an offer."),
}
OTHER = {"{order.count} of {order.item}"}
