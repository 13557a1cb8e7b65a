"""Whatever a model or a data file says, the page neither runs nor loads it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from optograph.report import RunReport, render_report
from optograph.report.render import embed_json
from optograph.report.svg import clip

PAYLOADS: list[str] = json.loads(Path(__file__).with_name("payloads.json").read_text(encoding="utf-8"))

TAGS = """
html head meta title style body a header div span svg path circle nav ul li button main p h1 h2 h3 section
small strong dl dt dd ol ins del figure figcaption text line rect g table caption thead tbody tfoot tr th td
details summary mark aside article pre code defs marker label input select option footer script
"""
ATTRIBUTES = """
lang charset http-equiv content name class href id viewbox width height d cx cy r x y x1 x2 y1 y2 rx type
title hidden tabindex role scope open for placeholder autocomplete spellcheck text-anchor preserveaspectratio
markerwidth markerheight markerunits refx refy orient marker-end value
"""


class Page(HTMLParser):
    """Collects the elements of a page and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag in self.raw:
            self._inside = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside][-1] += data
        else:
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment got in: {data!r}")


def check_page(html: str) -> Page:
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag in TAGS.split(), tag
        for name, value in attributes.items():
            assert name in ATTRIBUTES.split() or name.startswith(("aria-", "data-")), (tag, name)
            assert not name.startswith("on")
            if name == "href":
                assert re.fullmatch(r"#[a-z][a-z0-9-]*", value), value
            if name == "class":
                assert re.fullmatch(r"[a-z0-9 -]*", value), value
            if name == "id":
                assert re.fullmatch(r"[a-z][a-z0-9-]*", value), value
    assert len(page.raw["script"]) == 2
    assert len(page.raw["style"]) == 1
    return page


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_gets_out_of_its_text(
    payload: str, poisoned_report: Callable[[Callable[[], str]], RunReport]
) -> None:
    bad = poisoned_report(lambda: payload)
    html = render_report(bad)
    page = check_page(html)
    assert bad.title.endswith(payload[-3:]) or "\ufffd" in bad.title
    assert bad.title in page.text
    assert clip(bad.examples[1].id, 28) in page.text
    assert json.loads(page.raw["script"][0])["title"] == bad.title
    html.encode("utf-8")


def test_the_battery_is_large_enough() -> None:
    assert len(set(PAYLOADS)) >= 30


def test_a_decision_or_kind_cannot_forge_a_class(report: RunReport) -> None:
    data = report.model_dump()
    data["steps"][1]["decision"] = 'x" onclick="alert(1)'
    data["parameters"][0]["kind"] = 'y" onclick="alert(1)'
    check_page(render_report(RunReport.model_validate(data)))


def test_the_policy_names_exactly_the_inline_script_and_style(report: RunReport) -> None:
    html = render_report(report)
    page = check_page(html)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(part.split(" ", 1) for part in policy.split("; "))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == digest(page.raw["script"][1])
    assert rules["style-src"] == digest(page.raw["style"][0])
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_nothing_is_loaded_from_anywhere(report: RunReport) -> None:
    html = render_report(report)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    names = {name for _, attributes in check_page(html).elements for name in attributes}
    assert not names & {"src", "srcset", "action", "style", "data", "poster"}


def test_the_script_never_writes_markup(report: RunReport) -> None:
    script = check_page(render_report(report)).raw["script"][1]
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert word not in script


def test_embedded_json_holds_no_markup() -> None:
    text = embed_json({"a": "</script>&<!--\u2028\u2029", "é": 1.5})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"a": "</script>&<!--\u2028\u2029", "é": 1.5}
