"""The phases of a round, and those before the first one: each does its part, then writes what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optograph.errors import StorageError, UserError
from optograph.evals import Trial
from optograph.graphs import Candidate
from optograph.jobs.training import chain, rounds
from optograph.jobs.training.loop import TrainLoop
from optograph.jobs.training.parameters import adapter_values, adapters_in
from optograph.jobs.training.parts import Moved, Trained
from optograph.jobs.training.policy_lm import Sampling
from optograph.jobs.training.prompts import improve_prompts
from optograph.jobs.training.records import BASE, AdapterRecord, Collected, Link, Outcome, Settled, Training
from optograph.jobs.training.rowset import RoundRows, by_adapter, keep_rows, read_kept, rows_of
from optograph.optimizers import Verdict, judge
from optograph.optimizers.policy import TrainingRow
from optograph.optimizers.policy.critic_files import found_critic
from optograph.optimizers.policy.learnable import TIES, unlearnable
from optograph.optimizers.records import Decision
from optograph.serving import run_sync
from optograph.serving.vllm.adapters import Probe
from optograph.serving.vllm.metrics import ServerMetrics
from optograph.storage import Batch

# Before the first round -------------------------------------------------------------------------------------------


def start(loop: TrainLoop) -> None:
    """Take in the adapter that training begins with, or make it."""
    names = loop.section.adapter_names
    state, hash_, critic, batch = loop.state, BASE, None, loop.session.journal.batch()
    if loop.start_folder is not None:
        hash_, critic = loop.store.copy(loop.start_folder), found_critic(loop.start_folder)
        probe = _put(batch, loop.trainer.probe(loop.store.folder(hash_)))
        record = AdapterRecord(name=names[0], made="given", round=0, probe=probe, outcome="start")
        state = state.but(adapters={hash_: record})
    elif loop.start_rows is not None:
        rows = loop.trainer.sft_rows(loop.start_rows)
        made = _trained_on(loop, rows, "start", Link())
        hash_ = loop.store.adopt(made.folder)
        probe = _put(batch, made.probe)
        record = AdapterRecord(name=names[0], made="sft", round=0, parents=(BASE,), probe=probe, outcome="start")
        state = state.but(adapters={hash_: record}, sft=_training(hash_, None, made, Link(), len(rows), batch))
    elif chain.uses_momentum(loop.section):
        made = loop.trainer.fresh(loop.section.training(loop.section.seed), out=loop.store.draft("fresh"))
        hash_ = loop.store.adopt(made.folder)
        probe = _put(batch, made.probe)
        record = AdapterRecord(name=names[0], made="fresh", round=0, parents=(BASE,), probe=probe, outcome="start")
        state = state.but(adapters={hash_: record})
    state = state.but(links={name: chain.first_link(hash_, critic) for name in names}, phase="baseline")
    loop.save(state, batch, outcome={"adapter": hash_})


def baseline(loop: TrainLoop) -> None:
    """Test the start on dev."""
    values = {name: one.spec.to_json(one.base) for name, one in loop.session.parameters.items()}
    hashes = adapter_values({name: link.current for name, link in loop.state.links.items()})
    candidate = Candidate(values | hashes, origin="starting point")
    (evaluation,) = loop.on_dev(candidate)
    loop.final_test.put_aside(evaluation)
    verdict = Verdict("accepted", "The starting point.", candidate, evaluation.mean, n=len(evaluation.results))
    state = loop.state.but(start=candidate.to_json(), incumbent=candidate.to_json())
    state = rounds.next_round(state, loop.section)
    loop.save(state, None, Decision(verdict, kind="seed"), outcome={"score": evaluation.mean})


# A round ----------------------------------------------------------------------------------------------------------


def extrapolate(loop: TrainLoop) -> None:
    """Make the policies that the round's rollouts are drawn from, where they are not the trained ones."""
    links, adapters, realised = dict(loop.state.links), dict(loop.state.adapters), {}
    batch = loop.session.journal.batch()
    for name, link in sorted(links.items()):
        if link.previous is None:
            continue
        moved = _moved(loop, name, link)
        hash_ = loop.store.adopt(moved.folder)
        links[name] = link.model_copy(update={"sampling": hash_})
        if moved.share is not None:
            realised[name] = moved.share
        record = AdapterRecord(
            name=name,
            made="extrapolated",
            round=loop.state.round.number,
            parents=(link.current, link.previous),
            probe=_put(batch, moved.probe),
            outcome="sampled",
        )
        adapters.setdefault(hash_, record)
    state = loop.state.with_round(links=links, realised=realised)
    loop.save(state.but(links=links, adapters=adapters, phase="collect"), batch, outcome=realised)


