"""Optimizers: the ask-and-tell contract, the loop that runs them, and the optimizers themselves."""

from __future__ import annotations

from optograph.optimizers.accept import AcceptanceRule, judge
from optograph.optimizers.base import Optimizer, OptimizerContext, Plan, Verdict
from optograph.optimizers.fewshot import FewShotOptions, FewShotSearch
from optograph.optimizers.loop import Loop
from optograph.optimizers.loopgraph import optimization_graph
from optograph.optimizers.optoprime import OptoPrime, OptoPrimeOptions
from optograph.optimizers.records import LoopEvent, LoopResult
from optograph.optimizers.reviews import Review, ReviewDesk, Reviewer, ReviewRequest, file_review, pending_review
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
    "Review",
    "ReviewDesk",
    "ReviewRequest",
    "Reviewer",
    "Verdict",
    "file_review",
    "judge",
    "optimization_graph",
    "pending_review",
]
