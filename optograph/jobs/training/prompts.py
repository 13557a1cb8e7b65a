"""Better together: the job's optimizer works on the prompts between two rounds of training."""

from __future__ import annotations

from collections.abc import Callable

from optograph.evals import Evaluator
from optograph.graphs import Candidate
from optograph.jobs.optimize import FinalTest, Session
from optograph.jobs.training.parameters import PREFIX
from optograph.optimizers import Loop, LoopResult, Optimizer, OptimizerContext

MakeOptimizer = Callable[[], Optimizer]


def improve_prompts(
    session: Session,
    evaluator: Evaluator,
    optimizer: Optimizer,
    incumbent: Candidate,
    number: int,
    tests: int,
    measured: FinalTest,
) -> tuple[LoopResult, int]:
    """Run an optimizer over everything but the adapters, from an incumbent, and return what it found.

    Args:
        session: The run.
        evaluator: Runs the trials.
        optimizer: A fresh one.
        incumbent: The best so far.
        number: The round; each has a seed and a state of its own.
        tests: Acceptance tests of the run so far.
        measured: Keeps the final test's cost aside.

    Returns:
        The result, and the acceptance tests of the run by now.
    """
    parameters = {name: one for name, one in session.parameters.items() if not name.startswith(PREFIX)}
    seed = session.options.seed + number
    context = OptimizerContext(parameters, session.task, session.journal, session.optimizer_lm, seed)
    optimizer.bind(context, incumbent)
    loop = Loop(
        optimizer,
        evaluator,
        session.journal,
        session.options.rule,
        session.view.loop,
        lambda: session.budget.calls,
        session.budget.limits.to_json(),
        measured.put_aside,
        state_name=f"loop.{number}",
        steps_before=tests,
    )
    found = loop.run()
    return found, loop.steps