def _moved(loop: TrainLoop, name: str, link: Link) -> Moved:
    last = next((one.made for one in reversed(loop.state.rounds[:-1]) if one.made is not None), None)
    rows = [] if last is None else read_kept(loop.run_dir, last) or []
    return loop.trainer.extrapolate(
        loop.store.folder(link.current),
        loop.store.folder(link.previous or link.current),
        loop.section.alpha,
        out=loop.store.draft(f"extrapolated-{name}"),
        rows=by_adapter(rows).get(name, []),
    )


def collect(loop: TrainLoop) -> None:
    """Run the workflow on each train example several times, with the weights that the round samples from."""
    number, samples = loop.state.round.number, loop.section.samples
    candidate = loop.with_adapters({name: link.sampling for name, link in loop.state.links.items()}, "sampling")
    first = 1 + (number - 1) * samples  # repeat 0 is for optimizers of prompts
    examples = tuple(example.id for example in loop.session.task.train)
    traced = loop.section.credit == "graph"
    trials = [Trial(candidate, "train", examples, number, traced) for number in range(first, first + samples)]
    policy = loop.lm.policy
    if loop.embedded is not None and _is_untrained(loop):
        policy.embedded = loop.embedded()
    loop.lm.sampling, before = Sampling(loop.section.temperature), loop.serving.metrics()
    try:
        evaluations = loop.evaluator.evaluate(trials)
    finally:
        loop.lm.sampling = None
        embedded, policy.embedded = policy.embedded, None
        if embedded is not None:
            run_sync(embedded.aclose())
    scores = [score for one in evaluations for score in one.scores if score is not None]
    collected = Collected(
        candidate=candidate.id,
        first=first,
        samples=samples,
        rollouts=len(trials) * len(examples),
        missing=sum(one.missing for one in evaluations),
        reward=sum(scores) / len(scores) if scores else None,
        prefix_hit_rate=_hit_rate(before, loop.serving.metrics()),
    )
    state = loop.state.with_round(collected=collected).but(phase="rows")
    loop.save(state, outcome=collected.model_dump(mode="json"))


def _hit_rate(before: ServerMetrics | None, after: ServerMetrics | None) -> float | None:
    """Return the share of prompt tokens found in the prefix cache between two moments of a server."""
    if after is None:
        return None
    queries, hits = after.prefix_queries, after.prefix_hits
    if before is not None:
        queries, hits = queries - before.prefix_queries, hits - before.prefix_hits
    return hits / queries if queries > 0 else None


def _is_untrained(loop: TrainLoop) -> bool:
    """Whether rollouts are drawn from the base model, or from adapters that do nothing yet."""
    sampled = [link.sampling for link in loop.state.links.values()]
    return all(one == BASE or loop.state.adapters[one].made == "fresh" for one in sampled)


def rows(loop: TrainLoop) -> None:
    """Make rows of the rollouts, and keep them beside the run."""
    found = _rows_of(loop)
    made = keep_rows(loop.run_dir, loop.state.round.number, found.rows, found.left_out)
    outcome = {} if made is None else made.model_dump(mode="json")
    state = loop.state.with_round(made=made)
    reasons = _unlearnable(loop, found)
    if any(reason is None for reason in reasons.values()):
        loop.save(state.but(phase="train"), outcome=outcome)
        return
    different = sorted({str(reason) for reason in reasons.values()})
    reason = different[0] if len(different) == 1 else "; ".join(f"{name}: {why}" for name, why in reasons.items())
    loop.save(rounds.nothing_learned(state, loop.section, f"Nothing to learn from: {reason}."), outcome=outcome)


