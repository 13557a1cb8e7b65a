"""Training the policy of a job: from the job file to the best weights and prompts, tested once on the sealed split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.evals import Evaluator
from optograph.graphs import Parameter, allow_unsandboxed
from optograph.jobs import run as running
from optograph.jobs.books import Books, open_books
from optograph.jobs.job import Job
from optograph.jobs.optimize import Session, chosen_parameters, optimize_with
from optograph.jobs.options import Origin, RunResult, SilentView, View
from optograph.jobs.paths import path_of
from optograph.jobs.pricing import settle_prices
from optograph.jobs.training.loop import TrainLoop
from optograph.jobs.training.parameters import PREFIX, adapter_parameters
from optograph.jobs.training.parts import Parts
from optograph.jobs.training.policy_lm import AdapterLM, PolicyLM
from optograph.jobs.training.section import PolicySection
from optograph.jobs.training.serving import Serving, recorded_probes
from optograph.jobs.training.store import AdapterStore
from optograph.jobs.workflows import build_workflow, find_target, wants_model
from optograph.optimizers import LoopResult, Optimizer
from optograph.optimizers.policy.critic_files import checked_critic, critic_hash
from optograph.serving import LM, run_sync
from optograph.serving.cache import sha256_of
from optograph.serving.vllm.adapters import adapter_hash

MakeParts = Callable[[Job, Path, Path], Parts]
"""Makes the parts of a training from the job, its folder and the run directory."""


def train_job(
    job: Job,
    base: str | Path,
    run_dir: str | Path,
    view: View | None = None,
    *,
    job_file: str | Path | None = None,
    changed: Iterable[str] = (),
    make_parts: MakeParts | None = None,
) -> RunResult:
    """Train the policy of a job, or go on with it where the run directory holds it already.

    Args:
        job: The job, with a ``[policy]`` table.
        base: Folder of the job file; its paths are relative to it.
        run_dir: Directory of the run.
        view: Told of progress.
        job_file: The job file, for the record.
        changed: Dotted names of settings that may differ from those that the run was started with.
        make_parts: Makes trainer and server; by default TRL and vLLM.

    Raises:
        UserError: The job names something that is not there, or the directory holds a run with other inputs.
        ServingError: The server does not start, or serves something else than was trained.
        BudgetExceeded: The budget does not cover the final test.
        RunStopped: The run was asked to end before it was finished.
        StorageError: The run directory cannot be used.
    """
    section = job.policy
    if section is None:
        raise UserError("the job has no [policy] table, which says how to train: see docs/train-loop.md")
    view = view or SilentView()
    base, run_dir = path_of(base, "base"), path_of(run_dir, "run_dir")
    task = running.load_task(job.task, base)
    target = find_target(job.workflow, base)
    if not wants_model(target):
        raise UserError(
            f"{job.workflow.target!r} takes no model, so there is no policy to train: let it take lm (or model, for "
            "LangChain)"
        )
    file = None if job_file is None else path_of(job_file, "job_file")
    origin = Origin(job.model_dump(mode="json"), base, file, frozenset(changed), "train")
    options = running.run_options(job, run_dir, origin, seed=section.seed % 2**31)
    if make_parts is None:
        from optograph.jobs.training.defaults import default_parts

        make_parts = default_parts
    parts = make_parts(job, base, run_dir)
    with open_books(options, view) as books, _policy(job, section, parts, books, run_dir) as policy:
        workflow = build_workflow(target, job.workflow, policy.lm, task.train)
        running.set_parameters(workflow, job.parameters)
        every = _workflow_parameters(workflow) | {one.name: one for one in policy.parameters.values()}
        session = Session(workflow, task, None, options, books, every, view, method=section.method)
        session.models["task"] = policy.lm
        session.pinned = dict(parts.trainer.pinned) | _pinned_start(section, base)
        with allow_unsandboxed() if job.workflow.allow_unsandboxed else nullcontext():
            result = optimize_with(books, session, policy.optimizer_lm, _search(job, section, parts, policy, base))
        _merge(section, parts, policy.store, result, run_dir)
        return result


@dataclass(frozen=True)
class _Policy:
    """What a run asks, and where its weights are.

    Attributes:
        lm: The policy.
        parameters: Parameters that name its adapters, by adapter.
        serving: Its server.
        store: Its adapters.
        optimizer_lm: What proposes prompts, where the job's optimizer takes part.
    """

    lm: PolicyLM
    parameters: Mapping[str, Parameter]
    serving: Serving
    store: AdapterStore
    optimizer_lm: LM | None


@contextmanager
def _policy(job: Job, section: PolicySection, parts: Parts, books: Books, run_dir: Path) -> Iterator[_Policy]:
    """Put the policy behind the journal; its server, if one was started, and all models end with the block."""
    parameters, store = adapter_parameters(section.adapter_names), AdapterStore(run_dir)
    serving = Serving(parts.make_server, store, recorded_probes(books.journal), section.server.allowed_difference)
    model = section.base or job.models.task_model().name
    name = model if model.startswith("local/") else f"local/{Path(model).name}"  # as such it costs nothing
    weights = "+".join(parts.trainer.pinned.values())
    inner = AdapterLM(name, parts.capabilities, serving, parameters, section.adapter_of, weights)
    lm = PolicyLM(inner, books.journal, books.budget, books.stop, seed=section.seed % 2**31)
    models: list[LM] = []
    try:
        optimizer_lm: LM | None = None
        if section.alternate:
            optimizer_lm = lm if job.models.optimizer is None else books.wrap(_loaded(job, models))
            settle_prices(books.budget, [("optimizer", optimizer_lm)])
        yield _Policy(lm, parameters, serving, store, optimizer_lm)
    finally:
        serving.stop()
        for one in models:
            run_sync(one.aclose())


def _loaded(job: Job, models: list[LM]) -> LM:
    """Load the model that proposes, and note it among those to be closed."""
    (made,) = running.load_models([job.models.optimizer_model()], preflight=True).values()
    models.append(made)
    return made


def _search(
    job: Job, section: PolicySection, parts: Parts, policy: _Policy, base: Path
) -> Callable[[Session, Evaluator], LoopResult]:
    start = section.start

    def make_optimizer() -> Optimizer:
        return running.make_optimizer(job)

    if section.alternate:
        make_optimizer()  # a mistake in the table shows before anything is paid

    def search(session: Session, evaluator: Evaluator) -> LoopResult:
        loop = TrainLoop(
            session,
            section,
            evaluator,
            policy.lm,
            policy.serving,
            policy.store,
            parts.trainer,
            start_folder=base / start.adapter if start is not None and start.adapter is not None else None,
            start_rows=base / start.rows if start is not None and start.rows is not None else None,
            embedded=parts.embedded if section.first == "embedded" else None,
            make_optimizer=make_optimizer if section.alternate else None,
        )
        return loop.run()

    return search


def _workflow_parameters(workflow: Any) -> dict[str, Parameter]:
    """Return the trainable parameters of a workflow; there may be none, where only weights are trained."""
    find = getattr(workflow, "parameters", None)
    if not callable(find) or not any(one.trainable for one in find()):
        return {}
    found = chosen_parameters(workflow, None)
    taken = sorted(name for name in found if name.startswith(PREFIX))
    if taken:
        raise UserError(f"parameter {taken[0]!r} has a name that is kept for adapters: rename it")
    return found


def _pinned_start(section: PolicySection, base: Path) -> dict[str, str]:
    """Return what the first adapter is made from, so that a resumed run finds the same."""
    start = section.start
    if start is None:
        return {}
    if start.adapter is not None:
        critic = checked_critic(base / start.adapter)
        pinned = {"policy.start adapter": adapter_hash(base / start.adapter)}
        return pinned if critic is None else pinned | {"policy.start critic": critic_hash(critic)}
    path = base / str(start.rows)
    if not path.is_file():
        raise UserError(f"policy.start.rows: there is no file {str(path)!r} (paths are relative to the job file)")
    return {"policy.start rows": sha256_of(path)}


def _merge(section: PolicySection, parts: Parts, store: AdapterStore, result: RunResult, run_dir: Path) -> None:
    """Merge the best adapters into models of their own, where the job wants that."""
    if not section.merge:
        return
    for name in section.adapter_names:
        hash_ = str(result.best.values[f"{PREFIX}{name}"])
        out = run_dir / "merged" / name
        if hash_ and not out.exists():
            parts.trainer.merge(store.folder(hash_), out)
