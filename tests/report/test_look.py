"""The look holds to its rules: enough contrast, one dark theme, no motion that was not asked for, named tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import optograph.report
from optograph.report import RunReport, render_report

TEMPLATES = Path(optograph.report.__file__).parent / "templates"
CSS = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "sections.css"))
TEXT_ON = {
    "ink": ("page", "card", "sunk"),
    "ink-2": ("page", "card", "sunk"),
    "ink-3": ("page", "card", "sunk"),
    "accent": ("page", "card", "sunk", "accent-soft"),
    "gain": ("card", "sunk", "gain-soft"),
    "loss": ("card", "sunk", "loss-soft"),
    "path": ("card", "page", "path-soft"),
    "card": ("ink", "accent"),
}
MARKS = ("accent", "gain", "loss", "path", "path-line", "ink-3", "p0", "p2", "p3", "p4")


def themes() -> dict[str, dict[str, str]]:
    """Return the colours of both themes by name."""
    light_block, _, _, dark_block = re.findall(
        r"^\s*(?:@media.*\{ )?:root[^{]*\{(.*?)\}", CSS[: CSS.index("/* Ground")], re.S | re.M
    )
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in (light_block, dark_block))
    assert len(light) == len(dark) == 24
    assert light != dark
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_enough_contrast(theme: str) -> None:
    colours = themes()[theme]
    low = {
        f"{ink} on {ground}": round(contrast(colours[ink], colours[ground]), 2)
        for ink, grounds in TEXT_ON.items()
        for ground in grounds
        if contrast(colours[ink], colours[ground]) < 4.5
    }
    assert low == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_mark_can_be_seen(theme: str) -> None:
    colours = themes()[theme]
    low = {name: round(contrast(colours[name], colours["card"]), 2) for name in MARKS}
    assert {name: value for name, value in low.items() if value < (2.2 if name == "path-line" else 3)} == {}


def test_contrast_is_what_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_both_ways_into_the_dark_theme_give_the_same_colours() -> None:
    chosen = re.search(r'\n:root\[data-theme="dark"\] \{\n(.*?)\n\}', CSS, re.S)
    system = re.search(r':root:not\(\[data-theme="light"\]\) \{\n  color-scheme: dark;\n(.*?)\n\} \}', CSS, re.S)
    assert chosen is not None
    assert system is not None
    assert chosen[1] == system[1]


def test_nothing_moves_where_that_is_not_wanted() -> None:
    rest = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\} \}", "", CSS)
    assert not re.search(r"scroll-behavior: smooth|animation|transition", rest)


def test_focus_can_be_seen() -> None:
    assert ":focus-visible { outline: 2px solid" in CSS
    # Where an outline is taken away, another mark takes its place.
    hidden = re.findall(r"([^{}]+)\{ outline: none; \}", CSS)
    names = [part.strip() for group in hidden for part in group.split(",")]
    assert names == ["main:focus", ".step:focus", ".candidate:focus", ".node:focus"]
    for name in (".step:focus .hit", "a.candidate:focus .box", ".node:focus .box"):
        assert name in CSS


def test_paper_hides_the_controls() -> None:
    printed = CSS[CSS.index("@media print") :]
    for name in (".bar", ".controls", ".actions", ".tool", ".pager"):
        assert name in printed


class Outline(HTMLParser):
    """Collects what screen readers go by."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables = 0
        self.captions = 0
        self.bare_headers = 0
        self.landmarks: list[str] = []
        self.headings: list[int] = []
        self.nameless_pictures = 0
        self.unlabelled = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.bare_headers += tag == "th" and names.get("scope") not in ("col", "row")
        if tag in ("main", "nav", "footer"):
            self.landmarks.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg":
            self.nameless_pictures += not (names.get("aria-label") or names.get("aria-hidden") == "true")
        if tag == "section":
            self.unlabelled += not names.get("aria-labelledby")


def test_screen_readers_find_their_way(report: RunReport) -> None:
    page = Outline(render_report(report))
    assert page.tables == page.captions == 8
    assert page.bare_headers == page.nameless_pictures == page.unlabelled == 0
    assert page.landmarks == ["nav", "main", "footer"]
    assert page.headings.count(1) == 1
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
