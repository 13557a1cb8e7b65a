"""The attacks: code that tries to reach beyond its sandbox, and how one sees that it did."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

_NUMBERS = {
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

_CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
"""


def _syscall(name: str, *args: str) -> str:
    """Return code that makes a system call by its number, and says so where it was answered."""
    made = ", ".join((str(_NUMBERS[name]), *args))
    return f"{_CALL}\nif call({made}) >= 0:\n    result = 'REACHED'"


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
        return result == REACHED


def _files() -> dict[str, Attack]:
    return {
        "read the users": Attack("result = 'REACHED' if 'root:' in open('/etc/passwd').read() else None"),
        "read a secret": Attack("print(open(SECRET).read())"),
        "read a secret through the folder's descriptor": Attack(
            "import os\nd = os.open(HOME, os.O_PATH)\nprint(os.read(os.open('secret', os.O_RDONLY, dir_fd=d), 99))"
        ),
        "read a secret by going up": Attack(
            "import os\nup = '/'.join(['..'] * 40)\nprint(open(up + SECRET).read())\n",
        ),
        "read a secret from descriptors that led to libraries": Attack(
            "import os\nfor d in range(3, 64):\n  for up in ('../' * 12, ''):\n    try:\n"
            "      print(os.read(os.open(up + SECRET[1:], os.O_RDONLY, dir_fd=d), 99))\n    except OSError: pass",
            seen="",
        ),
        "list a folder": Attack("import os\nif 'secret' in os.listdir(HOME): result = 'REACHED'"),
        "write outside": Attack("open(OUTSIDE, 'w').write('x')"),
        "write a new file outside": Attack("open(HOME + '/new', 'w').write('x')"),
        "append to a library": Attack("open(LIBRARY + '/module.py', 'w').write('evil')"),
        "remove a file outside": Attack("import os\nos.unlink(OUTSIDE)"),
        "move a file outside": Attack("import os\nos.rename(OUTSIDE, 'mine')\nresult = 'REACHED'"),
        "move the secret into reach": Attack("import os\nos.rename(SECRET, 'mine')\nprint(open('mine').read())"),
        "a symbolic link to the secret": Attack("import os\nos.symlink(SECRET, 'l')\nprint(open('l').read())"),
        "a symbolic link for whoever cleans up": Attack("import os\nos.symlink(HOME, 'l')\nresult = 'REACHED'"),
        "a hard link to the secret": Attack("import os\nos.link(SECRET, 'l')\nprint(open('l').read())"),
        "truncate by name": Attack("import os\nos.truncate(OUTSIDE, 0)"),
        "truncate by opening to read": Attack("import os\nos.open(OUTSIDE, os.O_RDONLY | os.O_TRUNC)"),
        "change a mode": Attack("import os\nos.chmod(SECRET, 0o666)"),
        "change a mode by descriptor": Attack("import os\nos.fchmod(os.open(OUTSIDE, os.O_RDONLY), 0o777)"),
        "change a time": Attack("import os\nos.utime(OUTSIDE, (1, 1))"),
        "change an owner": Attack("import os\nos.chown(OUTSIDE, os.getuid(), os.getgid())\nresult = 'REACHED'"),
        "set an attribute": Attack("import os\nos.setxattr(OUTSIDE, 'user.evil', b'x')"),
        "a file that runs as its owner": Attack(
            "import os\nopen('s', 'w').close()\nos.chmod('s', 0o4755)\nresult = 'REACHED'"
        ),
        "a file made to run as its owner": Attack(
            "import os\nos.umask(0)\nd = os.open('s', os.O_CREAT | os.O_WRONLY, 0o4755)\n"
            "if os.fstat(d).st_mode & 0o4000: result = 'REACHED'"
        ),
        "shared memory": Attack(
            "open('/dev/shm/evil-of-attack', 'w').close()\nimport os\n"
            "os.unlink('/dev/shm/evil-of-attack')\nresult = 'REACHED'"
        ),
        "the common temporary folder": Attack(
            "import tempfile\ntempfile.NamedTemporaryFile(dir='/tmp').close()\nresult = 'REACHED'"
        ),
        "a pipe with a name": Attack("import os\nos.mkfifo('p')\nresult = 'REACHED'"),
        "a device": Attack("import os\nos.mknod('d', 0o20666, os.makedev(1, 3))\nresult = 'REACHED'", seen="root"),
        "a socket with a name": Attack("import os\nos.mknod('s', 0o140666)\nresult = 'REACHED'"),
        "a look at memory": Attack("print(open('/dev/mem', 'rb').read(1))\nresult = 'REACHED'", seen=""),
        "settings of the kernel": Attack("result = open('/proc/sys/kernel/hostname').read() and 'REACHED'"),
        "settings of the system": Attack("import os\nresult = os.listdir('/etc') and 'REACHED'"),
        "watch a folder": Attack(_syscall("inotify_init1", "0")),
        "watch everything": Attack(_syscall("fanotify_init", "0", "0"), seen="root"),
        "a file by handle": Attack(
            f"{_CALL}\nbuffer = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + bytes(200), 204)\n"
            f"n = ctypes.c_int()\nif call({_NUMBERS['name_to_handle_at']}, -100, SECRET.encode(), buffer,"
            " ctypes.byref(n), 0) >= 0: result = 'REACHED'"
        ),
        "a folder of another worker": Attack(
            "import os\nup = os.path.dirname(os.getcwd())\nif os.listdir(up): result = 'REACHED'"
        ),
    }


