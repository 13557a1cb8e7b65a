"""An optimizer's model that is a program: it reads the rendered problem, and nothing else, and works out an edit.

It runs the code lines that it is shown with every other prompt for every variable, and proposes one that gives the
answers that the feedback asks for. Without code lines, or with wrong ones, it can only guess.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FACTORS, ADDENDS = range(1, 8), range(0, 8)
_LINE = re.compile(r"^(\w+) = (\w+)\((.*?)\)(?:  # reads (.*))?$")
_VARIABLE = re.compile(r'^\(str\) (\S+)="Multiply by (\d+) and add (\d+)\."$')
_INPUT = re.compile(r"^(?:\[([\d, -]+)\] )?\(dict\) (\w+)=(\{.*\})$")
_FEEDBACK = re.compile(r"^\[(\d+)\] .*?The answer should be (-?\d+)")
_GROUP = re.compile(r"^\[([\d, -]+)\]$")

Setting = tuple[int, int]


def prompt(setting: Setting) -> str:
    """Return the prompt for a factor and an addend."""
    return f"Multiply by {setting[0]} and add {setting[1]}."


@dataclass
class Problem:
    """What the rendered text says.

    Attributes:
        lines: For each run the calls: result, function, arguments by name, what it reads besides.
        variables: The settings of the prompts, by variable.
        inputs: For each run the inputs, by name.
        expected: For each run the answer that the feedback asks for.
    """

    lines: dict[int, list[tuple[str, str, dict[str, list[str]], list[str]]]] = field(default_factory=dict)
    variables: dict[str, Setting] = field(default_factory=dict)
    inputs: dict[int, dict[str, dict[str, int]]] = field(default_factory=dict)
    expected: dict[int, int] = field(default_factory=dict)


def read(text: str) -> Problem:
    """Read a rendered problem."""
    problem = Problem()
    section, runs = "", [1]
    for line in text.splitlines():
        if line.startswith("#"):
            section, runs = line.strip("# "), [1]
        elif section == "Code" and (group := _GROUP.match(line)):
            runs = _numbers(group[1])
        elif section == "Code" and (call := _LINE.match(line)):
            reads = [one.strip() for one in (call[4] or "").split(",")]
            for run in runs:
                problem.lines.setdefault(run, []).append((call[1], call[2], _arguments(call[3]), reads))
        elif section == "Variables" and (found := _VARIABLE.match(line)):
            problem.variables[found[1]] = (int(found[2]), int(found[3]))
        elif section == "Inputs" and (given := _INPUT.match(line)):
            for run in _numbers(given[1]) if given[1] else [1]:
                problem.inputs.setdefault(run, {})[given[2]] = json.loads(given[3])
        elif section == "Feedback" and (said := _FEEDBACK.match(line)):
            problem.expected[int(said[1])] = int(said[2])
    return problem


def solve(problem: Problem, rng: random.Random) -> tuple[str, Setting]:
    """Return a variable and its new setting: one that mends every run shown, or a guess."""
    good = [
        (name, setting)
        for name in problem.variables
        for setting in ((factor, addend) for factor in FACTORS for addend in ADDENDS)
        if setting != problem.variables[name] and _mends(problem, {**problem.variables, name: setting})
    ]
    if good:
        return rng.choice(good)
    return rng.choice(sorted(problem.variables)), (rng.choice(FACTORS), rng.choice(ADDENDS))


def shuffled(text: str, rng: random.Random) -> str:
    """Return a rendered problem whose code lines read each other's variables."""
    head, code, rest = _parts(text)
    names = sorted(set(re.findall(r"[\w/]+\.prompt", code)))
    others = names[1:] + names[:1] if len(names) > 1 else names
    if rng.random() < 0.5:
        others = names[-1:] + names[:-1]
    known = dict(zip(names, others, strict=True))
    return head + re.sub(r"[\w/]+\.prompt", lambda found: known[found[0]], code) + rest


def _parts(text: str) -> tuple[str, str, str]:
    start = text.find("#Code")
    if start < 0:
        return text, "", ""
    end = text.find("\n\n#", start)
    return text[:start], text[start:end], text[end:]


def _mends(problem: Problem, settings: Mapping[str, Setting]) -> bool:
    if not problem.expected or set(problem.expected) - set(problem.lines):
        return False
    return all(_result(problem, run, settings) == wanted for run, wanted in problem.expected.items())


def _result(problem: Problem, run: int, settings: Mapping[str, Setting]) -> int | None:
    """Run the code lines of one run; None where they make no sense."""
    known: dict[str, int] = {}
    inputs = problem.inputs.get(run, {})
    for result, function, arguments, reads in problem.lines[run]:
        if function == "model_call" or function.startswith("route_"):
            continue
        try:
            given = [_value(name, key, known, inputs) for key, names in arguments.items() for name in names]
        except KeyError:
            return None
        if function == "output":
            return given[0] if given else None
        own = [one for one in reads if one in settings]
        if len(own) != 1:
            return None
        factor, addend = settings[own[0]]
        known[result] = factor * sum(given) + addend
    return None


def _value(name: str, key: str, known: Mapping[str, int], inputs: Mapping[str, Mapping[str, int]]) -> int:
    return known[name] if name in known else int(inputs[name][key])


def _arguments(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, names in re.findall(r"(\w+)=(\[[^\]]*\]|\w+)", text):
        found[key] = [one.strip() for one in names.strip("[]").split(",")]
    return found


def _numbers(text: str) -> list[int]:
    return [number for part in text.split(",") for number in _range(part)]


def _range(part: str) -> Iterator[int]:
    first, _, last = part.strip().partition("-")
    yield from range(int(first), int(last or first) + 1)


def reply(text: str, rng: random.Random) -> dict[str, Any]:
    """Return the answer that OptoPrime asks for."""
    name, setting = solve(read(text), rng)
    return {
        "reasoning": f"{name} makes the runs come out as the feedback asks",
        "blame": [name],
        "answer": "CHANGE",
        "suggestion": {name: prompt(setting)},
    }
