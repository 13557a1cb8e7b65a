"""Optimizers: the ask-and-tell contract, the loop that runs them, and the optimizers themselves."""

from __future__ import annotations

from optograph.optimizers.accept import AcceptanceRule, judge
from optograph.optimizers.base import Optimizer, OptimizerContext, Plan, Verdict
from optograph.optimizers.fewshot import FewShotOptions, FewShotSearch
from optograph.optimizers.loop import Loop, LoopEvent, LoopResult
from optograph.optimizers.optoprime import OptoPrime, OptoPrimeOptions
from optograph.optimizers.sequence import InSequence

__all__ = [
    "AcceptanceRule",
    "FewShotOptions",
    "FewShotSearch",
    "InSequence",
    "Loop",
    "LoopEvent",
    "LoopResult",
    "Optimizer",
    "OptimizerContext",
    "OptoPrime",
    "OptoPrimeOptions",
    "Plan",
    "Verdict",
    "judge",
]
