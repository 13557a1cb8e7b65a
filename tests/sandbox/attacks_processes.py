"""Attacks on other processes, and attempts to make some."""

from __future__ import annotations

from tests.sandbox.attack import CALL, NUMBERS, Attack, syscall

PROCESSES: dict[str, Attack] = {
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
        f"{CALL}\nb = ctypes.create_string_buffer(8)\n"
        "where = int(open(f'/proc/{VICTIM}/maps').readline().split('-')[0], 16) if os.access("
        "f'/proc/{VICTIM}/maps', os.R_OK) else 4194304\n"
        "v = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\nw = (ctypes.c_void_p * 2)(where, 8)\n"
        f"if call({NUMBERS['process_vm_readv']}, VICTIM, v, 1, w, 1, 0) >= 0: result = 'REACHED'"
    ),
    "trace a process": Attack(syscall("ptrace", "16", "VICTIM", "0", "0")),
    "let oneself be traced": Attack(syscall("ptrace", "0", "0", "0", "0")),
    "compare with a process": Attack(syscall("kcmp", "VICTIM", "VICTIM", "1", "0", "0")),
    "kill a process": Attack("import os, time\nos.kill(VICTIM, 9)\ntime.sleep(.1)"),
    "kill a group": Attack("import os, time\nos.killpg(VICTIM, 9)\ntime.sleep(.1)"),
    "kill everything": Attack("import os\nos.kill(-1, 15)\nresult = 'REACHED'", seen=""),
    "kill one's own group": Attack("import os\nos.kill(0, 0)\nresult = 'REACHED'"),
    "kill the zygote": Attack("import os\nos.kill(os.getppid(), 9)\nresult = 'REACHED'", seen=""),
    "a signal with a value": Attack(
        f"{CALL}\nimport time\ninfo = ctypes.create_string_buffer(128)\n"
        "ctypes.c_int.from_buffer(info, 0).value = 9\nctypes.c_int.from_buffer(info, 8).value = -1\n"
        f"call({NUMBERS['rt_sigqueueinfo']}, VICTIM, 9, info)\ntime.sleep(.1)"
    ),
    "a signal to a thread": Attack(f"{CALL}\nimport time\ncall({NUMBERS['tkill']}, VICTIM, 9)\ntime.sleep(.1)"),
    "a signal to a thread of a group": Attack(
        f"{CALL}\nimport time\ncall({NUMBERS['tgkill']}, VICTIM, VICTIM, 9)\ntime.sleep(.1)"
    ),
    "a signal by descriptor": Attack(
        f"{CALL}\nimport time\nd = call({NUMBERS['pidfd_open']}, VICTIM, 0)\n"
        f"call({NUMBERS['pidfd_send_signal']}, d, 9, 0, 0)\ntime.sleep(.1)"
    ),
    "a descriptor of a process": Attack(syscall("pidfd_open", "VICTIM", "0")),
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
        f"{CALL}\np = call({NUMBERS['clone']}, 17, 0, 0, 0, 0)\nif p == 0: os._exit(0)\nif p > 0: result = 'REACHED'"
    ),
    "a child by the newer system call": Attack(
        f"{CALL}\nimport struct\nargs = struct.pack('8Q', 0, 0, 0, 0, 17, 0, 0, 0)\n"
        f"p = call({NUMBERS['clone3']}, args, 64)\nif p == 0: os._exit(0)\nif p > 0: result = 'REACHED'"
    ),
    "a child without a copy": Attack(
        "import subprocess\nsubprocess.run(['/bin/true'], close_fds=False)\nresult = 'REACHED'"
    ),
    "a program": Attack("import os\nos.execv('/bin/sh', ['sh', '-c', f'echo x > {OUTSIDE}'])"),
    "a program from memory": Attack(
        f"{CALL}\nd = call({NUMBERS['memfd_create']}, b'x', 0)\nos.write(d, b'#!/bin/sh\\necho x > ' + "
        "OUTSIDE.encode() + b'\\n')\nargv = (ctypes.c_char_p * 2)(b'x', None)\nenv = (ctypes.c_char_p * 1)(None)\n"
        f"call({NUMBERS['execveat']}, d, b'', argv, env, 0x1000)"
    ),
    "memory that is a file": Attack(syscall("memfd_create", "b'x'", "0")),
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
        f"{CALL}\nd = call({NUMBERS['pidfd_open']}, VICTIM, 0)\n"
        f"if call({NUMBERS['pidfd_getfd']}, d, 0, 0) >= 0: result = 'REACHED'"
    ),
}
