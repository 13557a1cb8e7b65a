"""The system calls that sandboxed code may make, with their numbers on x86-64 and aarch64."""

from __future__ import annotations

# name, number on x86-64, number on aarch64 ("-": there is none)
_FREE = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70;
preadv2 327 286; pwritev2 328 287; lseek 8 62; close 3 57; close_range 436 436; fstat 5 80; newfstatat 262 79;
stat 4 -; lstat 6 -; statx 332 291; access 21 -; faccessat 269 48; faccessat2 439 439; readlink 89 -;
readlinkat 267 78; getdents 78 -; getdents64 217 61; getcwd 79 17; chdir 80 49; fchdir 81 50; dup 32 23;
dup2 33 -; dup3 292 24; flock 73 32; fsync 74 82; fdatasync 75 83; ftruncate 77 46; rename 82 -;
renameat 264 38; renameat2 316 276; mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35;
umask 95 166; statfs 137 43; fstatfs 138 44; fadvise64 221 223; readahead 187 213; sendfile 40 71;
copy_file_range 326 285; mmap 9 222; mprotect 10 226; munmap 11 215; brk 12 214; mremap 25 216; madvise 28 233;
msync 26 227; mincore 27 232; getpid 39 172; getppid 110 173; gettid 186 178; getpgid 121 155; getpgrp 111 -;
getsid 124 156; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177; getresuid 118 148;
getresgid 120 150; getgroups 115 158; uname 63 160; sysinfo 99 179; times 100 153; getrusage 98 165;
getrlimit 97 163; setrlimit 160 164; getpriority 140 141; futex 202 98; futex_waitv 449 449;
set_robust_list 273 99; rseq 334 293; set_tid_address 218 96; sched_yield 24 124; sched_getaffinity 204 123;
sched_getparam 143 121; sched_getscheduler 145 120; sched_get_priority_max 146 125;
sched_get_priority_min 147 126; getcpu 309 168; membarrier 324 283; rt_sigaction 13 134; rt_sigprocmask 14 135;
rt_sigreturn 15 139; rt_sigtimedwait 128 137; rt_sigsuspend 130 133; rt_sigpending 127 136; sigaltstack 131 132;
pause 34 -; alarm 37 -; setitimer 38 103; getitimer 36 102; timer_create 222 107; timer_settime 223 110;
timer_gettime 224 108; timer_delete 226 111; timer_getoverrun 225 109; timerfd_create 283 85;
timerfd_settime 286 86; timerfd_gettime 287 87; nanosleep 35 101; clock_nanosleep 230 115;
clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169; time 201 -; poll 7 -; ppoll 271 73;
select 23 -; pselect6 270 72; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -;
epoll_pwait 281 22; epoll_pwait2 441 441; eventfd 284 -; eventfd2 290 19; pipe 22 -; pipe2 293 59;
recvfrom 45 207; getsockname 51 204; getpeername 52 205; getsockopt 55 209; shutdown 48 210; getrandom 318 278;
exit 60 93; exit_group 231 94; restart_syscall 219 128; wait4 61 260; waitid 247 95; link 86 -; linkat 265 37;
symlink 88 -; symlinkat 266 36
"""
_CHECKED = """
clone 56 220; kill 62 129; tgkill 234 131; prlimit64 302 261; sched_setaffinity 203 122; prctl 157 167;
ioctl 16 29; fcntl 72 25; open 2 -; openat 257 56; creat 85 -; socketpair 53 199; sendto 44 206
"""
_MISSING = """
clone3 435 435; openat2 437 437; fallocate 285 47; getxattr 191 8; lgetxattr 192 9; fgetxattr 193 10;
listxattr 194 11; llistxattr 195 12; flistxattr 196 13
"""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine name to the number by which the kernel names it to a filter (AUDIT_ARCH)."""

NEWEST = 460
"""Numbers from here on are answered as unknown, so that libraries fall back on what they did before."""


def _table(text: str, machine: str) -> dict[str, int]:
    column = 1 if machine == "x86_64" else 2
    rows = [entry.split() for entry in text.replace("\n", " ").split(";")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def free(machine: str) -> dict[str, int]:
    """Return the calls that are allowed whatever their arguments; files are Landlock's part."""
    return _table(_FREE, machine)


def checked(machine: str) -> dict[str, int]:
    """Return the calls that are allowed with some arguments only."""
    return _table(_CHECKED, machine)


def missing(machine: str) -> dict[str, int]:
    """Return the calls that are answered as if the kernel or file system did not have them."""
    return _table(_MISSING, machine)
