"""Attacks on files, and attacks over the network and local sockets."""

from __future__ import annotations

from tests.sandbox.attack import CALL, NUMBERS, Attack, syscall

FILES: dict[str, Attack] = {
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
    "watch a folder": Attack(syscall("inotify_init1", "0")),
    "watch everything": Attack(syscall("fanotify_init", "0", "0"), seen="root"),
    "a file by handle": Attack(
        f"{CALL}\nbuffer = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + bytes(200), 204)\n"
        f"n = ctypes.c_int()\nif call({NUMBERS['name_to_handle_at']}, -100, SECRET.encode(), buffer,"
        " ctypes.byref(n), 0) >= 0: result = 'REACHED'"
    ),
    "a folder of another worker": Attack(
        "import os\nup = os.path.dirname(os.getcwd())\nif os.listdir(up): result = 'REACHED'"
    ),
}


def network() -> dict[str, Attack]:
    """Return them by name."""
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
