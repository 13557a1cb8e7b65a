"""Subgraphs as sections of a prompt: one or many, under a token budget, nothing of a value able to forge a section."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from optograph.errors import UserError
from optograph.graphs.encoding import type_name
from optograph.graphs.feedback import Feedback
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.program import Program, op_key, safe_name
from optograph.graphs.propagation import Subgraph
from optograph.graphs.showing import SECTIONS, assignment, block, cut, has_cut, one_line
from optograph.graphs.shown import shown
from optograph.graphs.trace import Node

CountTokens = Callable[[str], int]

LEAST_BUDGET = 64
"""Smallest budget in tokens."""

_TOKENS_A_RUN = 12  # less than any run of a batch needs
_MOST = ("others", "documentation", "code", "inputs", "outputs")
_STAGES: tuple[tuple[int, int | None, tuple[str, ...]], ...] = (
    (4000, None, ()),
    (1500, None, ()),
    (500, None, ()),
    (500, None, ("others",)),
    (200, None, ("others", "documentation")),
    (80, None, _MOST),
    (80, 2000, _MOST),
    (80, 400, _MOST),
    (80, 80, (*_MOST, "feedback", "constraints", "variables")),
)
"""From rich to poor: most characters of a value, and of a variable's value; sections that lose lines."""


@dataclass(frozen=True)
class Rendering:
    """The sections of a prompt about some subgraphs.

    Attributes:
        sections: Text by section: code, documentation, variables, constraints, inputs, others, outputs, feedback;
            those that are masked or empty are left out.
        text: All sections, each under a line ``#Name``.
        names: Names of the parameters that may change, by the names under which the text shows them.
        truncated: Whether anything was cut.
    """

    sections: dict[str, str]
    text: str
    names: dict[str, str]
    truncated: bool


def default_count(text: str) -> int:
    """Return about how many tokens a text has: a quarter of its characters."""
    return (len(text) + 3) // 4


