"""Starts the zygote as a clean process and speaks with it: children are made, handed over and ended."""

from __future__ import annotations

import contextlib
import json
import os
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import IO, Any, NamedTuple

from optograph.sandbox.bubblewrap import wrapped
from optograph.sandbox.errors import SandboxError
from optograph.sandbox.inside import folders, paths
from optograph.sandbox.inside.settings import Settings
from optograph.sandbox.limits import Limits

_START_SECONDS, _REPLY_SECONDS = 120.0, 60.0
_BOOT = """
import sys, types
home = sys.argv[1]
for name, path in (("optograph", home), ("optograph.sandbox", home + "/sandbox")):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [path]
from optograph.sandbox.inside.zygote import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
_ENVIRONMENT = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **{"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": "/nonexistent"},
}


class Ends(NamedTuple):
    """A child, and our ends of its pipes.

    Attributes:
        pid: Its process, as the zygote names it.
        requests: Descriptor to write to.
        replies: Descriptor to read from.
    """

    pid: int
    requests: int
    replies: int


class Launcher:
    """A zygote and the children that it has made but nobody has taken yet. Safe to use from many threads.

    Args:
        limits: What a child may use.
        imports: Modules that the zygote imports before it makes children.
        readable: More files and folders that children may read.
        spare: Children kept ready.
        locked: Whether children are locked in.
        bubblewrap: Path of the `bwrap` program to start the zygote with, or None.

    Raises:
        SandboxError: The zygote does not start.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        imports: tuple[str, ...],
        readable: tuple[str, ...],
        spare: int,
        locked: bool,
        bubblewrap: str | None,
    ) -> None:
        self.owner = os.getpid()
        self.orphans: deque[int] = deque()  # children that nobody wants any more
        self._spare = spare
        self._lock = threading.Lock()
        self._ready: deque[Ends] = deque()
        self._asked = 0
        self._root = root = _root_folder()
        settings = _settings(limits, imports, readable, root, locked)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the zygote
        with theirs:
            self._process = _start(theirs, self._errors, settings, bubblewrap)
        self._finalizer = weakref.finalize(
            self, _close, self.owner, self._control, self._process, self._errors, self._ready, root
        )
        try:
            self._control.settimeout(_START_SECONDS)
            self._send(settings)
            _, self.failed_imports = self._receive()
            self._control.settimeout(_REPLY_SECONDS)
        except SandboxError:
            self._finalizer()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can be used here: it runs, and this process is the one that started it."""
        return self.owner == os.getpid() and self._finalizer.alive and self._process.poll() is None

    def take(self) -> Ends:
        """Return a child that nobody else has, and see to it that others are made.

        Raises:
            SandboxError: The zygote is gone, or cannot make children.
        """
        with self._lock:
            while self.orphans:
                self._end(self.orphans.popleft(), 0.0)
            if not self._ready:
                self._ask(1 - self._asked)
                while not self._ready:
                    self._hear()
            taken = self._ready.popleft()
            self._ask(self._spare - len(self._ready) - self._asked)
            return taken

    def end(self, pid: int, grace: float = 0.0) -> tuple[int | None, str]:
        """End a child, whatever it is doing, and remove all that it left.

        Args:
            pid: The child.
            grace: Seconds that it may take to end by itself.

        Returns:
            Its exit status if it ended by itself (negative: a signal), and why the zygote killed it, if it did.

        Raises:
            SandboxError: The zygote is gone; it takes its children along.
        """
        with self._lock:
            return self._end(pid, grace)

    def close(self) -> None:
        """End the zygote and all its children, and remove their folders."""
        with self._lock:
            self._finalizer()

    def _end(self, pid: int, grace: float) -> tuple[int | None, str]:
        self._send(["end", pid, grace])
        while True:
            message = self._hear()
            if message[0] == "ended" and message[1] == pid:
                return message[2], message[3]

    def _ask(self, count: int) -> None:
        for _ in range(count):
            self._send(["make"])
            self._asked += 1

    def _send(self, message: Any) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError as error:
            raise self._gone(error) from error

    def _hear(self) -> list[Any]:
        """Take in one message; a child that was made is put with those that are ready."""
        message = self._receive()
        if message[0] == "made":
            self._asked -= 1
            self._ready.append(Ends(*message[1:]))
        elif message[0] == "failed":
            self._asked -= 1
            raise SandboxError(f"no process could be made for the code: {message[1]}", kind="unavailable")
        return message

    def _receive(self) -> list[Any]:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone(None)
        return [*json.loads(data), *descriptors]

    def _gone(self, error: OSError | None) -> SandboxError:
        """Return the error to raise where the zygote does not answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = ""
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0)
            said = self._errors.read()[-2000:].decode("utf-8", "replace").strip()
        reason = said.splitlines()[-1] if said else str(error or f"exit status {self._process.returncode}")
        return SandboxError(f"the sandbox's process is gone: {reason}", kind="unavailable")


