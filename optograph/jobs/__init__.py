"""Jobs: from a typed job file, or one Python call, to an optimized workflow and its report."""

from __future__ import annotations

from optograph.jobs.job import Job, load_job
from optograph.jobs.optimize import RunOptions, RunResult, SilentView, View, optimize
from optograph.jobs.run import load_task, run_job

__all__ = [
    "Job",
    "RunOptions",
    "RunResult",
    "SilentView",
    "View",
    "load_job",
    "load_task",
    "optimize",
    "run_job",
]
