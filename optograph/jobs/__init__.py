"""Jobs: from a typed job file, or one Python call, to an optimized workflow and its report."""

from __future__ import annotations

from optograph.jobs.books import best_candidate
from optograph.jobs.embedding import optimization_node
from optograph.jobs.job import Job, load_job
from optograph.jobs.optimize import optimize
from optograph.jobs.options import RunEvent, RunOptions, RunResult, SilentView, Telemetry, View
from optograph.jobs.run import load_task, resume_job, run_job

__all__ = [
    "Job",
    "RunEvent",
    "RunOptions",
    "RunResult",
    "SilentView",
    "Telemetry",
    "View",
    "best_candidate",
    "load_job",
    "load_task",
    "optimization_node",
    "optimize",
    "resume_job",
    "run_job",
]
