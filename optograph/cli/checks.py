"""Checks of the machine for ``optograph doctor``: Python, packages, disk, sandbox, embedded engine, terminal."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from optograph.errors import OptographError

LEAST_FREE_BYTES = 500 * 10**6
"""Free space under which the run folder is called too full."""
SLOW_COMMIT_S = 0.05
"""A commit to the journal that takes longer than this is remarked upon."""
_COMMITS = 10
_SANDBOX_LINE, _SANDBOX_RESULT = "result = 6 * 7", 42
_SANDBOX_TIMEOUT_S = 30.0
_PARTS = ("langgraph", "pydantic", "aiohttp", "datasets", "typer", "rich", "jinja2")


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        ok: True where it is good, False where it must be put right, None where it is not needed or could not be told.
        detail: What was found.
        fix: How to put it right; empty where nothing is to be done.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def check_machine(folder: Path, *, needs_sandbox: bool | None, needs_engine: bool) -> list[Check]:
    """Return all checks of the machine.

    Args:
        folder: Where runs are kept.
        needs_sandbox: Whether the job runs code that a model wrote; None where that is not known.
        needs_engine: Whether the job uses an embedded model.
    """
    return [
        check_python(),
        check_packages(),
        check_space(folder),
        check_writing(folder),
        check_sandbox(needed=needs_sandbox),
        check_engine(needed=needs_engine),
        check_terminal(),
    ]


def check_python() -> Check:
    """Look at the versions of Python and SQLite."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, SQLite {sqlite3.sqlite_version}"
    return Check("Python", True, found)


def check_packages() -> Check:
    """See whether every package that optograph needs is installed in a version that it takes."""
    try:
        wanted = importlib.metadata.requires("optograph") or []
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", None, "optograph is not installed, it runs from its folder", "pip install -e .")
    wrong = [problem for one in wanted if (problem := _lacking(one)) is not None]
    versions = [f"{name} {version}" for name in ("optograph", *_PARTS) if (version := _version(name)) is not None]
    if wrong:
        return Check(
            "packages", False, "; ".join(wrong), "pip install --upgrade optograph, in an environment of its own"
        )
    return Check("packages", True, ", ".join(versions))


def _lacking(requirement: str) -> str | None:
    """Say what is wrong with a requirement; None where it is met or belongs to an extra."""
    spec, _, marker = requirement.partition(";")
    if "extra" in marker:
        return None
    name = re.split(r"[\s<>=!~\[(]", spec.strip(), maxsplit=1)[0]
    version = _version(name)
    if version is None:
        return f"{name} is missing"
    if importlib.util.find_spec("packaging") is None:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        fits = Requirement(requirement).specifier.contains(version, prereleases=True)
    except InvalidRequirement:
        return None
    return None if fits else f"{name} {version} does not fit {spec.strip()!r}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_space(folder: Path) -> Check:
    """Look at the free space where runs are kept."""
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        return Check("disk space", False, f"{str(folder)!r}: {error.strerror}", "choose another folder with --run-dir")
    detail = f"{free / 1e9:.1f} GB free for {str(folder)!r}"
    if free < LEAST_FREE_BYTES:
        return Check("disk space", False, detail, "free some space, or keep runs elsewhere with run --run-dir DIR")
    return Check("disk space", True, detail)


def check_writing(folder: Path) -> Check:
    """Write a small journal where runs are kept, as a run does: locks, commits, and how long a commit takes."""
    from optograph.storage import Journal

    try:
        with (
            tempfile.TemporaryDirectory(dir=_existing(folder), prefix=".optograph-doctor-") as scratch,
            Journal.open(Path(scratch) / "run") as journal,
        ):
            times = [_timed_commit(journal, number) for number in range(_COMMITS)]
    except (OSError, OptographError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        fix = "keep runs on a local disk that you may write to: run --run-dir DIR"
        return Check("run folder", False, f"no run can be kept in {str(folder)!r}: {said}", fix)
    detail = f"{str(folder)!r} can be written, {median(times) * 1e3:.1f} ms a commit"
    if median(times) > SLOW_COMMIT_S:
        return Check("run folder", None, detail, "slow: a local disk instead of a network share makes runs faster")
    return Check("run folder", True, detail)


def _timed_commit(journal: Any, number: int) -> float:
    started = time.perf_counter()
    journal.add_event("doctor", number=number, text="x" * 4096)
    return time.perf_counter() - started


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    path = folder.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_sandbox(*, needed: bool | None) -> Check:
    """See whether code that a model wrote can be run safely here, and run a line of it."""
    from optograph.sandbox import availability

    found = availability()
    problem = try_sandbox() if found.usable else "; ".join(found.reasons)
    if problem is not None:
        fix = "code that a model wrote is refused here, unless the job says allow_unsandboxed = true at your own risk"
        return Check("sandbox", False if needed else None, problem, fix)
    parts = [f"Landlock {found.landlock}, seccomp"]
    parts.append("a user for each worker" if found.separate_users else "workers run as you")
    parts.append("bubblewrap" if found.bubblewrap and found.user_namespaces else "no bubblewrap (optional)")
    return Check("sandbox", True, ", ".join(parts))


def try_sandbox() -> str | None:
    """Run one line of code in the sandbox; say what is wrong, or None."""
    from optograph.sandbox import Sandbox, SandboxError

    try:
        with Sandbox() as sandbox:
            found = sandbox.run(_SANDBOX_LINE, timeout_s=_SANDBOX_TIMEOUT_S)
    except SandboxError as error:
        return f"a line of code could not be run: {error}"
    if found.result == _SANDBOX_RESULT:
        return None
    return f"a line of code could not be run: {found.error or f'it gave {found.result!r}, not {_SANDBOX_RESULT}'}"


def check_engine(*, needed: bool) -> Check:
    """See whether the embedded engine is installed."""
    version = _version("xllamacpp")
    if importlib.util.find_spec("xllamacpp") is not None:
        return Check("embedded engine", True, f"xllamacpp {version or 'of unknown version'}")
    return Check(
        "embedded engine",
        False if needed else None,
        "xllamacpp is not installed",
        "for models named local/…: pip install 'optograph[local]'",
    )


def check_terminal() -> Check:
    """Say what the terminal can show; never a fault."""
    from optograph.cli.output import console

    out = console()
    if not out.is_terminal:
        return Check("terminal", None, "output goes to a file or pipe: plain lines, no colours")
    colour = "no colours (NO_COLOR)" if os.environ.get("NO_COLOR") else f"colours: {out.color_system or 'none'}"
    return Check("terminal", True, f"{out.width} columns, {colour}, {out.encoding}")
