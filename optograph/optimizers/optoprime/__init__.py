"""OptoPrime: proposals from the traced program and its feedback."""

from __future__ import annotations

from optograph.optimizers.optoprime.answer import Answer, ParameterOutcome, answer_schema, read_answer
from optograph.optimizers.optoprime.memory import Memory, MemoryEntry
from optograph.optimizers.optoprime.optimizer import OptoPrime, OptoPrimeOptions

__all__ = [
    "Answer",
    "Memory",
    "MemoryEntry",
    "OptoPrime",
    "OptoPrimeOptions",
    "ParameterOutcome",
    "answer_schema",
    "read_answer",
]
