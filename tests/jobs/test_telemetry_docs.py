"""The page about telemetry tells the truth: its code runs, its settings exist, its attributes are those of the code."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from optograph.jobs import telemetry, watching
from optograph.jobs.job import TelemetrySection

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
MLFLOW = """
import contextlib
said = []
def log_params(params):
    assert isinstance(params, dict) and params["title"] == "notes"
def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None, model_id=None):
    assert all(isinstance(value, (int, float)) for value in metrics.values()) and isinstance(step, int)
    said.append(sorted(metrics))
@contextlib.contextmanager
def start_run():
    yield None
    print("mlflow", len(said), "incumbent" in said[0], "test_after" in said[-1])
"""
WANDB = """
class Config(dict):
    pass
class Run:
    def __init__(self):
        self.config, self.said = Config(), []
    def log(self, data, step=None, commit=None):
        self.said.append(sorted(data))
    def __enter__(self):
        return self
    def __exit__(self, *exc):
        assert self.config["title"] == "notes"
        print("wandb", len(self.said), "incumbent" in self.said[0], "test_after" in self.said[-1])
def init(project):
    return Run()
"""


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    """MLflow and Weights & Biases are stood in for by modules with their signatures."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    assert [sum(bool(line) for line in block.splitlines()) for block in blocks[1:]] == [8, 8]
    again = 'workflow.judge.instruction.set("Judge.")'  # each block has a workflow that is not optimized yet
    (tmp_path / "mlflow.py").write_text(MLFLOW)
    (tmp_path / "wandb.py").write_text(WANDB)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"\n{again}\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"^# > (.*)$", PAGE, re.MULTILINE)
    assert done.stdout.splitlines() == [*printed, "mlflow 2 True True", "wandb 2 True True"]


def test_the_settings_of_the_page_exist() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    section = TelemetrySection.model_validate(tomllib.loads(block)["telemetry"])
    assert (section.otel, section.content) == (True, False)
    assert telemetry.SWITCH in PAGE


def test_the_attributes_of_the_page_are_those_of_the_code() -> None:
    source = inspect.getsource(telemetry) + inspect.getsource(watching)
    of_code = {
        one for one in re.findall(r'"((?:gen_ai|optograph|server|error)\.[\w.]+)"', source) if one != "optograph"
    }
    of_page: set[str] = set()
    for line in PAGE.splitlines():
        whole = ""
        for one in re.findall(r"`((?:gen_ai|optograph|server|error)?\.?[\w.]+)`", line):
            if one.startswith("."):  # `.max_tokens` after `gen_ai.request.model`
                whole = f"{whole.rpartition('.')[0]}{one}" if not one.startswith(".choice") else f"gen_ai.request{one}"
            else:
                whole = one
            if re.match(r"(gen_ai|server|error|optograph)\.", whole):
                of_page.add(whole)
    assert of_code == of_page - {"optograph.jobs"}
