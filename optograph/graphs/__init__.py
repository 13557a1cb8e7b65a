"""Traced values, ops, parameters and feedback: the graph of a workflow, and the way back through it."""

from __future__ import annotations

from optograph.graphs.broadcasting import broadcast
from optograph.graphs.candidate import Candidate
from optograph.graphs.container import ParameterContainer
from optograph.graphs.decorator import TracedFunction, op
from optograph.graphs.failure import OpError
from optograph.graphs.feedback import Feedback
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.parameter import Parameter, run_scope
from optograph.graphs.spec import BoolSpec, ChoiceSpec, FloatSpec, IntSpec, Spec, TextSpec
from optograph.graphs.spec_code import CodeSpec
from optograph.graphs.spec_data import DemosSpec, JsonSpec, ModelSpec, infer_spec
from optograph.graphs.state import Tape, allow_unsandboxed, annotate, applying, no_tracing, tracing
from optograph.graphs.value import Value, attribute

__all__ = [
    "BoolSpec",
    "Candidate",
    "ChoiceSpec",
    "CodeSpec",
    "DemosSpec",
    "Feedback",
    "FloatSpec",
    "IntSpec",
    "JsonSpec",
    "ModelSpec",
    "OpError",
    "OpInfo",
    "Parameter",
    "ParameterContainer",
    "Spec",
    "Tape",
    "TextSpec",
    "TracedFunction",
    "Value",
    "allow_unsandboxed",
    "annotate",
    "applying",
    "attribute",
    "broadcast",
    "infer_spec",
    "no_tracing",
    "op",
    "run_scope",
    "tracing",
]
