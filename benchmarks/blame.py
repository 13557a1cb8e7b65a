"""Measure whether feedback finds the node to blame in LangGraph apps with branches and dead branches.

In each of 50 seeds one node's prompt is wrong, in turn over the nodes of three apps. OptoPrime has three steps; its
model is a program that reads the rendered problem and nothing else (see ``branching/solver.py``). Repaired means that
every held-out answer is right. The same with the code section masked, and with the code lines reading each other's
variables, says what the graph is worth. Every rendered problem must name the faulty node and no dead one.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.branching.apps import TOPOLOGIES, Topology  # noqa: E402 - found by the line above
from benchmarks.branching.solver import ADDENDS, FACTORS, Setting, prompt, reply, shuffled  # noqa: E402
from optograph.agents.langgraph import trace_langgraph  # noqa: E402
from optograph.evals import Evaluator, Example, SealedSplit, Task  # noqa: E402
from optograph.graphs import Candidate, Feedback  # noqa: E402
from optograph.optimizers import Loop, OptimizerContext, OptoPrime, OptoPrimeOptions  # noqa: E402
from optograph.serving import Request, ScriptedLM  # noqa: E402
from optograph.storage import Journal  # noqa: E402

Mode = Literal["graph", "masked", "shuffled"]
MODES: tuple[Mode, ...] = ("graph", "masked", "shuffled")
STEPS = 3
REPAIR_BAR = 0.95
MARGIN = 0.30


@dataclass
class Planted:
    """An app with one wrong prompt.

    Attributes:
        topology: The app's form.
        right: The settings that give the expected answers.
        fault: The node whose prompt is wrong.
        wrong: Its setting.
    """

    topology: Topology
    right: dict[str, Setting]
    fault: str
    wrong: Setting

    def prompts(self, *, mended: bool = False) -> dict[str, str]:
        """Return the prompts, with the fault or without it."""
        settings = self.right if mended else {**self.right, self.fault: self.wrong}
        return {node: prompt(setting) for node, setting in settings.items()}


@dataclass
class Outcome:
    """What became of one seed in one mode.

    Attributes:
        repaired: Whether every held-out answer is right in the end.
        sound: Whether each rendered problem named the faulty node and no dead one.
    """

    repaired: bool = False
    sound: bool = True
    prompts: list[str] = field(default_factory=list)


def plant(seed: int) -> Planted:
    """Make the app of a seed: the form and the faulty node go round in turn."""
    rng = random.Random(seed)
    places = [(topology, node) for topology in TOPOLOGIES for node in topology.live]
    topology, fault = places[seed % len(places)]
    right = {node: _setting(rng) for node in (*topology.live, *topology.dead)}
    wrong = _setting(rng)
    while wrong == right[fault]:
        wrong = _setting(rng)
    return Planted(topology, right, fault, wrong)


def _setting(rng: random.Random) -> Setting:
    return rng.choice(FACTORS[1:]), rng.choice(ADDENDS)


def task(planted: Planted) -> Task:
    """Return inputs with the answers of the app without its fault."""
    app = planted.topology.build(planted.prompts(mended=True))

    def rows(prefix: str, numbers: Sequence[int]) -> list[Example]:
        return [Example(f"{prefix}{x}", {"x": x}, app.invoke({"x": x})["answer"]) for x in numbers]

    def score(example: Example, output: Any) -> Feedback:
        right = output == example.expected
        said = f"The answer should be {example.expected}" + (" and it is." if right else f", not {output}.")
        return Feedback(score=float(right), text=said, failure_type=None if right else "wrong")

    return Task(rows("t", range(1, 13)), rows("d", range(21, 41)), SealedSplit(rows("s", range(51, 55))), score)


def run(seed: int, mode: Mode) -> Outcome:
    """Run OptoPrime on the app of a seed."""
    planted = plant(seed)
    rng = random.Random(1000 + seed)
    outcome = Outcome()

    def answer(asked: Request) -> dict[str, Any]:
        text = asked.messages[-1].content
        outcome.prompts.append(text)
        return reply(shuffled(text, rng) if mode == "shuffled" else text, rng)

    workflow = trace_langgraph(planted.topology.build(planted.prompts()), output="answer")
    journal = Journal.memory()
    options = OptoPrimeOptions(steps=STEPS, minibatch=8, mask=("code",) if mode == "masked" else ())
    optimizer = OptoPrime(options)
    work = task(planted)
    parameters = workflow.named_parameters()
    optimizer.bind(OptimizerContext(parameters, work, journal, ScriptedLM(answer), seed), Candidate({}))
    result = Loop(optimizer, Evaluator(workflow, work, parameters, journal), journal).run()
    outcome.repaired = result.best_dev is not None and result.best_dev.mean == 1.0
    outcome.sound = all(_sound(text, planted) for text in outcome.prompts)
    journal.close()
    return outcome


def _sound(text: str, planted: Planted) -> bool:
    """Whether a rendered problem holds the faulty node's variable and nothing of a dead node."""
    shown = set(re.findall(r"^\(str\) (\S+)\.prompt=", text, re.MULTILINE))
    fault, *dead = (node.replace("/", "_") for node in (planted.fault, *planted.topology.dead))
    return fault in shown and not shown & set(dead)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether every bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    given = parser.parse_args(arguments)
    console = Console(width=100)
    rates: dict[str, float] = {}
    sound = True
    table = Table(title=f"one wrong prompt, {STEPS} steps of OptoPrime, {given.seeds} seeds")
    for column in ("what the optimizer is shown", "repaired", "rate"):
        table.add_column(column, justify="left" if column.startswith("what") else "right")
    for mode in MODES:
        outcomes = [run(seed, mode) for seed in track(range(given.seeds), mode, console=console, transient=True)]
        rates[mode] = sum(one.repaired for one in outcomes) / len(outcomes)
        sound &= mode == "masked" or all(one.sound for one in outcomes)
        table.add_row(mode, str(sum(one.repaired for one in outcomes)), f"{rates[mode]:.0%}")
    console.print(table)
    figures = {**{f"repaired_{mode}": f"{rate:.2f}" for mode, rate in rates.items()}, "subgraphs_sound": int(sound)}
    print(" ".join(f"{name}={value}" for name, value in figures.items()))
    lower = max(rates["masked"], rates["shuffled"]) <= rates["graph"] - MARGIN
    return 0 if sound and lower and rates["graph"] >= REPAIR_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
