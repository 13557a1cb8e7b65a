"""Modules, typed prompted steps and agents: workflows whose instructions and demonstrations can be learned."""

from __future__ import annotations

from optograph.agents.agent import Agent, AgentOptions, AgentResult, AgentStep, AgentStopped
from optograph.agents.answers import extract_json
from optograph.agents.module import Module, export_parameters
from optograph.agents.recording import recording_calls
from optograph.agents.step import Step, StepOptions
from optograph.agents.tools import Tool

__all__ = [
    "Agent",
    "AgentOptions",
    "AgentResult",
    "AgentStep",
    "AgentStopped",
    "Module",
    "Step",
    "StepOptions",
    "Tool",
    "export_parameters",
    "extract_json",
    "recording_calls",
]