def render(
    subgraphs: Sequence[Subgraph],
    *,
    budget_tokens: int,
    mask: Collection[str] = (),
    frozen: Collection[str] = (),
    count_tokens: CountTokens | None = None,
) -> Rendering:
    """Merge subgraphs into the sections of one prompt.

    Several subgraphs (a minibatch) are numbered as runs, each with its own inputs, outputs and feedback; code that
    runs share and parameters appear once. To stay within the budget, values are cut first, then lines.

    Args:
        subgraphs: At least one; live from `propagate` or loaded from JSON, to the same effect.
        budget_tokens: Most tokens of the text, at least 64.
        mask: Sections to leave out.
        frozen: Names of parameters to show as inputs, not as variables.
        count_tokens: A tokenizer's count; a quarter of the characters where None.

    Raises:
        UserError: There is no subgraph, a section is unknown, or the budget is too small.
    """
    graphs = list(subgraphs)
    _check(graphs, budget_tokens, mask)
    count = default_count if count_tokens is None else count_tokens
    most = max(1, budget_tokens // _TOKENS_A_RUN)
    writer = _Writer(graphs[:most], len(graphs), frozenset(mask), frozenset(frozen))
    sections: dict[str, list[str]] = {}
    rich = True
    for limit, variable_limit, dispensable in _STAGES:
        sections = _squeezed(writer.write(limit, variable_limit), dispensable, budget_tokens, count)
        if count(_joined(sections)) <= budget_tokens:
            break
        rich = False
    text = _joined(sections)
    bodies = {name: "\n".join(lines) for name, lines in sections.items() if lines}
    truncated = not rich or most < len(graphs) or has_cut(text)
    return Rendering(bodies, text, dict(writer.variables), truncated)


def _check(graphs: list[Subgraph], budget_tokens: int, mask: Collection[str]) -> None:
    if not graphs or not all(isinstance(graph, Subgraph) for graph in graphs):
        raise UserError(f"render() takes a list of at least one Subgraph, got {shown(graphs)}")
    if budget_tokens < LEAST_BUDGET:
        raise UserError(f"budget_tokens must be at least {LEAST_BUDGET}, got {budget_tokens!r}")
    unknown = [name for name in mask if name not in SECTIONS]
    if unknown:
        raise UserError(f"unknown sections in mask: {unknown!r}; known are {', '.join(SECTIONS)}")


class _Writer:
    """Names everything once, then writes the sections as often as the budget asks for."""

    def __init__(self, graphs: list[Subgraph], total: int, mask: frozenset[str], frozen: frozenset[str]) -> None:
        self._graphs, self._total, self._mask = graphs, total, mask
        parameters: dict[str, str] = {}
        ops: dict[tuple[str, ...], str] = {}
        trainable: dict[str, None] = {}
        for node in (node for graph in graphs for node in graph.nodes):
            record = node.parameter
            if record is not None:
                if record.name not in parameters:
                    parameters[record.name] = _free(safe_name(record.name), parameters.values())
                if record.trainable and not node.frozen and record.name not in frozen:
                    trainable[record.name] = None
        infos = {id(node.op): node.op for graph in graphs for node in graph.nodes if node.op is not None}
        for info in infos.values():
            if op_key(info) not in ops:
                ops[op_key(info)] = _free(safe_name(info.name), [*ops.values(), *parameters.values()])
        self._ops, self._parameters = ops, parameters
        self._programs = [Program(graph, parameters, ops, trainable.keys()) for graph in graphs]
        self._nodes: dict[str, Node] = {}
        for program in self._programs:
            for name, node in program.variables.items():
                self._nodes.setdefault(name, node)
        names = {shown_name: name for name, shown_name in parameters.items()}
        self.variables = {name: names[name] for name in self._nodes}

    def write(self, limit: int, variable_limit: int | None) -> dict[str, list[str]]:
        """Return the lines of every section, values cut to some characters."""
        makers: dict[str, Callable[[], list[str]]] = {
            "code": self._code,
            "documentation": lambda: self._documentation(limit),
            "variables": lambda: [
                assignment(_kind(node), name, node.data, variable_limit) for name, node in self._nodes.items()
            ],
            "constraints": lambda: self._constraints(limit),
            "inputs": lambda: self._values("inputs", limit),
            "others": lambda: self._values("others", limit),
            "outputs": lambda: self._values("outputs", limit),
            "feedback": lambda: self._feedback(limit),
        }
        return {name: make() for name, make in makers.items() if name not in self._mask}

    def _mark(self, run: int) -> str:
        return f"[{run + 1}] " if self._total > 1 else ""

    def _code(self) -> list[str]:
        groups: dict[tuple[str, ...], list[int]] = {}
        for run, program in enumerate(self._programs):
            groups.setdefault(tuple(program.code), []).append(run + 1)
        lines: list[str] = []
        for code, runs in groups.items():
            if self._total > 1 and code:
                lines.append(f"[{_ranges(runs)}]")
            lines.extend(code)
        return lines

    def _documentation(self, limit: int) -> list[str]:
        used: dict[tuple[str, ...], OpInfo] = {}
        for program in self._programs:
            used.update(program.used)
        lines = []
        for key, info in used.items():
            if info.style != "call" or not (info.description or info.source):
                continue
            name = self._ops[key]
            if info.description:
                lines.append(f"[{name}] {one_line(cut(info.description, limit))}")
            elif f"{info.name}.code" not in self._parameters:
                lines.append(f"[{name}]\n{block(_undecorated(info.source), limit)}")
        return lines

    def _constraints(self, limit: int) -> list[str]:
        lines = []
        for name, node in self._nodes.items():
            if node.parameter is not None:
                about = f"; {one_line(cut(node.parameter.description, limit))}" if node.parameter.description else ""
                lines.append(f"({_kind(node)}) {name}: {one_line(node.parameter.constraint)}{about}")
        return lines

    def _values(self, section: str, limit: int) -> list[str]:
        """Return a section's values; what is the same in several runs is said once."""
        runs_of: dict[str, list[int]] = {}
        for run, program in enumerate(self._programs):
            pairs: list[tuple[str, Any]] = [program.output] if section == "outputs" else getattr(program, section)
            if section == "inputs":  # a variable whose value was another one in this run
                pairs = pairs + [
                    (name, node.data) for name, node in program.variables.items() if node.data != self._nodes[name].data
                ]
            for name, data in pairs:
                runs_of.setdefault(assignment(type_name(data), name, data, limit), []).append(run + 1)
        mark = self._total > 1
        return [f"[{_ranges(runs)}] {line}" if mark else line for line, runs in runs_of.items()]

    def _feedback(self, limit: int) -> list[str]:
        lines = []
        for run, (graph, program) in enumerate(zip(self._graphs, self._programs, strict=True)):
            lines.append(self._mark(run) + _judgement(graph.feedback, program, limit))
        if self._total > len(self._graphs):
            lines.append(f"…[{self._total - len(self._graphs)} more runs cut]")
        return lines


def _judgement(feedback: Feedback, program: Program, limit: int) -> str:
    facts = []
    if isinstance(feedback.score, float):
        facts.append(f"score {feedback.score:g}")
    elif feedback.score is not None:
        facts.extend(f"{one_line(name)} {score:g}" for name, score in feedback.score.items())
    if feedback.failure_type:
        facts.append(f"failure {one_line(feedback.failure_type)}")
    if feedback.span is not None:
        facts.append(f"characters {feedback.span[0]} to {feedback.span[1]}")
    head = f"output {program.output[0]}: {', '.join(facts) or 'no score'}"
    text = feedback.text.strip()
    if text and "\n" not in text:
        head += f". {one_line(cut(text, limit))}"
    elif text:
        head += f"\n{block(text, limit)}"
    notes = [
        f"\n| note on {program.name_of(name)}: {one_line(cut(note, limit))}" for name, note in feedback.notes.items()
    ]
    return head + "".join(notes)


def _undecorated(source: str) -> str:
    lines = source.splitlines()
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(("def ", "async def "))), 0)
    return "\n".join(lines[start:])