def _network() -> dict[str, Attack]:
    families = {
        "raw": ("socket.AF_INET, socket.SOCK_RAW, 1", "root"),
        "netlink": ("socket.AF_NETLINK, socket.SOCK_RAW", "always"),
        "IPv6": ("socket.AF_INET6", ""),
        "virtual machine": ("40", ""),
        "packet": ("socket.AF_PACKET, socket.SOCK_RAW", ""),
        "kernel cipher": ("38, 5", ""),
        "Bluetooth": ("31", ""),
    }
    made = {
        f"a {name} socket": Attack(f"import socket\nsocket.socket({args})\nresult = 'REACHED'", seen=seen)
        for name, (args, seen) in families.items()
    }
    return made | {
        "connect to a port": Attack("import socket\nsocket.create_connection(('127.0.0.1', TCP), 2)"),
        "listen on a port": Attack("import socket\nsocket.create_server(('127.0.0.1', 0))\nresult = 'REACHED'"),
        "send a datagram": Attack(
            "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))"
        ),
        "connect to an abstract socket": Attack(
            "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + ABSTRACT)"
        ),
        "connect to a socket in a folder": Attack("import socket\nsocket.socket(socket.AF_UNIX).connect(SOCKET)"),
        "datagrams over a pair of sockets": Attack(
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "a.sendto(b'x', '\\0' + DATAGRAMS)"
        ),
        "connect half of a pair": Attack(
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "a.connect('\\0' + DATAGRAMS)\na.send(b'x')"
        ),
        "ask for a name": Attack(
            "import socket\nsocket.getaddrinfo('127.0.0.1', 80)\nsocket.gethostbyname('localhost')\nresult = 'REACHED'",
            seen="",
        ),
    }


