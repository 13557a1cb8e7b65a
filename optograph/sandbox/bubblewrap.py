"""The command line that starts the zygote inside bubblewrap, as one more wall around the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from optograph.sandbox.inside import paths
from optograph.sandbox.inside.settings import Settings

_KEPT = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID")


def wrapped(program: str, command: list[str], settings: Settings, home: str) -> list[str]:
    """Return a command to run within namespaces of its own, without network, with a file system of what it needs.

    Args:
        program: Path of `bwrap`.
        command: The command to run.
        settings: What the zygote is told: its root folder, and the folders it reads.
        home: Folder of this package.
    """
    namespaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    as_root = [part for name in _KEPT for part in ("--cap-add", name)]  # to make its children other users
    privileges = as_root if os.geteuid() == 0 else ["--unshare-user"]
    read = [*paths.SYSTEM, *settings["paths"], *settings["search"], *settings["readable"], home]
    read += [str(Path(sys.executable).parent), sys.prefix, sys.base_prefix]
    binds: list[str] = []
    for path in sorted(set(read)):
        binds += ["--ro-bind-try", path, path]
    root = settings["root"]
    return [
        program,
        *namespaces,
        *privileges,
        "--new-session",
        *("--proc", "/proc"),
        *("--dev", "/dev"),
        *binds,
        *("--bind", root, root),
        *("--chdir", "/"),
        "--",
        *command,
    ]
