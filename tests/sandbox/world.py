"""What attacks aim at: secrets, files, processes and sockets of the framework's own user, and what became of them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

CANARY = "canary-5f0c9e7d41"


class World:
    """Things that code in the sandbox must not reach.

    Attributes:
        folder: Where they are.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="world-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir()
        self.secret = self.home / "secret"
        self.outside = self.folder / "outside"
        self.library = self.folder / "library"
        self.library.mkdir()
        self.heard: list[str] = []
        self._sockets = [
            self._listen(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_STREAM),
            self._listen(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM),
            self._listen(socket.AF_UNIX, f"\0{CANARY}-{os.getpid()}", socket.SOCK_STREAM),
            self._listen(socket.AF_UNIX, f"\0{CANARY}-{os.getpid()}-datagrams", socket.SOCK_DGRAM),
            self._listen(socket.AF_UNIX, str(self.folder / "socket"), socket.SOCK_STREAM),
        ]
        os.environ["CANARY_KEY"] = CANARY
        self.leak = os.open(self.folder / "leak", os.O_CREAT | os.O_RDWR, 0o644)
        os.write(self.leak, CANARY.encode())
        os.set_inheritable(self.leak, True)
        self.victim = self._new_victim()
        self.reset()

    def reset(self) -> None:
        """Put everything as it was."""
        self.home.chmod(0o755)
        self.secret.unlink(missing_ok=True)
        self.secret.write_text(CANARY)
        self.secret.chmod(0o600)
        self.outside.unlink(missing_ok=True)
        self.outside.write_text("untouched")
        self.outside.chmod(0o644)
        os.utime(self.outside, (10**9, 10**9))
        (self.library / "module.py").write_text("WORD = 'good'\n")
        self.heard.clear()
        if self.victim.poll() is not None:
            self.victim = self._new_victim()

    def inputs(self) -> dict[str, Any]:
        """Return what the code of an attack finds under global names."""
        tcp, udp, abstract, datagrams, path = (listener.getsockname() for listener in self._sockets)
        return {
            "SECRET": str(self.secret),
            "OUTSIDE": str(self.outside),
            "LIBRARY": str(self.library),
            "HOME": str(self.home),
            "TCP": tcp[1],
            "UDP": udp[1],
            "ABSTRACT": abstract.decode("ascii").removeprefix("\0"),
            "DATAGRAMS": datagrams.decode("ascii").removeprefix("\0"),
            "SOCKET": path,
            "PARENT": os.getpid(),
            "VICTIM": self.victim.pid,
        }

    def changed(self) -> list[str]:
        """Return what is not as it was."""
        found = []
        checks: dict[str, Callable[[], bool]] = {
            "the file outside was written": lambda: self.outside.read_text() != "untouched",
            "the file outside got another mode": lambda: self.outside.stat().st_mode & 0o7777 != 0o644,
            "the file outside got another time": lambda: self.outside.stat().st_mtime != 10**9,
            "the file outside got attributes": lambda: bool(os.listxattr(self.outside)),
            "the secret was opened to others": lambda: self.secret.stat().st_mode & 0o777 != 0o600,
            "the secret has another name": lambda: self.secret.stat().st_nlink != 1,
            "the library was changed": lambda: "good" not in (self.library / "module.py").read_text(),
            "the victim is dead": lambda: self.victim.poll() is not None,
            "the victim's priority was changed": lambda: os.getpriority(os.PRIO_PROCESS, self.victim.pid) != 0,
            "the victim's processors were changed": lambda: (
                len(os.sched_getaffinity(self.victim.pid)) != len(os.sched_getaffinity(0))
            ),
            "the victim's limits were changed": lambda: self._files_of_victim() != self._files_before,
            "a socket heard something": lambda: bool(self.heard),
            "there are other files": lambda: (
                len(list(self.folder.iterdir())) != 5 or len(list(self.home.iterdir())) > 1
            ),
        }
        for what, check in checks.items():
            try:
                if check():
                    found.append(what)
            except OSError as error:
                found.append(f"{what}: {error}")
        return found

    def _files_of_victim(self) -> str:
        text = Path(f"/proc/{self.victim.pid}/limits").read_text()
        return next(line for line in text.splitlines() if line.startswith("Max open files"))

    def _new_victim(self) -> subprocess.Popen[bytes]:
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        self.victim = victim
        self._files_before = self._files_of_victim()
        return victim

    def _listen(self, family: int, address: Any, kind: int) -> socket.socket:
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        threading.Thread(target=self._hear, args=(listener,), daemon=True).start()
        return listener

    def _hear(self, listener: socket.socket) -> None:
        while True:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    self.heard.append(listener.recv(100).decode("latin-1"))
                else:
                    connection, _ = listener.accept()
                    self.heard.append("connected")
                    connection.close()
            except OSError:
                return

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()
        for listener in self._sockets:
            listener.close()
        os.close(self.leak)
        shutil.rmtree(self.folder)