def _unlearnable(loop: TrainLoop, found: RoundRows) -> dict[str, str | None]:
    """Return why the rows of each adapter teach nothing, or None where they do."""
    names = sorted(loop.state.links)
    if not found.rows:
        return dict.fromkeys(names, TIES if found.tied else "there is not one whole rollout")
    parts = by_adapter(found.rows)
    return {name: unlearnable(parts.get(name, []), loop.section) for name in names}


def _rows_of(loop: TrainLoop) -> RoundRows:
    recent = [one.collected for one in loop.state.rounds[-loop.section.history :] if one.collected is not None]
    return rows_of(loop.session.journal, loop.section, recent, [one.id for one in loop.session.task.train])


def train(loop: TrainLoop) -> None:
    """Train each adapter on its rows."""
    parts = by_adapter(_kept_rows(loop))
    if loop.section.server.while_training == "stop":
        loop.serving.stop()
    batch = loop.session.journal.batch()
    trained: dict[str, Training] = {}
    adapters = dict(loop.state.adapters)
    for name, link in sorted(loop.state.links.items()):
        own = parts.get(name, [])
        if unlearnable(own, loop.section) is not None:
            continue
        made = _trained_on(loop, own, name, link)
        critic, hash_ = found_critic(made.folder), loop.store.adopt(made.folder)
        trained[name] = _training(hash_, critic, made, link, len(own), batch)
        parents = (link.current,) if link.previous is None else (link.current, link.previous)
        number, probe = loop.state.round.number, _put(batch, made.probe)
        record = AdapterRecord(name=name, made="trained", round=number, parents=parents, probe=probe)
        adapters.setdefault(hash_, record)  # a training that changed nothing gives the adapter that it began from
    state = loop.state.with_round(trained=trained).but(adapters=adapters, phase="serve")
    loop.save(state, batch, outcome={name: one.adapter for name, one in trained.items()})


def _kept_rows(loop: TrainLoop) -> Sequence[TrainingRow]:
    """Return the round's rows from their file, or from the journal where somebody removed or changed it."""
    made = loop.state.round.made
    if made is None:
        raise StorageError("the run's state names a training without rows: start a new run")
    kept = read_kept(loop.run_dir, made)
    if kept is not None:
        return kept
    found = _rows_of(loop)
    again = keep_rows(loop.run_dir, loop.state.round.number, found.rows, found.left_out)
    if again is None or again.content != made.content:
        raise StorageError(
            f"the rows in {made.file!r} are not those that were made, and the journal no longer gives them: it was "
            "damaged; start a new run"
        )
    return found.rows


def _trained_on(loop: TrainLoop, found: Sequence[TrainingRow], name: str, link: Link) -> Trained:
    number = loop.state.round.number if loop.state.rounds else 0
    section = loop.section

    def progress(done: int, total: int, metrics: Mapping[str, float]) -> None:
        loop.session.books.stop.check()
        loop.session.view.progress(done, total)

    return loop.trainer.train(
        found,
        section.training(section.seed + number) if number else section.first_training(),
        out=loop.store.draft(f"round-{number:03d}-{name}"),
        start=loop.store.folder(link.current, link.critic) if link.current else None,
        reference=_reference(loop, name, link),
        previous=loop.store.folder(link.previous) if link.previous else None,
        progress=progress,
    )


def _reference(loop: TrainLoop, name: str, link: Link) -> Path | None:
    start = adapters_in((loop.state.start or {}).get("values", {})).get(name, BASE)
    hash_ = start if loop.section.reference == "start" else link.current
    return loop.store.folder(hash_) if hash_ else None


