"""Modules and typed, prompted steps: workflows whose instructions and demonstrations can be learned."""

from __future__ import annotations

from optograph.agents.answers import extract_json
from optograph.agents.module import Module, export_parameters
from optograph.agents.recording import recording_calls
from optograph.agents.step import Step, StepOptions

__all__ = ["Module", "Step", "StepOptions", "export_parameters", "extract_json", "recording_calls"]
