"""The kernel's calls that Python has no names for, through ctypes."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_CAPSET = {"x86_64": 126, "aarch64": 91}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_SECCOMP_MODE_FILTER = 2
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
CLONE_NEWNS, MNT_DETACH = 0x20000, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    """Change one setting of this process.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def has_filters() -> bool:
    """Return whether this kernel filters system calls: it then looks for the program, which is not there."""
    result = _libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0)
    return bool(result < 0 and ctypes.get_errno() == errno.EFAULT)


def install_filter(program: bytes) -> None:
    """Put a seccomp filter on this process for good; it needs `PR_SET_NO_NEW_PRIVS` before.

    Args:
        program: The assembled BPF program.

    Raises:
        OSError: The kernel refuses.
    """
    steps = ctypes.create_string_buffer(program, len(program))
    packed = _Program(len(program) // 8, ctypes.addressof(steps))
    _checked(_libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(packed), 0, 0), "seccomp")


def landlock_abi() -> int:
    """Return the version of Landlock that this kernel has; 0 for none."""
    size, flags = ctypes.c_size_t(0), ctypes.c_uint32(1)
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, size, flags)))


def landlock_create(attributes: bytes) -> int:
    """Return the file descriptor of a new set of rules.

    Raises:
        OSError: The kernel refuses.
    """
    size, flags = ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    return _checked(_libc.syscall(_LANDLOCK_CREATE, attributes, size, flags), "landlock_create_ruleset")


def landlock_add(rules: int, rule: bytes) -> None:
    """Add what is allowed beneath a folder (or on a file) to a set of rules.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_libc.syscall(_LANDLOCK_ADD, rules, 1, rule, ctypes.c_uint32(0)), "landlock_add_rule")


def landlock_restrict(rules: int, flags: int) -> None:
    """Hold this process to a set of rules for good.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_libc.syscall(_LANDLOCK_RESTRICT, rules, ctypes.c_uint32(flags)), "landlock_restrict_self")


def drop_capabilities() -> None:
    """Give up every capability of this process.

    Raises:
        OSError: The kernel refuses.
    """
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.syscall(_CAPSET[os.uname().machine], header, nothing), "capset")


def own_mounts() -> None:
    """Move this process into mounts of its own, so that what it mounts is seen by nobody else and ends with it.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "mount")


def mount_tmpfs(folder: str, options: str) -> None:
    """Mount a file system in memory.

    Raises:
        OSError: The kernel refuses.
    """
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _checked(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()), f"mount {folder}")


def unmount(folder: str) -> None:
    """Take a mounted file system away, also while something still uses it.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_libc.umount2(os.fsencode(folder), MNT_DETACH), f"umount {folder}")
