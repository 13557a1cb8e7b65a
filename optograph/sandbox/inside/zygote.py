"""The zygote: a clean process that imports what children need, makes them, watches them and clears up after them."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optograph.sandbox.inside import folders, kernel, lockdown, paths, users
from optograph.sandbox.inside.child import Child
from optograph.sandbox.inside.codec import dumps
from optograph.sandbox.inside.settings import IN, OUT, Settings

_TICK_MS = 50
_COMMON = (
    *("collections", "dataclasses", "datetime", "functools", "itertools", "json", "math", "random", "re", "statistics"),
    *("string", "typing", "unicodedata"),
)
_ENVIRONMENT = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **{"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
}


@dataclass
class _Offspring:
    folder: str
    mounted: bool
    reason: str = ""
    status: int | None = None


@dataclass
class Zygote:
    """Makes children on request, until nobody wants any more.

    Attributes:
        control: Connection to the main process; a message is one packet.
        main: Descriptor that becomes readable when the main process ends, or None.
        settings: What was asked for.
    """

    control: socket.socket
    main: int | None
    settings: Settings
    readable: tuple[int, ...] = ()
    kept: list[int] = field(default_factory=list)
    first_user: int | None = None
    mounts: bool = False
    made: int = 0
    size: int = 0
    children: dict[int, _Offspring] = field(default_factory=dict)

    def prepare(self) -> dict[str, str]:
        """Import what was asked for and open what children may read; return the imports that failed."""
        settings = self.settings
        self.first_user = users.first_user() if settings["locked"] else None
        sys.path += [path for path in settings["paths"] if path not in sys.path]
        self.readable = paths.open_readable((*paths.SYSTEM, *settings["paths"], *settings["readable"]))
        if self.first_user is not None:
            self.kept = paths.make_reachable(settings["paths"])
        with contextlib.suppress(OSError):  # a plain folder is watched instead
            if self.first_user is not None:
                kernel.own_mounts()
                self.mounts = True
        libraries = list(sys.path)
        sys.path += settings["search"]
        failed: dict[str, str] = {}
        for name in (*_COMMON, *settings["imports"]):
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a module raises is reported
                failed[name] = f"{type(error).__name__}: {error}"[:300]
        sys.path[:] = libraries
        sys.path_importer_cache.clear()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        gc.collect()
        gc.freeze()
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        self.size = pages * resource.getpagesize()
        return failed

    def serve(self) -> None:
        """Answer requests until the main process hangs up or ends."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if self.main is not None:
            poll.register(self.main, select.POLLIN)
        looked = time.monotonic()
        while True:
            ready = dict(poll.poll(_TICK_MS if self.children else None))
            if self.main in ready:
                return
            if self.control.fileno() in ready:
                packet = self.control.recv(1 << 16)
                if not packet:
                    return
                self._obey(json.loads(packet))
            if not self.mounts and time.monotonic() - looked > _TICK_MS / 1000:
                self._look()
                looked = time.monotonic()

    def _obey(self, request: list[Any]) -> None:
        if request[0] == "make":
            self._make()
            return
        pid, grace = request[1:]
        status, reason = self.end(pid, grace)
        self._tell(["ended", pid, status, reason])

    def _tell(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.control, [json.dumps(message).encode()], descriptors)

    def _make(self) -> None:
        number = self.made
        self.made += 1
        try:
            pid, ends = self._fork(number)
        except OSError as error:
            self._tell(["failed", f"{type(error).__name__}: {error}"])
            return
        self._tell(["made", pid], ends)
        for end in ends:
            os.close(end)

    def _fork(self, number: int) -> tuple[int, tuple[int, int]]:
        user = users.user_of(self.first_user, number)
        folder = f"{self.settings['root']}/{number}"
        mounted = self._folder(folder, user)
        requests, replies = os.pipe(), os.pipe()
        threads = self.settings["threads"] + (users.threads_of_this_user() if user is None else 0)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._be_child(folder, user, zygote, threads, requests[0], replies[1])
            finally:
                os._exit(70)
        os.close(requests[0])
        os.close(replies[1])
        self.children[pid] = _Offspring(folder, mounted)
        return pid, (requests[1], replies[0])

    def _folder(self, folder: str, user: int | None) -> bool:
        Path(folder).mkdir(0o700)
        if user is not None:
            os.chown(folder, user, user)
        if not self.mounts:
            return False
        disk, entries = self.settings["disk"], self.settings["entries"]
        try:
            kernel.mount_tmpfs(folder, f"size={disk},nr_inodes={entries},mode=0700,uid={user},gid={user}")
        except OSError:
            self.mounts = False  # this system mounts nothing: watch the folders instead
            return False
        return True

    def _be_child(self, folder: str, user: int | None, zygote: int, threads: int, source: int, sink: int) -> None:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.dup2(source, IN)
        os.dup2(sink, OUT)
        os.chdir(folder)
        inner = os.open(".", os.O_PATH | os.O_CLOEXEC)
        settings = self.settings
        loop = Child(settings["received"], settings["sent"], settings["printed"])
        os.environ.clear()
        os.environ.update(_ENVIRONMENT, HOME=folder, TMPDIR=folder)
        confines = lockdown.Confines(
            readable=self.readable,
            folder=inner,
            user=user,
            zygote=zygote,
            memory=self.size + settings["memory"],
            disk=settings["disk"],
            cpu=settings["cpu"],
            open_files=settings["open_files"],
            threads=threads,
        )
        try:
            if settings["locked"]:
                lockdown.lock(confines)
            else:
                lockdown.limit(confines)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing runs unlocked
            loop.send(dumps([0, "unlocked", f"{type(error).__name__}: {error}", "", ""]))
            return
        _close_all_but({0, 1, 2, IN, OUT, *self.kept}, settings["open_files"])
        loop.serve()

    def end(self, pid: int, grace: float) -> tuple[int | None, str]:
        """End a child and clear up after it.

        Args:
            pid: Its process.
            grace: Seconds that it may take to end by itself.

        Returns:
            Its exit status (negative: the signal that ended it; None where it had to be killed) and why it was
            killed before, if it was.
        """
        child = self.children.pop(pid, None)
        if child is None:
            return None, ""
        by_itself = _ended(pid, grace)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):  # what is left goes with the root folder
            if child.mounted:
                kernel.unmount(child.folder)
            folders.remove(child.folder)
        return status if by_itself else None, child.reason

    def _look(self) -> None:
        """Kill the children that hold more files than they may."""
        disk, entries = self.settings["disk"], self.settings["entries"]
        for pid, child in self.children.items():
            try:
                held, seen = folders.usage(child.folder, entries)
            except OSError:
                held = seen = sys.maxsize  # paths too long to look at
            if held > disk or seen > entries:
                child.reason = "disk"
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End all children, and remove the root folder."""
        for pid in list(self.children):
            self.end(pid, 0.0)
        with contextlib.suppress(OSError):  # the main process tries again, if it is there
            folders.remove(self.settings["root"])


def _ended(pid: int, grace: float) -> bool:
    """Return whether a process has ended, waiting for it a little; it stays to be reaped."""
    until = time.monotonic() + grace
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= until:
            return False
        time.sleep(0.001)
    return True


def _close_all_but(kept: set[int], limit: int) -> None:
    first = 0
    for descriptor in (*sorted(kept), max(limit, 1 << 20)):
        if first < descriptor:
            os.closerange(first, descriptor)
        first = descriptor + 1


def main(control: int, process: int) -> None:
    """Be a zygote until the main process is done.

    Args:
        control: Descriptor of the connection to the main process.
        process: Descriptor that stands for the main process, or -1.
    """
    control, process = (
        -1 if descriptor < 0 else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
        for descriptor in (control, process)
    )
    os.closerange(3, 10)
    for descriptor in (IN, OUT):  # kept free for the children
        os.dup2(0, descriptor)
    connection = socket.socket(fileno=control)
    settings: Settings = json.loads(connection.recv(1 << 18))
    zygote = Zygote(connection, process if process >= 0 else None, settings)
    for name in [name for name in sys.modules if name.partition(".")[0] == "optograph"]:
        del sys.modules[name]  # code that asks for the package gets the whole of it
    failed = zygote.prepare()
    connection.send(json.dumps(["ready", failed]).encode())
    try:
        zygote.serve()
    except (BrokenPipeError, ConnectionError):
        pass  # the main process is gone: the same as when it hangs up
    finally:
        zygote.close()
