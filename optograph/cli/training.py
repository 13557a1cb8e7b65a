"""``optograph train``: the weights behind a job's workflow, in rounds, to a result on the sealed test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optograph.cli.output import AsJson, JobArgument, Overrides
from optograph.cli.rundirs import RunDirOption, new_directory
from optograph.cli.running import JobView, show_run

if TYPE_CHECKING:
    from optograph.jobs import RunResult


def train(
    job: JobArgument,
    run_dir: RunDirOption = None,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the policy behind a job's workflow, round after round, then test it once on the sealed split.

    The job's [bold]policy[/bold] table says how: the method (oreo, momentum_dpo, dpo, ipo, sppo, kto, sft), the LoRA
    adapter, and the rounds. A round collects rollouts of the train split with the weights so far, makes rows of their
    exact tokens, trains, loads the new adapter into vLLM, checks that it is the one that was trained, and keeps it if
    it passes the paired test on dev; otherwise it is rolled back. A run that was killed goes on where it was:
    [bold]optograph resume RUN[/bold], also with more rounds: [bold]--set policy.rounds=5[/bold]. Adapters are in
    RUN/adapters, rows in RUN/rows.

    Example: [bold]optograph train examples/arithmetic/oreo.toml --set policy.rounds=2[/bold]
    """
    from optograph.jobs import load_job
    from optograph.jobs.run import may_change
    from optograph.jobs.training.train import train_job

    loaded = load_job(job, override)
    name = loaded.name or job.stem
    directory = run_dir or new_directory(name)
    changed = {one.partition("=")[0].strip() for one in override or ()}

    def start(view: JobView) -> RunResult:
        free = {setting for setting in changed if may_change(setting)}
        return train_job(loaded, job.resolve().parent, directory, view, job_file=job, changed=free)

    show_run(directory, name, loaded.budget.calls, start, as_json=as_json)
