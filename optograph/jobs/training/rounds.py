"""From one round to the next: what comes after, when training ends, and which adapters stay."""

from __future__ import annotations

from typing import Literal

from optograph.jobs.training import chain
from optograph.jobs.training.parameters import adapters_in
from optograph.jobs.training.records import Round, Settled, TrainState
from optograph.jobs.training.section import PolicySection


def next_round(state: TrainState, section: PolicySection) -> TrainState:
    """Return the state at the begin of the next round, or at the end."""
    done = len(state.rounds)
    if done >= section.rounds:
        return state.but(status="finished", why=f"all {done} rounds are done", phase="ended")
    if section.patience and state.stale >= section.patience:
        return state.but(status="finished", why=f"no gain in {state.stale} rounds", phase="ended")
    moves = any(link.previous is not None for link in state.links.values())
    new = Round(number=done + 1, links=state.links)
    return state.but(rounds=(*state.rounds, new), phase="extrapolate" if moves else "collect")


def opened_again(state: TrainState, section: PolicySection) -> TrainState | None:
    """Return the state in which a finished run goes on, where the job now has more rounds; None where it has not."""
    going = next_round(state.but(status="", why=""), section)
    return None if going.status else going


def nothing_learned(state: TrainState, section: PolicySection, reason: str) -> TrainState:
    """Settle a round that trained nothing, and go on."""
    settled = Settled(kind="identical", reason=reason, candidate=str((state.incumbent or {}).get("id", "")))
    links = chain.after_round(section, state.links, {}, rolled_back=False)
    return next_round(state.with_round(settled=settled).but(links=links, stale=state.stale + 1), section)


def needed_adapters(state: TrainState, keep: Literal["best", "all"] | int) -> set[str]:
    """Return the hashes of the adapters that stay: by the job's rule, and what the run still needs.

    Args:
        state: Where the run stands.
        keep: ``"all"``, ``"best"`` or the number of the newest ones that stay as well.
    """
    if keep == "all":
        return set(state.adapters)
    found = {one for link in state.links.values() for one in (link.current, link.previous, link.sampling) if one}
    for candidate in (state.start, state.incumbent):
        found |= {one for one in adapters_in((candidate or {}).get("values", {})).values() if one}
    if state.rounds and state.round.settled is None:
        found |= {one.adapter for one in state.round.trained.values()}
    if isinstance(keep, int):
        found |= set([hash_ for hash_, one in state.adapters.items() if one.made == "trained"][-keep:])
    return found
