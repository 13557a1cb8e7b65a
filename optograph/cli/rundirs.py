"""Run directories as the command line names them: found, listed, completed, and who is writing in them."""

from __future__ import annotations

import difflib
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from optograph.errors import UserError

RUNS = Path("runs")
"""Where runs are kept unless another directory is named."""


def is_run(path: Path) -> bool:
    """Tell whether a directory holds a run."""
    return (path / "journal.db").is_file()


def runs_under(root: Path) -> list[Path]:
    """Return the run directories in a folder, by name; none where there is no such folder."""
    try:
        return sorted(one for one in root.iterdir() if is_run(one))
    except OSError:
        return []


def find_run(given: Path) -> Path:
    """Return the run directory that is meant: a path, or the name of a run under ``runs/``.

    Raises:
        UserError: There is no such run; the message names those that there are.
    """
    if is_run(given):
        return given
    if len(given.parts) == 1 and is_run(RUNS / given):
        return RUNS / given
    root = RUNS if len(given.parts) == 1 else given.parent
    known = [one.name for one in runs_under(root)]
    what = "holds no run" if given.is_dir() else "does not exist"
    near = difflib.get_close_matches(given.name, known, n=1)
    if near:
        hint = f"did you mean {str(root / near[0])!r}?"
    elif known:
        shown = ", ".join(known[:8]) + (" …" if len(known) > 8 else "")
        hint = f"{str(root)!r} holds {shown}"
    else:
        hint = "name the directory that `optograph run` printed"
    raise UserError(f"run directory {str(given)!r} {what}: {hint}")


def new_directory(name: str) -> Path:
    """Return the first directory ``runs/NAME-001``, ``-002`` … that is free."""
    number = 1
    while (RUNS / f"{name}-{number:03d}").exists():
        number += 1
    return RUNS / f"{name}-{number:03d}"


def resume_command(directory: Path) -> str:
    """Return the command that continues a run, ready to be pasted into a shell."""
    return f"optograph resume {shlex.quote(str(directory))}"


def review_command(directory: Path) -> str:
    """Return the command that reviews what a run waits for."""
    return f"optograph review {shlex.quote(str(directory))}"


def writer_of(directory: Path) -> int | None:
    """Return the id of the process that writes in a run directory now, or None.

    The lock is not touched, so a writer that is just starting is never in the way of itself.
    """
    lock = directory / "writer.lock"
    try:
        pid = int(lock.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # somebody else's process
        return pid
    return pid if _holds(pid, lock) else None


def _holds(pid: int, lock: Path) -> bool:
    """Tell whether a process has the lock file open; where the system does not say, it is believed."""
    folder = Path("/proc") / str(pid) / "fd"
    try:
        links = list(folder.iterdir())
    except OSError:
        return True
    target = str(lock.resolve())
    for link in links:
        try:
            if str(link.readlink()) == target:
                return True
        except OSError:  # closed meanwhile
            continue
    return False


def complete_runs(incomplete: str) -> list[str]:
    """Return the runs that a half-typed argument may mean, for the shell's completion."""
    if "/" not in incomplete:
        named = [one.name for one in runs_under(RUNS)] + [str(one) for one in runs_under(Path())]
        return sorted({name for name in named if name.startswith(incomplete)})
    folder, _, start = incomplete.rpartition("/")
    return [f"{folder}/{one.name}" for one in runs_under(Path(folder or "/")) if one.name.startswith(start)]


def run_argument(help: str, metavar: str | None = "RUN") -> Any:
    """Return the declaration of an argument that names a run, completed by the shell."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=complete_runs)


def run_option(help: str, metavar: str = "RUN") -> Any:
    """Return the declaration of an option that names a run, likewise."""
    return typer.Option(metavar=metavar, help=help, autocompletion=complete_runs)


RunArgument = Annotated[Path, run_argument("Directory of the run, or its name under runs/.")]
AnyRunArgument = Annotated[
    Path | None,
    run_argument(
        "Directory of the run, or its name under runs/; all runs under runs/ are listed where it is left out."
    ),
]
RunDirOption = Annotated[
    Path | None,
    run_option("Where the run is kept, a new folder under runs/ by default; the same run there is continued.", "DIR"),
]
ForkOption = Annotated[
    Path | None, run_option("Start from the best of another run, and take its answers for calls that are the same.")
]
ReplayOption = Annotated[
    Path | None,
    run_option("Take all answers from another run; a call that it does not hold is an error, and none is paid."),
]
ReviewOption = Annotated[
    bool | None,
    typer.Option(
        "--review/--no-review",
        help="Have a person judge each candidate that passed the acceptance test (`optograph review`).",
        show_default=False,
    ),
]
