"""Which team should answer a support ticket? Five ways to go; for models of half a billion parameters and more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from optograph.agents import Module, Step
from optograph.graphs import op
from optograph.serving import LM


class Ticket(BaseModel):
    """A customer's message."""

    text: str


class Routing(BaseModel):
    """The team that answers."""

    team: Literal["billing", "technical", "account", "shipping", "feedback"]


@op(description="Keep the first 600 characters and fold white space.")
def tidy(text: str) -> str:
    """Return the message in one short paragraph."""
    return " ".join(text.split())[:600]


class Tickets(Module):
    """Tidies a ticket, then routes it."""

    def __init__(self, lm: LM) -> None:
        self.route = Step(
            "route",
            lm=lm,
            inputs=Ticket,
            output=Routing,
            instruction="Which team should answer this ticket: billing, technical, account, shipping or feedback?",
            description="Choose the team that answers a ticket.",
        )

    def forward(self, text: str) -> Any:
        """Return the name of the team."""
        return self.route(text=tidy(text)).team


def build(lm: LM) -> Tickets:
    """Make the workflow for a job."""
    return Tickets(lm)
