"""Attacks that use up memory, time, disk, threads; and attacks on whoever reads the result."""

from __future__ import annotations

from tests.sandbox.attack import Attack

RESOURCES: dict[str, Attack] = {
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
        "import os, time\nfor i in range(20000):\n  os.mkdir('d'); os.chdir('d')\ntime.sleep(.5)\nresult = 'REACHED'",
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


_FRAME = "import os, struct, json, time\ndef frame(b): os.write(4, struct.pack('!I', len(b)) + b)\n"

PROTOCOL: dict[str, Attack] = {
    "an end without a result": Attack("import os\nos._exit(0)", seen="", kind="crashed"),
    "a crash": Attack("import ctypes\nctypes.string_at(0)", seen="", kind="crashed"),
    "a closed connection": Attack("import os, time\nos.close(4)\ntime.sleep(9)", seen="", kind="crashed"),
    "a reply to another call": Attack(
        f'{_FRAME}frame(b\'[77,"value","REACHED","",""]\')\nos._exit(0)', seen="", kind="protocol"
    ),
    "two replies": Attack(
        f'{_FRAME}m = b\'[1,"value",1,"",""]\'\nm = struct.pack(\'!I\', len(m)) + m\nos.write(4, m + m)\nos._exit(0)',
        seen="",
        kind="protocol",
    ),
    "garbage": Attack(f"{_FRAME}frame(b'\\xff\\xfe{{')\nos._exit(0)", seen="", kind="protocol"),
    "a reply of another form": Attack(f"{_FRAME}frame(b'{{\"a\":1}}')\nos._exit(0)", seen="", kind="protocol"),
    "a report of another form": Attack(
        f'{_FRAME}frame(b\'[1,"error",{{"type":3}},"",""]\')\nos._exit(0)', seen="", kind="protocol"
    ),
    "an endless announcement": Attack(
        "import os\nos.write(4, b'\\xff' * 9)\nos._exit(0)", seen="", kind="output_too_large"
    ),
    "half a reply": Attack(
        "import os, time\nos.write(4, b'\\0\\0\\0\\x99[')\ntime.sleep(9)", seen="", kind="timeout", seconds=0.5
    ),
    "a reply of no number": Attack(f'{_FRAME}frame(b\'[1,"value",NaN,"",""]\')\nos._exit(0)', seen="", kind="protocol"),
    "a reply beyond all numbers": Attack(
        f'{_FRAME}frame(b\'[1,"value",1e999,"",""]\')\nos._exit(0)', seen="", kind="protocol"
    ),
    "a reply of half a character": Attack(
        f'{_FRAME}frame(b\'[1,"value","\\\\\\\\ud800","",""]\'.replace(b\'\\\\\\\\\', b\'\\\\\'))\nos._exit(0)',
        seen="",
        kind="protocol",
    ),
    "a deep reply": Attack(
        f"{_FRAME}frame(b'[1,\"value\",' + b'[' * 90000 + b']' * 90000 + b',\"\",\"\"]')\nos._exit(0)",
        seen="",
        kind="protocol",
    ),
    "a reply of many digits": Attack(
        f"{_FRAME}frame(b'[1,\"value\",' + b'9' * 90000 + b',\"\",\"\"]')\nos._exit(0)", seen="", kind="protocol"
    ),
    "a reply with marks of its own": Attack(
        f'{_FRAME}frame(b\'[1,"value",{{"$pickle":"x"}},"",""]\')\nos._exit(0)', seen="", kind="protocol"
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
