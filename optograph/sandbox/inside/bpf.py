"""The seccomp filter: an allow list of system calls, some by their arguments, as a classic BPF program."""

from __future__ import annotations

import struct
from typing import NamedTuple

from optograph.sandbox.inside import syscalls

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _ENOTSUP = 1, 38, 95
_X32 = 0x40000000

Instruction = tuple[int, int, int, int]


class Check(NamedTuple):
    """One condition on a system call's argument: ``argument & mask == value``, on 32 of its bits.

    Attributes:
        argument: Which argument, from 0.
        mask: Bits looked at.
        value: What they must be.
        high: Whether the upper half of the 64 bits is meant.
    """

    argument: int
    mask: int
    value: int
    high: bool = False


_ALL = 0xFFFFFFFF
_Alternatives = tuple[tuple[Check, ...], ...]


def _any(argument: int, *values: int) -> _Alternatives:
    return tuple((Check(argument, _ALL, value),) for value in values)


def _opening(flags: int, mode: int) -> _Alternatives:
    """Allow opening unless it makes a nameless file, sets an s-bit, or empties a file opened for reading."""
    tmpfile, truncate, access, s_bits = 0o20000000, 0o1000, 0o3, 0o6000
    plain = Check(mode, s_bits, 0)
    return (
        (Check(flags, tmpfile | truncate, 0), plain),
        (Check(flags, tmpfile | access, 1), plain),
        (Check(flags, tmpfile | access, 2), plain),
    )


def _conditions(pid: int) -> dict[str, _Alternatives]:
    """Return the arguments with which each checked call is allowed in the process `pid`."""
    thread, namespaces = 0x00010000, 0x7E020080
    return {
        "clone": ((Check(0, thread | namespaces, thread),),),  # threads only
        "kill": _any(0, pid),
        "tgkill": _any(0, pid),
        "prlimit64": _any(0, 0, pid),
        "sched_setaffinity": _any(0, 0),
        "prctl": _any(0, 3, 15, 16, 0x53564D41),  # is it dumpable; thread names; names of memory areas
        "ioctl": _any(1, 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),  # terminal? how much to read; blocking; close
        "fcntl": _any(1, 0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030),  # no owner for signals, no leases
        "open": _opening(1, 2),
        "openat": _opening(2, 3),
        "creat": ((Check(1, 0o6000, 0),),),
        "socketpair": ((Check(0, _ALL, 1), Check(1, 0xF, 1)),),  # a pair of local streams, which reach nobody else
        "sendto": ((Check(4, _ALL, 0), Check(4, _ALL, 0, high=True)),),  # without an address
    }


def _alternative(checks: tuple[Check, ...]) -> list[Instruction]:
    """Return code that allows the call where all checks hold, and else falls through."""
    body: list[Instruction] = []
    size = sum(2 if check.mask == _ALL else 3 for check in checks) + 1
    for check in checks:
        body.append((_LOAD, 0, 0, 16 + 8 * check.argument + 4 * check.high))
        if check.mask != _ALL:
            body.append((_AND, 0, 0, check.mask))
        body.append((_EQUAL, 0, size - len(body) - 1, check.value))
    body.append((_RETURN, 0, 0, _ALLOW))
    return body


def instructions(machine: str, pid: int) -> list[Instruction]:
    """Return the filter as BPF instructions.

    Args:
        machine: ``"x86_64"`` or ``"aarch64"``.
        pid: The process that the filter is for: the only one to which it may send signals.
    """
    program: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, syscalls.ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    conditions = _conditions(pid)
    for name, number in syscalls.checked(machine).items():
        body = [step for checks in conditions[name] for step in _alternative(checks)]
        body.append((_RETURN, 0, 0, _ERROR | _EPERM))
        program += [(_EQUAL, 0, len(body), number), *body]
    for name, number in syscalls.missing(machine).items():
        error = _ENOSYS if name in ("clone3", "openat2") else _ENOTSUP
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | error)]
    for number in syscalls.free(machine).values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program += [(_AT_LEAST, 0, 1, syscalls.NEWEST), (_RETURN, 0, 0, _ERROR | _ENOSYS)]
    program.append((_RETURN, 0, 0, _ERROR | _EPERM))
    return program


def assemble(program: list[Instruction]) -> bytes:
    """Return the instructions as the kernel takes them (`struct sock_filter`)."""
    return b"".join(struct.pack("=HBBI", *step) for step in program)
