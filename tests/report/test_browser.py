"""The page in a real browser: no text of a report runs or loads anything, and its tools work without a mouse."""

from __future__ import annotations

import contextlib
import html
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from optograph.report import ExampleRow, RunReport, render_report

HERE = Path(__file__).parent
PAYLOADS: list[str] = json.loads((HERE / "payloads.json").read_text(encoding="utf-8"))
KINDS = ("unsafe", "bare", "real")  # without escaping; escaped, without the policy; as it is
STRIDE = 6
PAGES = -(-len(PAYLOADS) // STRIDE)
ROWS = 3000
PATIENCE_S = 240.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@dataclass
class Site:
    """Pages to open, and all that was asked for."""

    pages: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def strays(self) -> list[str]:
        """Requests that no page of the plan explains."""
        known = {*self.pages, "/", "/plan", "/favicon.ico"}
        return [path for path in self.asked if path not in known]


def armed(kind: str, number: int) -> str:
    """Return a payload that says who it is where it runs, and that loads a path of its own."""
    mark = 1000 * KINDS.index(kind) + number
    return PAYLOADS[number].replace("FIRE", f"top.fired({mark})").replace("/leak", f"/leak-{kind}-{number}")


def unsafe_page(text: str) -> str:
    """Return a page that puts a text everywhere without escaping it."""
    return f"""<!doctype html><meta charset="utf-8"><title>{text}</title><body>
<div>{text}</div><p title="{text}">a</p><p title='{text}'>b</p><p title={text}>c</p>
<a href="{text}">d</a><textarea>{text}</textarea><select><option>{text}</option></select>
<svg><text>{text}</text><title>{text}</title></svg><style>p {{ color: red }} /* {text} */</style>
<p>{html.unescape(text)}</p><script>var a = "{text}";</script><script>var b = '{text}';</script>
<script>var c = `{text}`;</script></body>"""


def serve(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that serves the pages of a site and takes in the driver's result."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            text = site.pages.get(self.path)
            if self.path == "/":
                text = (HERE / "browser_driver.html").read_text(encoding="utf-8")
            elif self.path == "/plan":
                pages = [path for path in site.pages if path != "/use/"]
                text = json.dumps({"use": "/use/", "pages": pages})
            body = (text or "").encode("utf-8", "replace")
            self.send_response(404 if text is None else 200)
            self.send_header("Content-Type", "application/json" if self.path == "/plan" else "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # frames are closed while they load
                self.wfile.write(body)

        def do_POST(self) -> None:
            site.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            site.done.set()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler


def large(report: RunReport) -> RunReport:
    """Return the report with thousands of examples, of which some failed."""
    rows = [
        ExampleRow(
            id=f"row-{index:04d}",
            input={"review": f"Review number {index}. " * 3, "stars": index % 6},
            expected="positive",
            before="negative" if index % 3 else "positive",
            after="negative" if index % 5 == 0 else "positive",
            before_score=float(index % 3 == 0),
            after_score=float(index % 5 != 0),
            failure_type="timeout" if index % 50 == 0 else None,
        )
        for index in range(ROWS)
    ]
    return report.model_copy(update={"examples": rows})


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    poisoned_report: Callable[[Callable[[], str]], RunReport],
    whole_report: RunReport,
) -> Iterator[Site]:
    """All pages, opened in one Chromium; a page holds each payload several times, and the next one elsewhere."""
    site = Site()
    for page in range(PAGES):
        numbers = itertools.cycle((*range(page * STRIDE, len(PAYLOADS)), *range(page * STRIDE)))
        real = render_report(poisoned_report(lambda numbers=numbers: armed("real", next(numbers))))  # type: ignore[misc]
        bare = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", real, count=1)
        assert len(bare) < len(real)
        site.pages[f"/real/{page}/"] = real
        site.pages[f"/bare/{page}/"] = bare.replace("top.fired(2", "top.fired(1").replace("/leak-real", "/leak-bare")
    for number in range(len(PAYLOADS)):
        site.pages[f"/unsafe/{number}/"] = unsafe_page(armed("unsafe", number))
    site.pages["/use/"] = render_report(large(whole_report))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve(site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        run_chromium(f"http://127.0.0.1:{server.server_port}/", tmp_path_factory.mktemp("profile"), site)
        yield site
    finally:
        server.shutdown()
        server.server_close()


def run_chromium(address: str, profile: Path, site: Site) -> None:
    """Open an address and wait for the driver's result."""
    flags = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    flags += "disable-sync disable-popup-blocking mute-audio"
    command = [str(CHROMIUM), "--headless", *(f"--{flag}" for flag in flags.split())]
    command += [f"--user-data-dir={profile}", "--window-size=1280,1000", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        if not site.done.wait(PATIENCE_S):
            pytest.fail(f"Chromium gave no result within {PATIENCE_S:g} s; it asked for {site.asked[-3:]!r} last")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fired(site: Site, kind: str) -> list[str]:
    first = 1000 * KINDS.index(kind)
    return [PAYLOADS[mark - first] for mark in site.result["fired"] if first <= mark < first + 1000]


def test_the_detector_sees_what_runs_where_nothing_is_escaped(site: Site) -> None:
    assert len(fired(site, "unsafe")) >= 60
    assert any(path.startswith("/leak-unsafe-") for path in site.strays)
    assert site.result["problems"] == []


@pytest.mark.parametrize("kind", ["real", "bare"])
def test_no_payload_runs_with_or_without_the_policy(site: Site, kind: str) -> None:
    opened = {path for path in site.asked if path.startswith(f"/{kind}/")}
    assert opened == {f"/{kind}/{page}/" for page in range(PAGES)}
    assert fired(site, kind) == []


def test_each_payload_stands_in_many_places(site: Site) -> None:
    pages = "".join(text for path, text in site.pages.items() if path.startswith("/real/"))
    armed_ones = [number for number, payload in enumerate(PAYLOADS) if "FIRE" in payload]
    assert len(armed_ones) >= 100
    assert min(pages.count(f"top.fired({2000 + number})") for number in armed_ones) >= 20


def test_no_page_asks_for_anything(site: Site) -> None:
    unexplained = [path for path in site.strays if not path.startswith(("/unsafe/", "/leak-unsafe-"))]
    # What unsafe pages ask for relative to the root is theirs too.
    assert [path for path in unexplained if path.startswith(("/real", "/bare", "/leak-real", "/leak-bare"))] == []
    assert [path for path in site.strays if path.startswith("/use")] == []


def test_filters_work_by_keyboard_over_thousands_of_rows(site: Site) -> None:
    seen = site.result["use"]
    assert seen["tools"] is True
    assert seen["total"] == ROWS
    assert (seen["first"], seen["more"]) == (20, 120)
    assert seen["focus_moved"] is True
    assert seen["broken"] == 20
    assert seen["pressed"] == 1
    assert seen["slash"] is True
    assert (seen["nothing"], seen["none"]) == (0, True)
    assert seen["escaped"] == seen["reset"] == 20
    assert seen["timeouts"] == 20
    assert seen["found"] == ["row-0042"]


def test_texts_stand_side_by_side_on_request(site: Site) -> None:
    seen = site.result["use"]
    assert seen["sides"][0] == "Classify the customer review."
    assert seen["sides"][1].startswith("Read the customer review and decide")
    assert seen["sides_marks"] == 0
    assert seen["sides_gone"] == 0


def test_theme_nodes_and_links_answer(site: Site) -> None:
    seen = site.result["use"]
    assert seen["theme"] in ("dark", "light")
    assert seen["node"] == "truetrue"
    assert seen["opened"] is True


def test_no_screen_is_too_narrow_for_the_page(site: Site) -> None:
    assert site.result["use"]["overflow"] == [0, 0, 0, 0, 0]
