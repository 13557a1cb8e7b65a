"""``optograph stop``: ask a run to end cleanly, from another process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from optograph.cli.output import AsJson, print_json, say
from optograph.cli.rundirs import RunArgument, find_run, resume_command, writer_of
from optograph.errors import StorageError, UserError

_LOOK_EVERY_S = 0.2


def stop(
    directory: RunArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Return only when the run has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a running run to end: calls in flight are finished and kept, and the run can be resumed.

    Example: [bold]optograph stop runs/reviews-001[/bold]
    """
    from optograph.cli.runstate import read_line
    from optograph.stopping import STOP_FILE

    run = find_run(directory)
    pid = writer_of(run)
    if pid is None:
        raise UserError(f"{str(run)!r} is not running ({read_line(run).headline}): there is nothing to stop")
    _write_stop_file(run / STOP_FILE)
    while wait and writer_of(run) == pid:
        time.sleep(_LOOK_EVERY_S)
    if as_json:
        print_json(
            {"run_dir": str(run), "pid": pid, "stop_file": str(run / STOP_FILE), "ended": writer_of(run) is None}
        )
        return
    if wait:
        line = read_line(run)
        say(f"{run}: {line.headline}")
        if line.can_resume:
            say(f"To continue: {resume_command(run)}")
    else:
        say(
            f"asked process {pid} to stop; calls in flight are finished first. To continue later: {resume_command(run)}"
        )


def _write_stop_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise StorageError(f"cannot write the stop file {str(path)!r}: {error.strerror or error}") from error
