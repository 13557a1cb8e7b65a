"""The report of a run: its data, one offline HTML page, and the closing table and live view of the command line."""

from __future__ import annotations

from optograph.report.model import (
    Baseline,
    CandidateRow,
    ExampleRow,
    ModelRow,
    ParameterRow,
    RunReport,
    Splits,
    StepRow,
    TestResult,
    TraceEdge,
    TraceNode,
    TraceView,
    UsageRow,
)
from optograph.report.render import render_report, write_report
from optograph.report.terminal import LiveView, print_summary

__all__ = [
    "Baseline",
    "CandidateRow",
    "ExampleRow",
    "LiveView",
    "ModelRow",
    "ParameterRow",
    "RunReport",
    "Splits",
    "StepRow",
    "TestResult",
    "TraceEdge",
    "TraceNode",
    "TraceView",
    "UsageRow",
    "print_summary",
    "render_report",
    "write_report",
]
