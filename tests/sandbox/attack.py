"""What an attack is: code that tries to reach beyond its sandbox, and how one sees that it did."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

NUMBERS = {
    "x86_64": {
        **{"add_key": 248, "bpf": 321, "capset": 126, "chroot": 161, "clone": 56, "clone3": 435, "execveat": 322},
        **{"fallocate": 285, "inotify_init1": 294, "io_uring_setup": 425, "memfd_create": 319, "mount": 165},
        **{"mq_open": 240, "name_to_handle_at": 303, "open_by_handle_at": 304, "perf_event_open": 298},
        **{"pidfd_open": 434, "pidfd_send_signal": 424, "pivot_root": 155, "prctl": 157, "prlimit64": 302},
        **{"process_vm_readv": 310, "ptrace": 101, "rt_sigqueueinfo": 129, "sched_setaffinity": 203, "setns": 308},
        **{"shmget": 29, "tgkill": 234, "tkill": 200, "truncate": 76, "unshare": 272, "userfaultfd": 323},
        **{"fanotify_init": 300, "init_module": 175, "kcmp": 312, "setuid": 105, "swapon": 167, "sysinfo": 99},
        **{"msgget": 68, "semget": 64, "fsopen": 430, "open_tree": 428, "landlock_create_ruleset": 444},
        **{"seccomp": 317, "keyctl": 250, "request_key": 249, "pidfd_getfd": 438, "syslog": 103, "personality": 135},
        **{"modify_ldt": 154, "kexec_load": 246, "reboot": 169, "settimeofday": 164, "acct": 163},
    },
    "aarch64": {
        **{"add_key": 217, "bpf": 280, "capset": 91, "chroot": 51, "clone": 220, "clone3": 435, "execveat": 281},
        **{"fallocate": 47, "inotify_init1": 26, "io_uring_setup": 425, "memfd_create": 279, "mount": 40},
        **{"mq_open": 180, "name_to_handle_at": 264, "open_by_handle_at": 265, "perf_event_open": 241},
        **{"pidfd_open": 434, "pidfd_send_signal": 424, "pivot_root": 41, "prctl": 167, "prlimit64": 261},
        **{"process_vm_readv": 270, "ptrace": 117, "rt_sigqueueinfo": 138, "sched_setaffinity": 122, "setns": 268},
        **{"shmget": 194, "tgkill": 131, "tkill": 130, "truncate": 45, "unshare": 97, "userfaultfd": 282},
        **{"fanotify_init": 262, "init_module": 105, "kcmp": 272, "setuid": 146, "swapon": 224, "sysinfo": 179},
        **{"msgget": 186, "semget": 190, "fsopen": 430, "open_tree": 428, "landlock_create_ruleset": 444},
        **{"seccomp": 277, "keyctl": 219, "request_key": 218, "pidfd_getfd": 438, "syslog": 116, "personality": 92},
        **{"modify_ldt": -1, "kexec_load": 104, "reboot": 142, "settimeofday": 170, "acct": 89},
    },
}[os.uname().machine]

REACHED = "REACHED"
"""What the code of an attack leaves as its result where its effect cannot be seen from outside."""

CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
"""


def syscall(name: str, *args: str) -> str:
    """Return code that makes a system call by its number, and says so where it was answered."""
    made = ", ".join((str(NUMBERS[name]), *args))
    return f"{CALL}\nif call({made}) >= 0:\n    result = 'REACHED'"


@dataclass(frozen=True)
class Attack:
    """Code that tries something.

    Attributes:
        code: The code. It may say `result = 'REACHED'` (or print the canary); what it did to the world is looked at.
        seen: Whether it succeeds where nothing locks it in, so that the test can see that its effect is seen:
            ``"always"``, ``"root"`` (only root can) or ``"user"`` (only an ordinary user, whose children are he), or
            ``""``: not tried, since it would do harm, or is stopped by what is always there.
        kind: How it must end, where that is the point; ``"any"``: by some error.
        seconds: Time it is given.
    """

    code: str
    seen: str = "always"
    kind: str = ""
    seconds: float = 5.0

    def reached(self, result: Any) -> bool:
        """Return whether the code says that it did what it must not."""
        return bool(result == REACHED)
