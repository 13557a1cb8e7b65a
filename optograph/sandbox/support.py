"""What this system has to lock code in with, and what it lacks."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Availability:
    """What this system can do to lock code in.

    Attributes:
        usable: Whether the sandbox works here.
        landlock: Version of Landlock; 0 for none.
        seccomp: Whether system calls can be filtered.
        separate_users: Whether each worker can be a user of its own (the framework runs as root).
        bubblewrap: Path of the `bwrap` program, or None.
        user_namespaces: Whether an ordinary user may make namespaces, as bubblewrap needs.
        reasons: What is missing and what to do about it, one sentence each.
    """

    usable: bool
    landlock: int
    seccomp: bool
    separate_users: bool
    bubblewrap: str | None
    user_namespaces: bool
    reasons: tuple[str, ...] = ()


def availability() -> Availability:
    """Return what this system can do to lock code in; nothing is started."""
    if sys.platform != "linux":
        return Availability(False, 0, False, False, None, False, (f"the sandbox needs Linux, this is {sys.platform}",))
    from optograph.sandbox.inside import kernel, syscalls, users

    reasons = []
    machine = os.uname().machine
    known = machine in syscalls.ARCHITECTURES
    if not known:
        reasons.append(f"the sandbox knows the system calls of x86-64 and aarch64, not of {machine}")
    version = kernel.landlock_abi()
    if version < 1:
        reasons.append(
            "the kernel has no Landlock: it needs Linux 5.13 or newer with landlock among its `lsm=` modules"
        )
    seccomp = kernel.has_filters()
    if not seccomp:
        reasons.append("the kernel cannot filter system calls: it needs CONFIG_SECCOMP_FILTER")
    if sys.maxsize < 2**32:
        reasons.append("the sandbox needs a 64-bit Python")
    return Availability(
        usable=not reasons,
        landlock=version,
        seccomp=seccomp,
        separate_users=users.first_user() is not None,
        bubblewrap=shutil.which("bwrap"),
        user_namespaces=_user_namespaces(),
        reasons=tuple(reasons),
    )


def _user_namespaces() -> bool:
    settings = {
        "/proc/sys/user/max_user_namespaces": "0",
        "/proc/sys/kernel/unprivileged_userns_clone": "0",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
    }
    for path, forbidding in settings.items():
        try:
            if Path(path).read_text("ascii").strip() == forbidding:
                return False
        except OSError:
            continue  # a kernel without this setting
    return Path("/proc/self/ns/user").exists()
