"""Where the feedback points: the section's chart, table and sentence, with all of the evidence and with little."""

from __future__ import annotations

import re

from optograph.report import Credit, NodeCredit, RunReport, render_report
from optograph.report.credit_chart import MAX_NODES, credit_chart, drawn
from optograph.report.svg import DASH
from optograph.report.views import pointing

ROUTE = NodeCredit(node="route", failed_before=6, passed_before=2, failed_after=1, passed_after=7)
ANSWER = NodeCredit(
    node="answer",
    parameters=["answer.instruction", "answer.demos"],
    failed_before=6,
    failed_after=1,
    passed_after=5,
    named=3,
    unusable=2,
    tried=5,
    accepted=1,
    gain=0.25,
)
CREDIT = Credit(nodes=[ROUTE, ANSWER], runs_before=8, runs_after=8, proposals=4)


def section(credit: Credit | None) -> str:
    """Return the section of a page, or nothing where it has none."""
    page = render_report(RunReport(title="t", credit=credit))
    found = re.search(r'<section id="credit".*?</section>', page, re.S)
    assert (found is None) == ('href="#credit"' not in page)
    return found[0] if found else ""


def cells(html: str) -> list[list[str]]:
    """Return the texts of the table."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    return [
        [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
        for row in rows
    ]


def widths(html: str, name: str) -> list[float]:
    """Return the widths of bars of a class, as shares of the whole."""
    return [round(float(one) / 546, 3) for one in re.findall(rf'width="([\d.]+)" height="10" class="bar-{name}"', html)]


def test_the_table_holds_the_figures() -> None:
    assert cells(section(CREDIT)) == [
        ["Node", "Failed, before", "Failed, after", "Named at fault", "Edits tried", "Accepted", "Gain on dev"],
        ["route", "6 of 8", "1 of 8", DASH, DASH, DASH, DASH],
        ["answer answer.instruction, answer.demos", "6 of 6", "1 of 6", "3", "5 2 unusable", "1", "+0.250"],
    ]


def test_bars_are_shares_of_all_runs_and_of_all_proposals() -> None:
    html = str(credit_chart(CREDIT))
    assert widths(html, "failed") == [0.75, 0.125, 0.75, 0.125]
    assert widths(html, "passed") == [0.25, 0.875, 0.625]  # no right run led through answer before
    assert widths(html, "named") == [0.75]
    assert "answer: before: 6 of 6 runs failed, after: 1 of 6 runs failed, named in 3 of 4 proposals" in html


def test_the_sentence_names_those_with_the_most() -> None:
    assert pointing(CREDIT) == "Named at fault most often: answer, in 3 of 4 proposals."
    edited = Credit(nodes=[ROUTE, ANSWER], runs_before=8)
    assert pointing(edited) == "No proposal said what is at fault. Most edits went to answer: 5 tried."
    assert pointing(Credit(nodes=[ROUTE], runs_before=8)) == "Nothing was proposed yet."
    many = Credit(nodes=[NodeCredit(node=name, named=1) for name in "abcde"], proposals=2)
    assert pointing(many) == "Named at fault most often: a, b, c, 2 more, in 1 of 2 proposals."


def test_columns_without_evidence_are_left_out() -> None:
    edits_only = Credit(nodes=[ANSWER.model_copy(update={"failed_before": 0, "failed_after": 0, "passed_after": 0})])
    html = section(edits_only)
    assert cells(html)[0] == ["Node", "Edits tried", "Accepted", "Gain on dev"]
    assert credit_chart(Credit(nodes=[NodeCredit(node="a", tried=1)])) is None
    unchanged = Credit(nodes=[ROUTE], runs_before=8, proposals=0)
    assert cells(section(unchanged))[0][:2] == ["Node", "Failed"]
    assert "before:" not in str(credit_chart(unchanged))
    assert "Named at fault" not in section(unchanged)
    assert section(None) == ""
    assert section(Credit()) == ""


def test_a_node_that_no_feedback_reaches_says_so() -> None:
    html = str(credit_chart(Credit(nodes=[ROUTE, NodeCredit(node="idle", parameters=["idle.x"])], runs_before=8)))
    assert "idle: no feedback came here" in html


def test_a_shared_gain_is_explained() -> None:
    assert "counts for each of them" not in section(CREDIT)
    shared = CREDIT.model_copy(update={"nodes": [ROUTE, ANSWER.model_copy(update={"shared": 1})]})
    assert "counts for each of them" in section(shared)
    assert cells(section(shared))[2][-1] == "+0.250 shared"


def test_the_chart_draws_those_with_the_most_to_say() -> None:
    nodes = [NodeCredit(node=f"n{number}", passed_before=1, named=number % 5) for number in range(40)]
    credit = Credit(nodes=nodes, runs_before=1, proposals=5)
    names = [node.node for node in drawn(credit)]
    assert len(names) == MAX_NODES
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert {node.node for node in nodes if node.named >= 3} <= set(names)
    assert f"{MAX_NODES} of 40 nodes are drawn" in section(credit)


def test_names_are_escaped() -> None:
    html = section(Credit(nodes=[NodeCredit(node="<b>&", parameters=["<i>"], failed_before=1)], runs_before=1))
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;b&gt;&amp;" in html
