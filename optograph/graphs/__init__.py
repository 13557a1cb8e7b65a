"""Traced values, ops, parameters and feedback: the graph of a workflow, and the way back through it."""

from __future__ import annotations

from optograph.graphs.broadcasting import broadcast
from optograph.graphs.candidate import Candidate
from optograph.graphs.container import ParameterContainer
from optograph.graphs.decorator import TracedFunction, op
from optograph.graphs.diff import Change, TraceDiff, diff_traces
from optograph.graphs.drawing import to_graphviz, to_mermaid
from optograph.graphs.failure import OpError
from optograph.graphs.feedback import Feedback
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.parameter import Parameter, run_scope
from optograph.graphs.propagation import Subgraph, propagate
from optograph.graphs.rendering import Rendering, render
from optograph.graphs.showing import escape, unescape
from optograph.graphs.snapshot import as_value, to_plain, trace_from_json, trace_to_json
from optograph.graphs.spec import BoolSpec, ChoiceSpec, FloatSpec, IntSpec, Spec, TextSpec
from optograph.graphs.spec_code import CodeSpec
from optograph.graphs.spec_data import DemosSpec, JsonSpec, ModelSpec, infer_spec
from optograph.graphs.state import Tape, allow_unsandboxed, annotate, applying, no_tracing, sandboxed_in, tracing
from optograph.graphs.trace import Node, ParameterRecord, Trace
from optograph.graphs.value import Value, attribute

__all__ = [
    "BoolSpec",
    "Candidate",
    "Change",
    "ChoiceSpec",
    "CodeSpec",
    "DemosSpec",
    "Feedback",
    "FloatSpec",
    "IntSpec",
    "JsonSpec",
    "ModelSpec",
    "Node",
    "OpError",
    "OpInfo",
    "Parameter",
    "ParameterContainer",
    "ParameterRecord",
    "Rendering",
    "Spec",
    "Subgraph",
    "Tape",
    "TextSpec",
    "Trace",
    "TraceDiff",
    "TracedFunction",
    "Value",
    "allow_unsandboxed",
    "annotate",
    "applying",
    "as_value",
    "attribute",
    "broadcast",
    "diff_traces",
    "escape",
    "infer_spec",
    "no_tracing",
    "op",
    "propagate",
    "render",
    "run_scope",
    "sandboxed_in",
    "to_graphviz",
    "to_mermaid",
    "to_plain",
    "trace_from_json",
    "trace_to_json",
    "tracing",
    "unescape",
]
