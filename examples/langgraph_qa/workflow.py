"""Brings the app to optograph: the app's own file knows nothing of it and stays as it is."""

from __future__ import annotations

from pathlib import Path

from optograph.agents import ChatModel
from optograph.agents.langgraph import TracedGraph, trace_langgraph
from optograph.jobs.targets import resolve
from optograph.serving import LM

ANSWER_TOKENS = 24


def build(lm: LM) -> TracedGraph:
    """Trace the app over a model; what is scored is its answer."""
    build_app = resolve("qa_app.py:build", Path(__file__).parent)
    return trace_langgraph(build_app(ChatModel(lm, max_tokens=ANSWER_TOKENS)), output="answer")
