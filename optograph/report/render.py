"""Turn a run report into one offline HTML file with a strict content security policy."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.errors import UserError
from optograph.report.model import RunReport, UsageRow
from optograph.storage import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_ESCAPES = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render_report(report: RunReport) -> str:
    """Return the report as one HTML page that loads nothing from anywhere.

    Scripts and styles are inline and named by hash in the page's policy (``default-src 'none'``); every text of the
    report is escaped, so that nothing a model wrote can run or load.

    Args:
        report: What to show; parts that are missing are left out.
    """
    report = RunReport.model_validate(report.model_dump())  # blanks secrets that became known since it was made
    style = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "sections.css"))
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    template = _environment().get_template("report.html.j2")
    return template.render(
        **_context(report),
        style=_trusted(style),
        script=_trusted(script),
        data=_trusted(embed_json(report.model_dump(mode="json"))),
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src '{content_hash(script)}'",
                f"style-src '{content_hash(style)}'",
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        ),
    )


def write_report(report: RunReport, path: Path | str) -> Path:
    """Write the HTML report, whole or not at all, and return where it is.

    Args:
        report: What to show.
        path: The file to write; missing folders are made, an older report is replaced.

    Raises:
        UserError: If ``path`` is a folder.
        StorageError: If the file cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{str(path)!r} is a folder; name a file in it, such as {str(target / 'report.html')!r}")
    write_whole(target, render_report(report).encode("utf-8"), "the report")
    return target


def content_hash(text: str) -> str:
    """Return the source expression that allows an inline script or style: ``sha256-`` and the base64 digest."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def embed_json(data: Any) -> str:
    r"""Return JSON that is safe inside a ``<script>`` element: ``< > &`` and line separators as ``\u....``."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_ESCAPES.get(character, character) for character in text)


def _trusted(text: str) -> Any:
    """Mark a text of this package, or escaped JSON, as ready for the page."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - own files and escaped JSON only


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from optograph.report import svg

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=svg.score,
        signed=svg.signed,
        count=svg.count,
        duration=svg.duration,
        money=svg.money,
        clip=svg.clip,
    )
    return environment


def _context(report: RunReport) -> dict[str, Any]:
    """Work out everything that the template names."""
    from optograph.report import charts, credit_chart, diagrams, views

    anchors, names = views.anchors(report), views.short_names(report)
    numbers = {node.id: index for index, node in enumerate(report.trace.nodes)} if report.trace else {}
    candidates = views.candidate_views(report)
    low, high = views.score_range(report.candidates)
    verdict = charts.verdict(report.test) if report.test else "unclear"
    most = max((row.total for row in report.failures), default=1)
    return {
        "report": report,
        "headline": views.claim(report.test) if report.test else views.headline(report),
        "verdict": verdict,
        "interval_plot": charts.interval_plot(report.test, report.metric_name) if report.test else None,
        "dev": views.dev_scores(report),
        "score_chart": charts.score_chart(report, anchors),
        "changes": views.what_changed(report),
        "candidates": candidates,
        "measured": [view for view in candidates if not views.was_dropped(view)],
        "dropped": [view for view in candidates if views.was_dropped(view)],
        "candidate_tree": diagrams.candidate_tree(report, anchors, names),
        "meters": {view.anchor: charts.meter(view.row.dev_score, low, high, view.state) for view in candidates},
        **_training(report),
        "trace_graph": diagrams.trace_graph(report.trace, numbers) if report.trace else None,
        "trace_drawn": len(diagrams.visible_nodes(report.trace)) if report.trace else 0,
        "credit_chart": credit_chart.credit_chart(report.credit) if report.credit else None,
        "credit_drawn": len(credit_chart.drawn(report.credit)) if report.credit else 0,
        "pointing": views.pointing(report.credit) if report.credit and report.credit.nodes else "",
        "gain_shared": views.owners_of_gain(report.credit) if report.credit else False,
        "share_of": views.share_of,
        "kind_name": diagrams.kind_name,
        "examples": views.example_views(report),
        "statuses": views.STATUSES,
        "status_counts": views.status_counts(report),
        "fields_of": views.fields_of,
        "decision_class": charts.decision_class,
        "anchors": anchors,
        "names": names,
        "usage": _usage(report),
        "failures": report.failures,
        "failure_words": views.FAILURE_WORDS,
        "failure_counts": views.failure_counts(report),
        "failure_meter": lambda number: charts.meter(number, 0, most, "loss"),
        "limit_meter": lambda row: charts.meter(row.used, 0, row.limit, "accepted"),
        "amount": views.amount,
        "unit_words": views.UNIT_WORDS,
        "facts": views.fact_sentences(report),
        "gains": any(row.gain is not None for row in report.steps),
        "as_text": views.as_text,
        "running": not report.ended,
    }


def _training(report: RunReport) -> dict[str, Any]:
    """Work out what the section about training names."""
    from optograph.report import training_charts

    view = report.training
    if view is None:
        return {}
    start = report.steps[0].dev_score if report.steps else None
    return {
        "round_chart": training_charts.round_chart(view, start),
        "curve_charts": training_charts.curve_charts(view),
        "adapter_line": training_charts.adapter_line(view),
        "shows_kl": any(row.kl is not None for row in view.rounds),
        "shows_realised": any(row.realised is not None for row in view.rounds),
    }


def _usage(report: RunReport) -> dict[str, Any]:
    """Return usage rows, their total, and bars of how calls, tokens and time divide."""
    from optograph.report import charts

    rows = sorted(report.usage, key=lambda row: (row.role != "task", row.role, row.model))
    known = [row.usd for row in rows if row.usd is not None]
    total = UsageRow(
        role="total",
        calls=sum(row.calls for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        seconds=sum(row.seconds for row in rows),
        usd=sum(known) if known else None,
        failed=sum(row.failed for row in rows),
    )
    labels = [f"{row.role} {row.model}".strip() for row in rows]
    amounts = {
        "calls": [float(row.calls) for row in rows],
        "tokens": [float(row.prompt_tokens + row.completion_tokens) for row in rows],
        "time": [row.seconds for row in rows],
        "price": [row.usd or 0.0 for row in rows] if len(known) == len(rows) else [],
    }
    bars = [
        (name, charts.stacked_bar(list(zip(labels, values, strict=True))))
        for name, values in amounts.items()
        if sum(values) > 0 and len(rows) > 1
    ]
    return {
        "rows": rows,
        "labels": labels,
        "total": total,
        "bars": bars,
        "priced": bool(known),
        "partly": len(known) < len(rows),
    }
