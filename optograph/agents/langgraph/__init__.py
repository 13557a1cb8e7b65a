"""LangGraph apps as they are: traced by what their nodes read and write, with their prompts as parameters."""

from __future__ import annotations

from optograph.agents.langgraph.finding import FoundPrompt
from optograph.agents.langgraph.flow import dataflow
from optograph.agents.langgraph.traced import TracedGraph, inspect_langgraph, trace_langgraph
from optograph.agents.langgraph.unexplained import Computed

__all__ = ["Computed", "FoundPrompt", "TracedGraph", "dataflow", "inspect_langgraph", "trace_langgraph"]
