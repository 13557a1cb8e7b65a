"""The report of a run: its data, one offline HTML page, comparisons, and what the command line shows of it."""

from __future__ import annotations

from optograph.report.compare import Comparison, compare_runs, compare_values
from optograph.report.comparison import print_comparison
from optograph.report.credit import Credit, NodeCredit
from optograph.report.model import (
    Baseline,
    CandidateRow,
    ExampleRow,
    FailureRow,
    LimitRow,
    ModelRow,
    ParameterRow,
    RunFacts,
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
from optograph.report.reviewed import ReviewRow
from optograph.report.terminal import LiveView, print_summary

__all__ = [
    "Baseline",
    "CandidateRow",
    "Comparison",
    "Credit",
    "ExampleRow",
    "FailureRow",
    "LimitRow",
    "LiveView",
    "ModelRow",
    "NodeCredit",
    "ParameterRow",
    "ReviewRow",
    "RunFacts",
    "RunReport",
    "Splits",
    "StepRow",
    "TestResult",
    "TraceEdge",
    "TraceNode",
    "TraceView",
    "UsageRow",
    "compare_runs",
    "compare_values",
    "print_comparison",
    "print_summary",
    "render_report",
    "write_report",
]
