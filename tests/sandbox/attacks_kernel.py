"""Attacks on the kernel, and on the locks themselves."""

from __future__ import annotations

import os

from tests.sandbox.attack import CALL, NUMBERS, Attack, syscall


def kernel() -> dict[str, Attack]:
    """Return them by name."""
    calls = {
        "namespaces for users": ("unshare", ("0x10000000",), "always"),
        "namespaces for mounts": ("unshare", ("0x20000",), "root"),
        "another's namespace": ("setns", ("0", "0"), ""),
        "a mount": ("mount", ("b'none'", "HOME.encode()", "b'tmpfs'", "0", "0"), ""),
        "a new kind of mount": ("fsopen", ("b'tmpfs'", "0"), "root"),
        "a tree of mounts": ("open_tree", ("-100", "b'/'", "1"), "root"),
        "another root": ("chroot", ("b'/tmp'",), "root"),
        "a swapped root": ("pivot_root", ("b'/tmp'", "b'/tmp'"), ""),
        "swap": ("swapon", ("b'/tmp/none'", "0"), ""),
        "programs in the kernel": (
            "bpf",
            ("0", "ctypes.create_string_buffer(b'\\1\\0\\0\\0\\4\\0\\0\\0\\4\\0\\0\\0\\1\\0\\0\\0', 72)", "72"),
            "root",
        ),
        "measuring the kernel": (
            "perf_event_open",
            ("ctypes.create_string_buffer(b'\\1\\0\\0\\0\\x80', 128)", "0", "-1", "-1", "0"),
            "",
        ),
        "requests by ring": ("io_uring_setup", ("4", "ctypes.create_string_buffer(120)"), ""),
        "faults handled by oneself": ("userfaultfd", ("1",), ""),
        "a key": ("add_key", ("b'user'", "b'evil'", "b'x'", "1", "-3"), ""),
        "asking for a key": ("keyctl", ("0", "-3", "1"), ""),
        "a segment of shared memory": ("shmget", ("0", "4096", "0o1600"), ""),
        "a queue of messages": ("msgget", ("0", "0o1600"), ""),
        "a semaphore": ("semget", ("0", "1", "0o1600"), ""),
        "a queue with a name": ("mq_open", ("b'evil'", "0o102", "0o600", "0"), ""),
        "a module for the kernel": ("init_module", ("b'x'", "1", "b''"), ""),
        "another kernel": ("kexec_load", ("0", "0", "0", "0"), ""),
        "the kernel's log": ("syslog", ("10", "0", "0"), "root"),
        "another personality": ("personality", ("0x0400000",), "always"),
        "the clock": ("settimeofday", ("0", "0"), ""),
        "accounting": ("acct", ("0",), "root"),
        "the first user": ("setuid", ("0",), "root"),
        "other rules for files": ("landlock_create_ruleset", ("0", "0", "1"), ""),
        "another filter": ("seccomp", ("2", "0", "ctypes.byref(ctypes.c_uint32(0x7fff0000))"), "always"),
        "being readable again": ("prctl", ("4", "1", "0", "0", "0"), "always"),
        "outliving the zygote": ("prctl", ("1", "0", "0", "0", "0"), "always"),
        "keeping capabilities": ("prctl", ("8", "1", "0", "0", "0"), "always"),
    }
    made = {name: Attack(syscall(call, *args), seen=seen) for name, (call, args, seen) in calls.items()}
    made["capabilities again"] = Attack(
        f"{CALL}\nhead = (ctypes.c_uint32 * 2)(0x20080522, 0)\nall = (ctypes.c_uint32 * 6)(*[255] * 6)\n"
        f"if call({NUMBERS['capset']}, head, all) >= 0: result = 'REACHED'",
        seen="root",
    )
    made["more open files"] = Attack(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))\nresult = 'REACHED'", seen="root"
    )
    if os.uname().machine == "x86_64":
        made["the system calls of 32 bits"] = Attack(
            "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
            "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
            "if f() != 0: result = 'REACHED'",
            seen="",
            kind="refused",
        )
        made["the system calls of x32"] = Attack(f"{CALL}\ncall(0x40000000 + 39)\nresult = 'REACHED'", kind="refused")
    return made
