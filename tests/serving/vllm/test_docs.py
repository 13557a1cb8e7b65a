"""What docs/vllm.md shows is true: its code runs against a real server, its commands parse, its links lead on."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from optograph import cli
from optograph.serving import vllm as package
from optograph.serving.vllm import Probe, VLLMServer, adapter_hash

PAGE_PATH = Path(__file__).parents[3] / "docs" / "vllm.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")


@dataclass
class Trained:
    """What training gives, as far as the page uses it."""

    folder: Path
    hash: str
    probe: Probe


def test_the_code_runs(
    vllm: VLLMServer,
    adapters: dict[str, Path],
    reference: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Running:
        """The server of the session, in the place of a new one."""

        def __init__(self, model: str) -> None:
            assert model == "models/base"

        def __enter__(self) -> VLLMServer:
            return vllm

        def __exit__(self, *error: object) -> None:
            assert vllm.adapters() == []

    monkeypatch.setattr(package, "VLLMServer", Running)
    folder = adapters["first"]
    trained = Trained(folder, adapter_hash(folder), reference.probe(folder))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, str(PAGE_PATH), "exec"), {"trained": trained})
    assert capsys.readouterr().out.splitlines() == re.findall(r"# > (.*)", block)


def test_the_commands_parse() -> None:
    root: Any = get_command(cli.app)
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("optograph ")]
    assert len(found) == 2
    for _, name, *rest in found:
        root.commands[name].make_context(name, rest).close()


def test_the_links_lead_somewhere() -> None:
    links = [one for one in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in one]
    assert links
    for link in links:
        assert (PAGE_PATH.parent / link).exists(), link
