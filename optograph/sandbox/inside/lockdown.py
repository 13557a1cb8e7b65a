"""Locks a child in for good: limits, another user where that can be, Landlock, seccomp."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
from typing import NamedTuple

from optograph.sandbox.inside import bpf, kernel

_READ = 1 | 4 | 8  # execute (a library is mapped, never run: seccomp), read files, read folders
_KEPT_OUT = 1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12  # execute; make devices, sockets, pipes and links
_FILE = 1 | 2 | 4 | 1 << 14 | 1 << 15  # the rights that a file can have, a folder aside
_LOG_OFF = 1


class Confines(NamedTuple):
    """What a child may still do.

    Attributes:
        readable: Descriptors of what may be read, opened beforehand.
        folder: Descriptor of the folder that may be written.
        user: Number of the user (and group) to become, or None to stay who one is.
        zygote: Process whose end ends the child.
        memory: Address space in bytes.
        disk: Longest file in bytes.
        cpu: Processor time in seconds.
        open_files: Files open at once.
        threads: Threads of the user.
    """

    readable: tuple[int, ...]
    folder: int
    user: int | None
    zygote: int
    memory: int
    disk: int
    cpu: int
    open_files: int
    threads: int


def lock(confines: Confines) -> None:
    """Hold this process to its confines, for good.

    Args:
        confines: What it may still do.

    Raises:
        OSError: The kernel refuses; the process must not run anything then.
    """
    limit(confines)
    user = confines.user
    if user is not None:
        with contextlib.suppress(PermissionError):  # some containers keep their groups
            os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != confines.zygote:
        raise OSError("the zygote is gone")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    _landlock(confines)
    machine = os.uname().machine
    kernel.install_filter(bpf.assemble(bpf.instructions(machine, os.getpid())))


def limit(confines: Confines) -> None:
    """Set the limits of this process; they can be lowered from now on, not raised."""
    wanted = {
        resource.RLIMIT_AS: confines.memory,
        resource.RLIMIT_CPU: confines.cpu,
        resource.RLIMIT_FSIZE: confines.disk,
        resource.RLIMIT_NOFILE: confines.open_files,
        resource.RLIMIT_NPROC: confines.threads,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, limit in wanted.items():
        most = resource.getrlimit(which)[1]
        value = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(which, (value, value))


def _landlock(confines: Confines) -> None:
    version = kernel.landlock_abi()
    if version < 1:
        raise OSError("this kernel has no Landlock")
    handled = (1 << 13) - 1
    for since, right in ((2, 13), (3, 14), (5, 15)):  # moving between folders, truncating, device controls
        if version >= since:
            handled |= 1 << right
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0  # abstract sockets and signals stay inside
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = kernel.landlock_create(struct.pack("=QQQ", handled, network, scopes)[:size])
    for descriptor in confines.readable:
        rights = _READ if _is_folder(descriptor) else _READ & _FILE
        kernel.landlock_add(rules, struct.pack("=Qi", rights, descriptor))
    kernel.landlock_add(rules, struct.pack("=Qi", handled & ~_KEPT_OUT, confines.folder))
    null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    kernel.landlock_add(rules, struct.pack("=Qi", 2 | 4 | handled & (1 << 14), null))
    kernel.landlock_restrict(rules, _LOG_OFF if version >= 7 else 0)
    os.close(null)
    os.close(rules)


def _is_folder(descriptor: int) -> bool:
    return os.fstat(descriptor).st_mode & 0o170000 == 0o040000