def serve(loop: TrainLoop) -> None:
    """Load what was trained, and make sure that it is what is served."""
    differences: dict[str, float] = {}
    unclear: dict[str, tuple[str, ...]] = {}
    for name, one in loop.state.round.trained.items():
        loop.serving.model(one.adapter)
        found = loop.serving.difference(one.adapter)
        if found is not None:
            differences[name] = found
        if others := loop.serving.not_told_apart(one.adapter):
            unclear[name] = others
    state = loop.state.with_round(differences=differences, not_told_apart=unclear)
    loop.save(state.but(phase="evaluate"), outcome=differences)


def evaluate(loop: TrainLoop) -> None:
    """Test the new weights on dev."""
    before, after = loop.on_dev(loop.incumbent, loop.trained)
    state = loop.state.with_round(dev=after.mean).but(phase="decide")
    loop.save(state, outcome={"before": before.mean, "after": after.mean})


def decide(loop: TrainLoop) -> None:
    """Accept the new weights by the paired test, or not; then go on from the right ones."""
    incumbent, new = loop.incumbent, loop.trained
    before, after = loop.on_dev(incumbent, new)
    verdict = judge(new, incumbent, after, before, loop.session.options.rule)
    accepted = verdict.kind == "accepted"
    if accepted:
        loop.final_test.put_aside(after)
    back = not accepted and loop.section.rollback
    adapters = dict(loop.state.adapters)
    for hash_ in {one.adapter for one in loop.state.round.trained.values()}:
        outcome: Outcome = "accepted" if accepted else "rolled back" if back else "rejected"
        if not adapters[hash_].outcome:
            adapters[hash_] = adapters[hash_].model_copy(update={"outcome": outcome})
    settled = Settled(
        kind=verdict.kind,
        reason=verdict.reason,
        candidate=new.id,
        score=verdict.score,
        incumbent_score=verdict.incumbent_score,
        low=verdict.low,
        high=verdict.high,
        rolled_back=back,
    )
    state = loop.state.with_round(settled=settled).but(
        incumbent=(new if accepted else incumbent).to_json(),
        links=chain.after_round(loop.section, loop.state.links, loop.state.round.trained, rolled_back=back),
        adapters=adapters,
        tests=loop.state.tests + 1,
        stale=0 if accepted else loop.state.stale + 1,
    )
    alternate = loop.section.alternate
    state = state.but(phase="prompts") if alternate else rounds.next_round(state, loop.section)
    loop.save(state, None, Decision(verdict, incumbent.id), outcome=settled.model_dump(mode="json"))
    loop.tell("verdict", verdict)
    loop.prune()


def prompts(loop: TrainLoop) -> None:
    """Have the job's optimizer work on the prompts, with the weights that were accepted."""
    if loop.make_optimizer is None:
        raise UserError("policy.alternate needs an optimizer: give the job an [optimizer] table")
    before, number = loop.incumbent, loop.state.round.number
    found, tests = improve_prompts(
        loop.session, loop.evaluator, loop.make_optimizer(), before, number, loop.state.tests, loop.final_test
    )
    gained = found.best.id != before.id
    state = loop.state.but(incumbent=found.best.to_json(), tests=tests, stale=0 if gained else loop.state.stale)
    if found.status == "budget":
        loop.save(state.but(status="budget", why="the budget was spent", limits=loop.limits))
        return
    state = state.with_round(prompts=found.best.id)
    loop.save(rounds.next_round(state, loop.section), outcome={"candidate": found.best.id})


PHASES: Mapping[str, Callable[[TrainLoop], None]] = {
    "start": start,
    "baseline": baseline,
    "extrapolate": extrapolate,
    "collect": collect,
    "rows": rows,
    "train": train,
    "serve": serve,
    "evaluate": evaluate,
    "decide": decide,
    "prompts": prompts,
}
"""What is done in each phase."""


def _put(batch: Batch, probe: Probe | None) -> str | None:
    return None if probe is None else batch.put(probe.to_json())


def _training(hash_: str, critic: str | None, made: Trained, link: Link, count: int, batch: Batch) -> Training:
    history: list[dict[str, Any]] = [dict(one) for one in made.history]
    return Training(
        adapter=hash_,
        start=link.current,
        previous=link.previous,
        metrics=dict(made.metrics),
        history=batch.put(history),
        rows=count,
        critic=critic,
    )
