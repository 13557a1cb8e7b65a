"""What each call of a rollout is worth: by the graph that feedback goes back through, by a critic, or by its group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from optograph.errors import UserError
from optograph.graphs import Feedback, Node, Trace
from optograph.optimizers.policy.collect import TracedCredit
from optograph.optimizers.policy.rows import TrainingRow


class Critic(Protocol):
    """A value function over token ids, as OREO trains one."""

    def values(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[float]]:
        """Return V of the state after each token, for each sequence; as long as the sequence itself."""
        ...


class GraphCredit(TracedCredit):
    """Sends the feedback back through the traced graph, and gives each call what arrives at its node.

    The output has the feedback's total. A node with a named score of its own has that; any other has the mean of
    what the nodes have that use its result. So a node answers for what was made of its answer, and a node whose result
    the output does not come from has no credit: its calls make no rows.
    """

    def rewards(self, feedback: Feedback, nodes: Sequence[str | None], trace: Trace) -> list[float | None]:
        """Return what each call earned, None where the feedback does not reach its node.

        Raises:
            UserError: The trace holds none of the nodes that made calls.
        """
        earned = backward(feedback, trace)
        if nodes and not any(node is None or node in earned for node in nodes):
            raise UserError(
                f"the trace has the nodes {sorted(earned)!r}, and none of those that made calls, "
                f"{sorted({str(node) for node in nodes})!r}: an op must have the name under which it calls, as steps "
                "have; or use broadcast"
            )
        return [feedback.total if node is None else earned.get(node) for node in nodes]


by_graph = GraphCredit()
"""Credit by the traced graph: see `GraphCredit`."""


def backward(feedback: Feedback, trace: Trace) -> dict[str, float]:
    """Send feedback back through a trace, and return what arrives at each op that was called, by name.

    A name that stands for several nodes of the trace has their mean.
    """
    named = feedback.score if isinstance(feedback.score, Mapping) else {}
    arrived: dict[str, list[float]] = defaultdict(list)
    for output in trace.outputs:
        arrived[output].append(feedback.total)
    earned: dict[str, list[float]] = defaultdict(list)
    for node in reversed(trace.nodes):  # children come after their parents
        if not arrived[node.id]:
            continue
        name = _called(node)
        credit = math.fsum(arrived[node.id]) / len(arrived[node.id])
        if name is not None:
            credit = named.get(name, credit)
            earned[name].append(credit)
        for parent in node.parents():
            arrived[parent].append(credit)
    return {name: math.fsum(credits) / len(credits) for name, credits in earned.items()}


def _called(node: Node) -> str | None:
    """Return the name of the op or LangGraph node that was called; None for operators and leaves."""
    if node.op is None or node.op.style != "call":
        return None
    if isinstance(node.info, Mapping) and isinstance(node.info.get("node"), str):
        return str(node.info["node"]).removesuffix("?")  # a router is part of the node that it follows
    return node.op.name


def critic_advantages(
    rows: Sequence[TrainingRow],
    critic: Critic,
    *,
    last: Literal["reward", "critic"] = "reward",
    batch_size: int = 16,
) -> list[TrainingRow]:
    """Return the rows with the advantage of each call for its reward: V at the answer's end less V before it.

    V is read where OREO trains it, in states in which the policy chose a token: before the answer's first, and before
    its last, which as a rule ends the turn. What happens between two calls, such as a tool's answer, changes V too, and
    is credited to nobody.

    Args:
        rows: Rows of whole rollouts, with the rollout's total as their reward (`broadcast`).
        critic: The value function.
        last: What V is at the end of the last call of a rollout among the rows: ``"reward"``, its known reward, or
            the critic's guess of it.
        batch_size: Rows that the critic sees at once, at least 1.

    Raises:
        UserError: `batch_size` is less than 1, `last` is neither, or the critic gives no finite number a token.
    """
    if batch_size < 1 or last not in ("reward", "critic"):
        raise UserError(f"batch_size must be at least 1 and last 'reward' or 'critic', got {batch_size!r} and {last!r}")
    final: dict[str, int] = {}
    for row in rows:
        final[row.rollout] = max(row.call, final.get(row.rollout, row.call))
    made = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for row, values in zip(batch, _values(critic, batch), strict=True):
            ends = last == "reward" and row.call == final[row.rollout]
            after = row.reward if ends else values[row.last_action - 1]
            made.append(row.model_copy(update={"reward": after - values[row.prompt_length - 1]}))
    return made


def _values(critic: Critic, rows: Sequence[TrainingRow]) -> list[list[float]]:
    values = [[float(one) for one in given] for given in critic.values([row.input_ids for row in rows])]
    sizes = [len(row.input_ids) for row in rows]
    if [len(one) for one in values] != sizes or not all(math.isfinite(one) for given in values for one in given):
        raise UserError(
            f"the critic must give one finite value a token: {sizes!r} tokens, and values of the lengths "
            f"{[len(one) for one in values]!r}"
        )
    return values


def group_advantages(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return the rows with their reward less the mean reward of all answers to the same prompt.

    The credit of a counterfactual group: what an answer is worth beside those that could have been in its place. Rows
    alone with their prompt have nothing to be compared with, and are left out.
    """
    groups: dict[tuple[object, ...], list[TrainingRow]] = defaultdict(list)
    for row in rows:
        groups[_prompt(row)].append(row)
    means = {key: math.fsum(row.reward for row in group) / len(group) for key, group in groups.items()}
    return [
        row.model_copy(update={"reward": row.reward - means[_prompt(row)]})
        for row in rows
        if len(groups[_prompt(row)]) > 1
    ]


def _prompt(row: TrainingRow) -> tuple[object, ...]:
    return (row.node, row.adapter, row.policy, row.input_ids[: row.prompt_length])