def _kind(node: Node) -> str:
    return "code" if node.parameter is not None and node.parameter.kind == "code" else type_name(node.data)


def _free(name: str, taken: Collection[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _ranges(runs: list[int]) -> str:
    parts: list[list[int]] = []
    for run in runs:
        if parts and parts[-1][1] == run - 1:
            parts[-1][1] = run
        else:
            parts.append([run, run])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _joined(sections: dict[str, list[str]]) -> str:
    return "\n\n".join(f"#{name.capitalize()}\n" + "\n".join(lines) for name, lines in sections.items() if lines)


def _squeezed(
    sections: dict[str, list[str]], names: Sequence[str], budget: int, count: CountTokens
) -> dict[str, list[str]]:
    """Take lines out of the middle of the named sections, in this order, until the text fits."""
    for name in names:
        if not sections.get(name) or count(_joined(sections)) <= budget:
            continue
        lines = sections[name]
        low, high = 0, len(lines) - 1  # most lines that can stay
        while low < high:
            middle = (low + high + 1) // 2
            if count(_joined({**sections, name: _middle_out(lines, middle)})) <= budget:
                low = middle
            else:
                high = middle - 1
        sections = {**sections, name: _middle_out(lines, low)}
        if count(_joined(sections)) > budget:
            sections[name] = []
    return sections


def _middle_out(lines: list[str], keep: int) -> list[str]:
    if keep >= len(lines):
        return lines
    tail = keep // 2
    mark = f"…[{len(lines) - keep} lines cut]"
    return [*lines[: keep - tail], mark, *(lines[-tail:] if tail else [])]
