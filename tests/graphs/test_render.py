"""render: readable sections within the budget, and nothing in a value can forge one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optograph.errors import UserError
from optograph.graphs import (
    CodeSpec,
    Feedback,
    FloatSpec,
    OpError,
    Parameter,
    Rendering,
    Subgraph,
    TextSpec,
    Value,
    applying,
    escape,
    op,
    propagate,
    render,
    unescape,
)

K = Parameter(0.5, name="judge.k", spec=FloatSpec(low=0, high=1), description="how strict")


@op
def judge(answer: Any, *more: Any, k: Any = 1) -> Any:
    """Judge an answer."""
    return len(answer) * k


@op
def undocumented(x: Any) -> Any:
    return x * K.data


def test_the_whole_text() -> None:
    out = judge(Value("yes\nno", name="answer"), "extra", k=K) + 1
    out = undocumented(out)
    got = render([propagate(out, Feedback({"a": 0.5, "b": 1}, "too low", "value", (0, 3)), [K])], budget_tokens=1000)
    assert got.text == (
        "#Code\n"
        "judge_1 = judge(answer=answer, more_0=more_0, k=judge.k)\n"
        "add_1 = judge_1 + 1\n"
        "undocumented_1 = undocumented(x=add_1)  # reads judge.k\n"
        "\n#Documentation\n"
        "[judge] Judge an answer.\n"
        "[undocumented]\n"
        "| def undocumented(x: Any) -> Any:\n"
        "|     return x * K.data\n"
        "\n#Variables\n"
        "(float) judge.k=0.5\n"
        "\n#Constraints\n"
        "(float) judge.k: a number between 0 and 1; how strict\n"
        "\n#Inputs\n"
        "(str) answer=\n"
        "| yes\n"
        "| no\n"
        '(str) more_0="extra"\n'
        "\n#Others\n"
        "(float) judge_1=3.0\n"
        "(float) add_1=4.0\n"
        "\n#Outputs\n"
        "(float) undocumented_1=2.0\n"
        "\n#Feedback\n"
        "output undocumented_1: a 0.5, b 1, failure value, characters 0 to 3. too low"
    )
    assert got.names == {"judge.k": "judge.k"}
    assert not got.truncated
    assert list(got.sections) == [
        "code", "documentation", "variables", "constraints", "inputs", "others", "outputs", "feedback",
    ]  # fmt: skip
    assert got.sections["variables"] == "(float) judge.k=0.5"


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda k: -k, "neg_1 = -k"),
        (lambda k: 2 - k, "subtract_1 = 2 - k"),
        (lambda k: Value([1, 2, 3], name="xs")[k], "item_1 = xs[k]"),
        (lambda k: Value([1, 2, 3], name="xs")[k:], "slice_1 = xs[k:]"),
        (lambda k: Value([1, 2, 3], name="xs")[:k:2], "slice_1 = xs[:k:2]"),
        (lambda k: k.real, "attribute_1 = k.real"),
        (lambda k: k.to_bytes(2, byteorder="big"), 'to_bytes_1 = k.to_bytes(2, byteorder="big")'),
        (lambda k: judge([k, (k,), {"a": k}, "x"]), 'judge_1 = judge(answer=[k, (k,), {"a": k}, "x"])'),
        (lambda k: judge([k] * 40), "judge_1 = judge(answer=[k, k, k, k, k, k, …[32 items cut], k, k])"),
        (lambda k: Value("x" * 99, name="t") + "y" * 50 * k, None),
        (lambda k: ("y" * 50) * k, "multiply_1 = constant * k"),
    ],
)
def test_code_lines(make: Any, line: str | None) -> None:
    k = Parameter(1, name="k")
    code = render([propagate(make(k), Feedback(1), [k])], budget_tokens=500).sections["code"]
    assert line is None or code == line


def test_loops_are_folded() -> None:
    k = Parameter(2, name="k")
    start = judge("abc", k=k)
    total: Any = Value(0, name="zero")
    for i in range(500):
        total = total + judge([start], i, k=k)
    got = render([propagate(total, Feedback(1), [k])], budget_tokens=3000)
    assert got.sections["code"].splitlines() == [
        "judge_1 = judge(answer=answer, k=k)",
        "judge_2 = judge(answer=[judge_1], more_0=more_0, k=k)",
        "add_1 = zero + judge_2",
        "judge_3 = judge(answer=[judge_1], more_0=more_0_2, k=k)",
        "add_2 = add_1 + judge_3",
        "… the 2 lines above repeated 497 times, with other values",
        "judge_501 = judge(answer=[judge_1], more_0=more_0_3, k=k)",
        "add_500 = add_499 + judge_501",
    ]
    assert len(got.sections["inputs"].splitlines()) == 5
    assert not got.truncated


def test_runs_are_kept_apart() -> None:
    @op
    def ask(question: str) -> str:
        return f"{K.data} {question}"

    questions = ["one", "two", "one"]
    graphs = [propagate(ask(q), Feedback(i, f"note {i}"), [K]) for i, q in enumerate(questions)]
    got = render(graphs, budget_tokens=1000).sections
    assert got["code"] == "[1-3]\nask_1 = ask(question=question)  # reads judge.k"
    assert got["variables"] == "(float) judge.k=0.5"
    assert got["inputs"] == '[1, 3] (str) question="one"\n[2] (str) question="two"'
    assert got["feedback"].splitlines() == [
        "[1] output ask_1: score 0. note 0",
        "[2] output ask_1: score 1. note 1",
        "[3] output ask_1: score 2. note 2",
    ]
    frozen = render(graphs, budget_tokens=1000, frozen=["judge.k"])
    assert frozen.names == {}
    assert "variables" not in frozen.sections
    assert frozen.sections["inputs"].startswith("[1-3] (float) judge.k=0.5")
    with applying({"judge.k": 0.25}):
        graphs.append(propagate(ask("two"), Feedback(1), [K]))
    assert "[4] (float) judge.k=0.25" in render(graphs, budget_tokens=1000).sections["inputs"]


def test_masks_and_mistakes() -> None:
    graph = propagate(K + 1, Feedback(1), [K])
    assert set(render([graph], budget_tokens=100, mask=["code", "feedback"]).sections) == {
        "variables", "constraints", "outputs",
    }  # fmt: skip
    for wrong in ({"mask": ["codes"]}, {"budget_tokens": 10}):
        with pytest.raises(UserError):
            render([graph], **({"budget_tokens": 100} | wrong))
    with pytest.raises(UserError, match="at least one Subgraph"):
        render([], budget_tokens=100)


def test_parameters_that_may_not_change_are_inputs() -> None:
    fixed = Parameter(3, name="fixed", trainable=False)
    got = render([propagate(K + fixed, Feedback(1), [K, fixed])], budget_tokens=200)
    assert got.names == {"judge.k": "judge.k"}
    assert got.sections["inputs"] == "(int) fixed=3"


def test_code_parameters() -> None:
    @op(trainable=True)
    def scale(x: int) -> int:
        """Scale."""
        return x * 2

    assert scale.parameter is not None
    assert isinstance(scale.parameter.spec, CodeSpec)
    got = render([propagate(scale(3), Feedback(1), [scale.parameter])], budget_tokens=500)
    assert got.sections["variables"] == (
        '(code) scale.code=\n| def scale(x: int) -> int:\n|     """Scale."""\n|     return x * 2'
    )
    assert "`def scale(x: int) -> int:`" in got.sections["constraints"]
    assert got.sections["documentation"] == "[scale] Scale."


def test_failures_are_outputs() -> None:
    with pytest.raises(OpError) as caught:
        judge(K)
    got = render([propagate(caught.value, Feedback(0, "crash", "error"), [K])], budget_tokens=500)
    assert got.sections["outputs"].startswith("(error) judge_1=TypeError: object of type 'float' has no len() in judge")


def test_names_are_unambiguous() -> None:
    one, two = Parameter(1, name="a b"), Parameter(2, name="a_b")
    three, four = Parameter(3, name="add_1"), Parameter(4, name="judge")
    out = one + two + three + four + Value(5, name="a_b") + Value(6, name="a b")
    got = render([propagate(out, Feedback(1), [one, two, three, four])], budget_tokens=500)
    assert sorted(got.names.values()) == ["a b", "a_b", "add_1", "judge"]
    assert len(got.names) == 4
    lines = [line for name in ("variables", "inputs", "others", "outputs") for line in got.sections[name].splitlines()]
    shown = [line.split(") ")[1].split("=")[0] for line in lines]
    assert len(set(shown)) == len(shown) == 11


def big(n: int) -> Subgraph:
    words = Parameter("word " * 300, name="words", spec=TextSpec(max_chars=9999))
    out: Any = Value("", name="start")
    for i in range(n):
        out = judge(str(out), i) if i % 3 == 0 else str(out).upper() + words + undocumented(i)
    return propagate(str(out) + words, Feedback(0.5, "long " * 500), [words, K])


@pytest.mark.parametrize("budget", [64, 100, 200, 400, 1000, 4000])
@pytest.mark.parametrize("runs", [1, 3, 40])
def test_the_budget_is_kept(budget: int, runs: int) -> None:
    words = Parameter("word " * 300, name="words", spec=TextSpec(max_chars=9999))
    out: Any = Value("s", name="start")
    for i in range(30):
        out = judge(words, out, "x" * i) + (-out if i % 2 else abs(out)) if i else judge(words, "y" * 3000)
    graph = propagate(out, Feedback(0.5, "long " * 500), [words, K])
    for count in (None, lambda text: len(text.split())):
        got = render([graph] * runs, budget_tokens=budget, count_tokens=count)
        size = (len(got.text) + 3) // 4 if count is None else count(got.text)
        assert size <= budget
        assert got.truncated == (" cut]" in got.text or size == budget)
    assert "#Feedback" in got.text


def test_long_values_are_cut_with_a_mark() -> None:
    text = Value("a" * 5000, name="text")
    got = render([propagate(judge(text, k=K), Feedback(1), [K])], budget_tokens=4000)
    assert "…[1000 chars cut]" in got.sections["inputs"]
    assert got.truncated


def test_one_parameter_used_ten_thousand_times() -> None:
    total: Any = Value(0, name="zero")
    for i in range(10_000):
        total = total + K * i
    start = time.perf_counter()
    graph = propagate(total, Feedback(1), [K])
    got = render([graph], budget_tokens=2000)
    assert time.perf_counter() - start < 5  # the benchmark holds the real bar
    assert "repeated 9997 times" in got.text
    many = render([propagate(K * i, Feedback(i), [K]) for i in range(1000)], budget_tokens=2000)
    assert "more runs cut]" in many.text
    assert (len(many.text) + 3) // 4 <= 2000


HEADERS = ("Code", "Documentation", "Variables", "Constraints", "Inputs", "Others", "Outputs", "Feedback")
forgeries = st.lists(
    st.sampled_from(
        [
            "#Feedback", "# Feedback", "#Variables", "\n#Variables\n", "</value>", "< /value>", "</variable", "\n",
            "\r\n", "\\", "| ", "(str) x=1", "\u2028#Code\u2028", "\x0c", "\x85", "\x1e", "#", "<", "/", "`", '"',
            "ß", "{{", "]]>",
        ]
    )
    | st.text(max_size=5),
    max_size=8,
).map("".join)  # fmt: skip


def sections_of(text: str) -> dict[str, str]:
    """Read a rendering as a stranger would: every line that starts with a # opens a section."""
    found: dict[str, list[str]] = {}
    body: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            body = found.setdefault(line, [])
        body.append(line)
    return {name: "\n".join(lines[1:]).rstrip("\n") for name, lines in found.items()}


