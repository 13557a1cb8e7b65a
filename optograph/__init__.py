"""optograph: trace workflows as graphs, send feedback back through them, and improve what the graph blames."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optograph.agents import Agent, AgentOptions, ChatModel, Module, Step, StepOptions, Tool
    from optograph.evals import Example, SealedSplit, Task, choice, exact, from_callable, load_examples, numeric, regex
    from optograph.graphs import Candidate, Feedback, Parameter, Value, applying, op, propagate, render
    from optograph.jobs import RunOptions, RunResult, load_job, optimization_node, optimize, run_job
    from optograph.serving import LlamaCppLM, OpenAILM, ScriptedLM, load_lm

_HOME = {
    "agents": ("Agent", "AgentOptions", "ChatModel", "Module", "Step", "StepOptions", "Tool"),
    "evals": (
        *("Example", "SealedSplit", "Task", "load_examples"),
        *("choice", "exact", "from_callable", "numeric", "regex"),
    ),
    "graphs": ("Candidate", "Feedback", "Parameter", "Value", "applying", "op", "propagate", "render"),
    "jobs": ("RunOptions", "RunResult", "load_job", "optimization_node", "optimize", "run_job"),
    "serving": ("LlamaCppLM", "OpenAILM", "ScriptedLM", "load_lm"),
}
_MODULE = {name: f"optograph.{folder}" for folder, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "AgentOptions",
    "Candidate",
    "ChatModel",
    "Example",
    "Feedback",
    "LlamaCppLM",
    "Module",
    "OpenAILM",
    "Parameter",
    "RunOptions",
    "RunResult",
    "ScriptedLM",
    "SealedSplit",
    "Step",
    "StepOptions",
    "Task",
    "Tool",
    "Value",
    "applying",
    "choice",
    "exact",
    "from_callable",
    "load_examples",
    "load_job",
    "load_lm",
    "numeric",
    "op",
    "optimization_node",
    "optimize",
    "propagate",
    "regex",
    "render",
    "run_job",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package is fast."""
    if name not in _MODULE:
        raise AttributeError(f"module 'optograph' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
