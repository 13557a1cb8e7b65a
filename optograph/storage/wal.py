"""The write-ahead log of a database file: its pages, and whether something in its middle is damaged.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. SQLite takes the log to end at the first frame
whose checksum is wrong, and says nothing; what was committed after it would be lost without a word.
"""

from __future__ import annotations

import struct
from pathlib import Path

PAGE = 4096
"""Bytes of a page."""

Frame = tuple[int, bytes]

_HEADER, _FRAME = 32, 24 + PAGE
_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS = 0x377F0683, 0x377F0682
_MASK = 0xFFFFFFFF


def read_log(path: Path) -> bytes:
    """Return the bytes of a log; none where there is no file."""
    return path.read_bytes() if path.is_file() else b""


def frames(log: bytes) -> tuple[list[Frame], list[Frame]]:
    """Return the (page number, page) of frames from before the last restart of the log, and of those since."""
    old: list[Frame] = []
    new: list[Frame] = []
    salts = log[16:24]
    if not any(log[start + 8 : start + 16] == salts for start in range(_HEADER, len(log), _FRAME)):
        salts = log[_HEADER + 8 : _HEADER + 16]  # the header itself is damaged
    for start in range(_HEADER, len(log) - 24, _FRAME):
        page = log[start + 24 : start + _FRAME].ljust(PAGE, b"\0")
        frame = (int.from_bytes(log[start : start + 4], "big"), page)
        (new if log[start + 8 : start + 16] == salts else old).append(frame)
    return old, new


def is_sound(log: bytes) -> bool:
    """Whether no commit lies behind a damaged place. Takes about 60 µs a frame.

    A killed process leaves a log that ends early; it never leaves a commit behind a frame that is wrong.
    """
    if len(log) < _HEADER + _FRAME:
        return True
    magic, sums = int.from_bytes(log[:4], "big"), struct.unpack(">II", log[24:32])
    if magic not in (_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS):
        return False
    words = struct.Struct(">II" if magic == _BIG_ENDIAN_SUMS else "<II")
    if _sum(words, log[:24], (0, 0)) != sums:
        return False
    last = 0
    for start in range(_HEADER, len(log) - _FRAME + 1, _FRAME):
        if log[start + 8 : start + 16] == log[16:24] and log[start + 4 : start + 8] != b"\0\0\0\0":
            last = start
    for start in range(_HEADER, last + 1, _FRAME):
        sums = _sum(words, log[start : start + 8] + log[start + 24 : start + _FRAME], sums)
        if log[start + 8 : start + 16] != log[16:24] or sums != struct.unpack(">II", log[start + 16 : start + 24]):
            return False
    return True


def _sum(words: struct.Struct, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    for left, right in words.iter_unpack(data):
        first = (first + left + second) & _MASK
        second = (second + right + first) & _MASK
    return first, second