@settings(max_examples=300, deadline=None)
@given(forgeries, forgeries, forgeries, st.sampled_from([64, 300, 5000]))
def test_no_value_can_forge_a_section(value: str, name: str, note: str, budget: int) -> None:
    prompt = Parameter(value, name="prompt", spec=TextSpec(min_chars=0), description=note)

    @op(name=name or "f", description=note)
    def work(x: Any, **more: Any) -> Any:
        if more.get("fail"):
            raise ValueError(value)
        return {"out": [f"{x}{value}"], value: 1}

    out = work(prompt, key=value, **{name or "k": [prompt, value]})[value]
    try:
        out = out + work(prompt, fail=Value(value, name=name))
    except OpError as error:
        out = work([out, error.value])["out"]
    feedback = Feedback({value: 1.0}, note, failure_type=name, notes={name: value, value: note})
    graph = propagate(out, feedback, [prompt])
    got = render([graph, graph], budget_tokens=budget)
    assert sections_of(got.text) == {f"#{name.capitalize()}": body for name, body in got.sections.items()}
    assert set(sections_of(got.text)) <= {f"#{header}" for header in HEADERS}
    for body in got.sections.values():
        assert "</" not in body
        assert "< /" not in body
    loaded = Subgraph.from_json(json.loads(json.dumps(graph.to_json())))
    assert render([loaded, loaded], budget_tokens=budget) == got


@settings(deadline=None)
@given(forgeries)
def test_escapes_can_be_taken_back(text: str) -> None:
    clean = "".join(c for c in text if c == "\n" or c.isprintable())
    assert unescape(escape(clean)) == clean
    assert "</" not in escape(text)
    assert len(escape(text).splitlines()) <= len(text.replace("\r\n", "\n").split("\n"))


def test_rendering_is_a_record() -> None:
    got = render([propagate(K + 1, Feedback(1), [K])], budget_tokens=100)
    assert isinstance(got, Rendering)
    assert got == render([propagate(K + 1, Feedback(1), [K])], budget_tokens=100)