def _root_folder() -> str:
    """Make the folder that holds the children's folders, where another user can reach it if there will be one."""
    wanted = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # noqa: S108 - a folder of our own is made in it
    reachable = [path for path in wanted if Path(path).is_dir() and _passable(path)]
    base = wanted[0] if os.geteuid() != 0 or not reachable else reachable[0]
    root = tempfile.mkdtemp(prefix="optograph-sandbox-", dir=base)
    if os.geteuid() == 0:
        Path(root).chmod(0o711)
    return root


def _passable(path: str) -> bool:
    real = Path(path).resolve()
    return all(folder.stat().st_mode & 0o1 for folder in (real, *real.parents))


def libraries() -> list[str]:
    """Return the folders of this Python's libraries, without the folders of anybody's project."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [f"{sysconfig.get_path('platstdlib')}/lib-dynload", *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return [path for path in dict.fromkeys(found) if path and Path(path).is_dir()]


def _settings(limits: Limits, imports: tuple[str, ...], readable: tuple[str, ...], root: str, locked: bool) -> Settings:
    known = libraries()
    search = [str(Path(path or ".").absolute()) for path in sys.path]
    shared = f"{sys.base_prefix}/lib"  # the interpreter's own shared libraries
    return Settings(
        locked=locked,
        root=root,
        paths=known,
        search=[path for path in dict.fromkeys(search) if path not in known and Path(path).exists()],
        readable=[shared, *readable],
        imports=list(imports),
        memory=limits.memory_mb << 20,
        disk=limits.disk_mb << 20,
        entries=limits.files,
        cpu=limits.cpu_seconds,
        open_files=limits.open_files,
        threads=limits.threads,
        received=limits.input_bytes + 1024,
        sent=limits.output_bytes,
        printed=limits.printed_chars,
    )


def _start(
    theirs: socket.socket, errors: IO[bytes], settings: Settings, bubblewrap: str | None
) -> subprocess.Popen[bytes]:
    home = str(Path(paths.__file__).resolve().parents[2])
    ourselves = os.pidfd_open(os.getpid())
    try:
        passed = (theirs.fileno(), ourselves)
        command = [sys.executable, "-s", "-P", "-B", "-X", "utf8", "-c", _BOOT, home, *map(str, passed)]
        if bubblewrap is not None:
            command = wrapped(bubblewrap, command, settings, home)
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_ENVIRONMENT,
            cwd="/",
            pass_fds=passed,
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"the sandbox's process does not start: {error}", kind="unavailable") from error
    finally:
        os.close(ourselves)


def _close(
    owner: int,
    control: socket.socket,
    process: subprocess.Popen[bytes],
    errors: IO[bytes],
    ready: deque[Ends],
    root: str,
) -> None:
    """End a zygote. In a fork of the process that started it, only the descriptors are let go."""
    control.close()
    errors.close()
    while ready:
        _, requests, replies = ready.popleft()
        os.close(requests)
        os.close(replies)
    if owner != os.getpid():
        return
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(OSError):  # the zygote did it, or a mount of somebody's is in the way
        folders.remove(root)
