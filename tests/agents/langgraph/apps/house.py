"""Prompts and helpers that other modules of a user's project import."""

from tests.agents.langgraph.apps.models import model

TONE = "Speak like a friendly neighbour."
_RULES = "Obey the rules of the house."


def ask(text: str) -> str:
    """Ask the model under the rules of the house."""
    return str(model.invoke([("system", _RULES), ("human", text)]).content)