def _processes() -> dict[str, Attack]:
    return {
        "read the keys of all processes": Attack(
            "import os\nfor p in os.listdir('/proc'):\n  if p.isdigit():\n    try:\n"
            "      text = open(f'/proc/{p}/environ').read()\n      if 'canary-5f0c9e7d41' in text: print(text)\n"
            "    except OSError: pass"
        ),
        "read the keys of the parents": Attack(
            "import os\nprint(os.environ)\nprint(open(f'/proc/{PARENT}/environ').read())"
        ),
        "read the parent's memory": Attack(
            "open(f'/proc/{PARENT}/mem', 'rb')\nresult = 'REACHED'",
        ),
        "read the zygote's memory map": Attack(
            "import os\nresult = open(f'/proc/{os.getppid()}/maps').read() and 'REACHED'", seen=""
        ),
        "read the parent's memory by system call": Attack(
            f"{_CALL}\nb = ctypes.create_string_buffer(8)\n"
            "where = int(open(f'/proc/{VICTIM}/maps').readline().split('-')[0], 16) if os.access("
            "f'/proc/{VICTIM}/maps', os.R_OK) else 4194304\n"
            "v = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\nw = (ctypes.c_void_p * 2)(where, 8)\n"
            f"if call({_NUMBERS['process_vm_readv']}, VICTIM, v, 1, w, 1, 0) >= 0: result = 'REACHED'"
        ),
        "trace a process": Attack(_syscall("ptrace", "16", "VICTIM", "0", "0")),
        "let oneself be traced": Attack(_syscall("ptrace", "0", "0", "0", "0")),
        "compare with a process": Attack(_syscall("kcmp", "VICTIM", "VICTIM", "1", "0", "0")),
        "kill a process": Attack("import os, time\nos.kill(VICTIM, 9)\ntime.sleep(.1)"),
        "kill a group": Attack("import os, time\nos.killpg(VICTIM, 9)\ntime.sleep(.1)"),
        "kill everything": Attack("import os\nos.kill(-1, 15)\nresult = 'REACHED'", seen=""),
        "kill one's own group": Attack("import os\nos.kill(0, 0)\nresult = 'REACHED'"),
        "kill the zygote": Attack("import os\nos.kill(os.getppid(), 9)\nresult = 'REACHED'", seen=""),
        "a signal with a value": Attack(
            f"{_CALL}\nimport time\ninfo = ctypes.create_string_buffer(128)\n"
            "ctypes.c_int.from_buffer(info, 0).value = 9\nctypes.c_int.from_buffer(info, 8).value = -1\n"
            f"call({_NUMBERS['rt_sigqueueinfo']}, VICTIM, 9, info)\ntime.sleep(.1)"
        ),
        "a signal to a thread": Attack(f"{_CALL}\nimport time\ncall({_NUMBERS['tkill']}, VICTIM, 9)\ntime.sleep(.1)"),
        "a signal to a thread of a group": Attack(
            f"{_CALL}\nimport time\ncall({_NUMBERS['tgkill']}, VICTIM, VICTIM, 9)\ntime.sleep(.1)"
        ),
        "a signal by descriptor": Attack(
            f"{_CALL}\nimport time\nd = call({_NUMBERS['pidfd_open']}, VICTIM, 0)\n"
            f"call({_NUMBERS['pidfd_send_signal']}, d, 9, 0, 0)\ntime.sleep(.1)"
        ),
        "a descriptor of a process": Attack(_syscall("pidfd_open", "VICTIM", "0")),
        "a signal when a pipe is ready": Attack(
            "import os, fcntl, time\nr, w = os.pipe()\nfcntl.fcntl(r, 8, VICTIM)\nfcntl.fcntl(r, 10, 9)\n"
            "fcntl.fcntl(r, fcntl.F_SETFL, 0o20000)\nos.write(w, b'x')\ntime.sleep(.1)"
        ),
        "a signal by a terminal's control": Attack(
            "import os, fcntl, struct\nr, w = os.pipe()\nfcntl.ioctl(r, 0x8901, struct.pack('i', VICTIM))\n"
            "result = 'REACHED'",
            seen="",
        ),
        "another's priority": Attack("import os\nos.setpriority(os.PRIO_PROCESS, VICTIM, 10)"),
        "another's processors": Attack("import os\nos.sched_setaffinity(VICTIM, {0})"),
        "another's limits": Attack("import resource\nresource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (7, 7))"),
        "a child": Attack("import os\nif os.fork() == 0: os._exit(0)\nresult = 'REACHED'"),
        "a child that stays": Attack(
            "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.closerange(0, 100)\n"
            "    time.sleep(60)\n  os._exit(0)\nos.wait()"
        ),
        "a bomb of children": Attack(
            "import os, time\nn = 0\nfor i in range(500):\n  try:\n    if os.fork() == 0: time.sleep(3); os._exit(0)\n"
            "    n += 1\n  except OSError: break\nif n: result = 'REACHED'",
            seen="",
        ),
        "a child by system call": Attack(
            f"{_CALL}\np = call({_NUMBERS['clone']}, 17, 0, 0, 0, 0)\nif p == 0: os._exit(0)\n"
            "if p > 0: result = 'REACHED'"
        ),
        "a child by the newer system call": Attack(
            f"{_CALL}\nimport struct\nargs = struct.pack('8Q', 0, 0, 0, 0, 17, 0, 0, 0)\n"
            f"p = call({_NUMBERS['clone3']}, args, 64)\nif p == 0: os._exit(0)\nif p > 0: result = 'REACHED'"
        ),
        "a child without a copy": Attack(
            "import subprocess\nsubprocess.run(['/bin/true'], close_fds=False)\nresult = 'REACHED'"
        ),
        "a program": Attack("import os\nos.execv('/bin/sh', ['sh', '-c', f'echo x > {OUTSIDE}'])"),
        "a program from memory": Attack(
            f"{_CALL}\nd = call({_NUMBERS['memfd_create']}, b'x', 0)\nos.write(d, b'#!/bin/sh\\necho x > ' + "
            "OUTSIDE.encode() + b'\\n')\nargv = (ctypes.c_char_p * 2)(b'x', None)\nenv = (ctypes.c_char_p * 1)(None)\n"
            f"call({_NUMBERS['execveat']}, d, b'', argv, env, 0x1000)"
        ),
        "memory that is a file": Attack(_syscall("memfd_create", "b'x'", "0")),
        "a shell found among classes": Attack(
            "w = next(c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close')\n"
            "print(w.__init__.__globals__['popen'](f'cat {SECRET}').read())",
            seen="",
        ),
        "a shell": Attack("import os\nprint(os.popen(f'cat {SECRET}').read())"),
        "a session of one's own": Attack("import os\nos.setpgid(0, 0)\nresult = 'REACHED'", seen=""),
        "descriptors that were left open": Attack(
            "import os\nfor d in range(3, 1024):\n  try: print(os.pread(d, 100, 0))\n  except OSError: pass", seen=""
        ),
        "the connection to the main process": Attack(
            "import os, stat\nfor d in range(5, 1024):\n  try:\n    if stat.S_ISSOCK(os.fstat(d).st_mode): "
            "result = 'REACHED'\n  except OSError: pass",
            seen="",
        ),
        "another's descriptor": Attack(
            f"{_CALL}\nd = call({_NUMBERS['pidfd_open']}, VICTIM, 0)\n"
            f"if call({_NUMBERS['pidfd_getfd']}, d, 0, 0) >= 0: result = 'REACHED'"
        ),
    }


