"""Where code that a model wrote runs: locked processes that reach nothing but their own folder."""

from __future__ import annotations

from optograph.sandbox.errors import KINDS, Kind, SandboxError
from optograph.sandbox.group import WorkerGroup
from optograph.sandbox.limits import Limits
from optograph.sandbox.pool import RunResult, Sandbox
from optograph.sandbox.support import Availability, availability
from optograph.sandbox.worker import Program, Reply, Worker

__all__ = [
    "KINDS",
    "Availability",
    "Kind",
    "Limits",
    "Program",
    "Reply",
    "RunResult",
    "Sandbox",
    "SandboxError",
    "Worker",
    "WorkerGroup",
    "availability",
]
