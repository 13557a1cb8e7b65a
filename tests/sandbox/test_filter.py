"""The filter of system calls on both machines: run as the kernel would, and compared with the kernel's headers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from optograph.sandbox.inside import bpf, syscalls

PID = 4242
ALLOWED, KILLED, DENIED, UNKNOWN, UNSUPPORTED = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x0005005F
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def verdict(machine: str, number: int, *args: int, architecture: int | None = None) -> int:
    """Run the filter as the kernel would."""
    program = bpf.assemble(bpf.instructions(machine, PID))
    steps = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    audit = syscalls.ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*args, *(0,) * (6 - len(args))))
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, value = steps[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code in (0x15, 0x35):
            holds = accumulator == value if code == 0x15 else accumulator >= value
            at += jump_true if holds else jump_false
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize("machine", syscalls.ARCHITECTURES)
def test_what_is_allowed(machine: str) -> None:
    free, checked, missing = (table(machine) for table in (syscalls.free, syscalls.checked, syscalls.missing))
    known = {**free, **checked, **missing}
    assert len(set(known.values())) == len(free) + len(checked) + len(missing)
    for number in free.values():
        assert verdict(machine, number) == ALLOWED
    for number in set(range(syscalls.NEWEST)) - set(known.values()):
        assert verdict(machine, number) == DENIED
    assert verdict(machine, syscalls.NEWEST + 3) == UNKNOWN
    assert verdict(machine, missing["clone3"]) == UNKNOWN
    assert verdict(machine, missing["fallocate"]) == UNSUPPORTED
    other = next(number for name, number in syscalls.ARCHITECTURES.items() if name != machine)
    assert verdict(machine, free["read"], architecture=other) == KILLED
    assert verdict(machine, free["read"], architecture=0x40000003) == KILLED
    if machine == "x86_64":
        assert verdict(machine, 0x40000000 | free["read"]) == KILLED


CASES = [
    ("clone", (0x3D0F00,), ALLOWED),  # as glibc makes a thread
    ("clone", (17,), DENIED),
    ("clone", (0x10000 | 0x10000000,), DENIED),
    ("kill", (PID, 9), ALLOWED),
    ("kill", (PID + 1, 9), DENIED),
    ("kill", (2**32 - 1, 9), DENIED),
    ("tgkill", (PID, 1, 9), ALLOWED),
    ("tgkill", (1, 1, 9), DENIED),
    ("prlimit64", (0, 7), ALLOWED),
    ("prlimit64", (PID, 7), ALLOWED),
    ("prlimit64", (1, 7), DENIED),
    ("prctl", (15,), ALLOWED),
    ("prctl", (4, 1), DENIED),
    ("prctl", (1, 0), DENIED),
    ("ioctl", (0, 0x5401), ALLOWED),
    ("ioctl", (0, 0x5412), DENIED),
    ("ioctl", (0, 0x8901), DENIED),
    ("fcntl", (0, 3), ALLOWED),
    ("fcntl", (0, 8), DENIED),
    ("fcntl", (0, 10), DENIED),
    ("openat", (0, 0, 0o100 | 1, 0o644), ALLOWED),
    ("openat", (0, 0, 0o100 | 1, 0o4755), DENIED),
    ("openat", (0, 0, 0o1000 | 1), ALLOWED),
    ("openat", (0, 0, 0o1000 | 2), ALLOWED),
    ("openat", (0, 0, 0o1000), DENIED),
    ("openat", (0, 0, 0o20200000 | 2, 0o600), DENIED),
    ("socketpair", (1, 1 | 0o2000000), ALLOWED),
    ("socketpair", (1, 2), DENIED),
    ("socketpair", (2, 1), DENIED),
    ("sendto", (3, 1, 1, 0, 0), ALLOWED),
    ("sendto", (3, 1, 1, 0, 1), DENIED),
    ("sendto", (3, 1, 1, 0, 1 << 32), DENIED),
]


@pytest.mark.parametrize("machine", syscalls.ARCHITECTURES)
@pytest.mark.parametrize(("name", "args", "expected"), CASES)
def test_what_is_allowed_with_some_arguments(name: str, args: tuple[int, ...], expected: int, machine: str) -> None:
    assert verdict(machine, syscalls.checked(machine)[name], *args) == expected


@pytest.mark.parametrize("machine", syscalls.ARCHITECTURES)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text()
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    numbers.setdefault("newfstatat", numbers.get("fstatat", -1))
    ours = {**syscalls.free(machine), **syscalls.checked(machine), **syscalls.missing(machine)}
    assert {name: number for name, number in ours.items() if name in numbers and numbers[name] != number} == {}
    assert len(ours.keys() & numbers.keys()) > 0.95 * len(ours)
