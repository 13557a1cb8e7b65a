"""Modules, typed prompted steps and agents: workflows whose instructions and demonstrations can be learned."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optograph.agents.agent import Agent, AgentOptions, AgentResult, AgentStep, AgentStopped
from optograph.agents.answers import extract_json
from optograph.agents.module import Module, export_parameters
from optograph.agents.recording import recording_calls
from optograph.agents.saving import load_parameters, save_parameters
from optograph.agents.step import Step, StepOptions
from optograph.agents.streaming import StepStream
from optograph.agents.tools import Tool

if TYPE_CHECKING:
    from optograph.agents.chat_model import ChatModel

_LAZY = {"ChatModel": "optograph.agents.chat_model"}

__all__ = [
    "Agent",
    "AgentOptions",
    "AgentResult",
    "AgentStep",
    "AgentStopped",
    "ChatModel",
    "Module",
    "Step",
    "StepOptions",
    "StepStream",
    "Tool",
    "export_parameters",
    "extract_json",
    "load_parameters",
    "recording_calls",
    "save_parameters",
]


def __getattr__(name: str) -> Any:
    """Load what needs LangChain when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'optograph.agents' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
