"""Tasks, scorers and the evaluator: what good means, and how a candidate is measured against it."""

from __future__ import annotations

from optograph.evals.datasets import load_examples
from optograph.evals.evaluator import Evaluator, EvaluatorOptions, Workflow
from optograph.evals.scorers import choice, exact, from_callable, last_number, numeric, regex, scorer_by_name
from optograph.evals.stats import Interval, bootstrap_mean, paired_bootstrap
from optograph.evals.task import Example, Scorer, SealedSplit, Task, answers_of, majority_baseline
from optograph.evals.trial import Evaluation, ExampleResult, Trial

__all__ = [
    "Evaluation",
    "Evaluator",
    "EvaluatorOptions",
    "Example",
    "ExampleResult",
    "Interval",
    "Scorer",
    "SealedSplit",
    "Task",
    "Trial",
    "Workflow",
    "answers_of",
    "bootstrap_mean",
    "choice",
    "exact",
    "from_callable",
    "last_number",
    "load_examples",
    "majority_baseline",
    "numeric",
    "paired_bootstrap",
    "regex",
    "scorer_by_name",
]