def _kernel() -> dict[str, Attack]:
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
    made = {name: Attack(_syscall(call, *args), seen=seen) for name, (call, args, seen) in calls.items()}
    made["capabilities again"] = Attack(
        f"{_CALL}\nhead = (ctypes.c_uint32 * 2)(0x20080522, 0)\nall = (ctypes.c_uint32 * 6)(*[255] * 6)\n"
        f"if call({_NUMBERS['capset']}, head, all) >= 0: result = 'REACHED'",
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
        made["the system calls of x32"] = Attack(f"{_CALL}\ncall(0x40000000 + 39)\nresult = 'REACHED'", kind="refused")
    return made


def _resources() -> dict[str, Attack]:
    return {
        "much memory": Attack(
            "x = []\nfor i in range(24): x.append(bytearray(128 << 20))\nresult = 'REACHED'", seen="", kind="memory"
        ),
        "much mapped memory": Attack(
            "import mmap\nm = [mmap.mmap(-1, 512 << 20) for i in range(8)]\nresult = 'REACHED'", seen=""
        ),
        "a loop without end": Attack("while True: pass", seen="", kind="timeout", seconds=0.5),
        "a loop that hears no signal": Attack(
            "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, "
            "ValueError): pass\nwhile True: pass",
            seen="",
            kind="timeout",
            seconds=0.5,
        ),
        "a pattern without end": Attack(
            "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')", seen="", kind="timeout", seconds=0.5
        ),
        "digits without end": Attack(
            "import sys\nsys.set_int_max_str_digits(0)\nint('9' * 10**7)", seen="", kind="timeout", seconds=0.5
        ),
        "one power too many": Attack("x = 10 ** 10 ** 10", seen="", kind="any", seconds=0.5),
        "recursion without end": Attack(
            "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()", seen="", kind="any"
        ),
        "much on disk": Attack(
            "with open('big', 'wb') as f:\n  for i in range(40): f.write(bytes(10 << 20))\nresult = 'REACHED'", seen=""
        ),
        "much on disk in many files": Attack(
            "import time\nfor i in range(40):\n  with open(f'{i}', 'wb') as f: f.write(bytes(10 << 20))\n"
            "  time.sleep(.01)\nresult = 'REACHED'",
            seen="",
        ),
        "very many files": Attack(
            "import time\nfor i in range(40000): open(f'{i}', 'w').close()\ntime.sleep(.5)\nresult = 'REACHED'", seen=""
        ),
        "very deep folders": Attack(
            "import os, time\nfor i in range(20000):\n  os.mkdir('d'); os.chdir('d')\ntime.sleep(.5)\n"
            "result = 'REACHED'",
            seen="",
        ),
        "folders that nobody may look into": Attack(
            "import os, time\nos.umask(0o777)\nos.mkdir('shut')\nos.umask(0)\nos.mkdir('wx', 0o300)\n"
            "for i in range(40):\n  with open(f'wx/{i}', 'wb') as f: f.write(bytes(10 << 20))\n  time.sleep(.01)\n"
            "result = 'REACHED'",
            seen="",
        ),
        "space set aside": Attack(
            "import os, time\nfor i in range(100):\n  os.posix_fallocate(os.open(f'{i}', 66, 0o600), 0, 60 << 20)\n"
            "  time.sleep(.01)\nresult = 'REACHED'",
            seen="",
        ),
        "a file with a hole": Attack(
            "import os\nos.truncate(os.open('h', 66, 0o600), 1 << 40)\nresult = 'REACHED'", seen=""
        ),
        "many open files": Attack("f = [open(f'{i}', 'w') for i in range(200)]\nresult = 'REACHED'", seen=""),
        "many threads": Attack(
            "import threading, time\nthreading.stack_size(1 << 16)\nn = 0\ntry:\n  for i in range(2000):\n"
            "    threading.Thread(target=time.sleep, args=(2,), daemon=True).start(); n += 1\n"
            "except RuntimeError: pass\nif n > 1000: result = 'REACHED'",
            seen="",
        ),
        "much printed": Attack("import sys\nfor i in range(200000): sys.stdout.write('x' * 1000)\n", seen=""),
        "much written to the terminal": Attack("import os\nfor i in range(1000): os.write(1, b'x' * 1000)", seen=""),
    }


def _protocol() -> dict[str, Attack]:
    frame = "import os, struct, json, time\ndef frame(b): os.write(4, struct.pack('!I', len(b)) + b)\n"
    return {
        "an end without a result": Attack("import os\nos._exit(0)", seen="", kind="crashed"),
        "a crash": Attack("import ctypes\nctypes.string_at(0)", seen="", kind="crashed"),
        "a closed connection": Attack("import os, time\nos.close(4)\ntime.sleep(9)", seen="", kind="crashed"),
        "a reply to another call": Attack(
            f'{frame}frame(b\'[77,"value","REACHED","",""]\')\nos._exit(0)', seen="", kind="protocol"
        ),
        "two replies": Attack(
            f'{frame}m = b\'[1,"value",1,"",""]\'\nm = struct.pack(\'!I\', len(m)) + m\nos.write(4, m + m)\nos._exit(0)',
            seen="",
            kind="protocol",
        ),
        "garbage": Attack(f"{frame}frame(b'\\xff\\xfe{{')\nos._exit(0)", seen="", kind="protocol"),
        "a reply of another form": Attack(f"{frame}frame(b'{{\"a\":1}}')\nos._exit(0)", seen="", kind="protocol"),
        "a report of another form": Attack(
            f'{frame}frame(b\'[1,"error",{{"type":3}},"",""]\')\nos._exit(0)', seen="", kind="protocol"
        ),
        "an endless announcement": Attack(
            "import os\nos.write(4, b'\\xff' * 9)\nos._exit(0)", seen="", kind="output_too_large"
        ),
        "half a reply": Attack(
            "import os, time\nos.write(4, b'\\0\\0\\0\\x99[')\ntime.sleep(9)", seen="", kind="timeout", seconds=0.5
        ),
        "a reply of no number": Attack(
            f'{frame}frame(b\'[1,"value",NaN,"",""]\')\nos._exit(0)', seen="", kind="protocol"
        ),
        "a reply beyond all numbers": Attack(
            f'{frame}frame(b\'[1,"value",1e999,"",""]\')\nos._exit(0)', seen="", kind="protocol"
        ),
        "a reply of half a character": Attack(
            f'{frame}frame(b\'[1,"value","\\\\\\\\ud800","",""]\'.replace(b\'\\\\\\\\\', b\'\\\\\'))\nos._exit(0)',
            seen="",
            kind="protocol",
        ),
        "a deep reply": Attack(
            f"{frame}frame(b'[1,\"value\",' + b'[' * 90000 + b']' * 90000 + b',\"\",\"\"]')\nos._exit(0)",
            seen="",
            kind="protocol",
        ),
        "a reply of many digits": Attack(
            f"{frame}frame(b'[1,\"value\",' + b'9' * 90000 + b',\"\",\"\"]')\nos._exit(0)", seen="", kind="protocol"
        ),
        "a reply with marks of its own": Attack(
            f'{frame}frame(b\'[1,"value",{{"$pickle":"x"}},"",""]\')\nos._exit(0)', seen="", kind="protocol"
        ),
        "a large result": Attack("result = 'x' * (9 << 20)", seen="", kind="output_too_large"),
        "a result of no number": Attack("result = float('nan')", seen="", kind="exception"),
        "a deep result": Attack("result = 1\nfor i in range(5000): result = [result]", seen="", kind="exception"),
        "a result of many digits": Attack("result = 10 ** 6000", seen="", kind="exception"),
        "a result that is no data": Attack("result = open", seen="", kind="exception"),
        "another encoder": Attack(
            'import json, os\njson.encoder.JSONEncoder.encode = lambda *a: \'[1,"value","ok","",""]\'\n'
            "os.write = None\nresult = 5",
            seen="",
            seconds=2.0,
        ),
        "something for the end": Attack(
            "import atexit, os\natexit.register(lambda: open(OUTSIDE, 'w').write('x'))\nos.environ['X'] = 'y'", seen=""
        ),
        "the exception of an exception": Attack(
            "class E(Exception):\n  def __str__(self): raise SystemExit(0)\nraise E()", seen="", kind="exception"
        ),
    }


ATTACKS: dict[str, Attack] = {**_files(), **_network(), **_processes(), **_kernel(), **_resources(), **_protocol()}
