"""Records out of a broken database file: every cell of every page is tried, and checksums tell what is whole.

Format: https://www.sqlite.org/fileformat2.html (table leaves, index pages, overflow chains, the write-ahead log).
Pages have 4,096 bytes, as in all journals. Nothing here trusts a length or a pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from optograph.storage.wal import PAGE, frames, read_log

Column = bytes | int | None
Record = tuple[int, tuple[Column, ...]]

_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 13, 10, 2
_LARGEST_TABLE_CELL = PAGE - 35
_LARGEST_INDEX_CELL = (PAGE - 12) * 64 // 255 - 23
_SMALLEST_CELL = (PAGE - 12) * 32 // 255 - 23
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Pages = Mapping[int, bytes]


def carve(db: Path, wal: Path) -> Iterator[Record]:
    """Give (row number, columns) of every cell that can be read as a record, older ones first, some more than once.

    Args:
        db: The database file.
        wal: Its write-ahead log; may be missing.
    """
    base = _pages(db.read_bytes() if db.is_file() else b"")
    old, new = frames(read_log(wal))
    views = ({**base, **dict(new)}, base, {**base, **dict(old)})
    for number, page in (*old, *base.items(), *new):
        yield from _records(number, page, views)


def _pages(data: bytes) -> dict[int, bytes]:
    starts = range(0, len(data), PAGE)
    return {number: data[start : start + PAGE].ljust(PAGE, b"\0") for number, start in enumerate(starts, 1)}


def _records(number: int, page: bytes, views: Sequence[Pages]) -> Iterator[Record]:
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
        return
    pointers = start + (12 if kind == _INDEX_INTERIOR else 8)
    for index in range(_short(page, start + 3)):
        place = pointers + 2 * index
        if place + 2 > PAGE:
            return
        for pages in views:
            try:
                record, chained = _cell(page, _short(page, place), kind, pages)
            except (IndexError, KeyError, ValueError):
                continue
            yield record
            if not chained:
                break


def _cell(page: bytes, at: int, kind: int, pages: Pages) -> tuple[Record, bool]:
    """Return the record of a cell, and whether part of it lay in other pages."""
    if kind == _INDEX_INTERIOR:
        at += 4
    size, at = _varint(page, at)
    number = 0
    if kind == _TABLE_LEAF:
        number, at = _varint(page, at)
    largest = _LARGEST_TABLE_CELL if kind == _TABLE_LEAF else _LARGEST_INDEX_CELL
    local = size
    if size > largest:
        local = _SMALLEST_CELL + (size - _SMALLEST_CELL) % (PAGE - 4)
        local = local if local <= largest else _SMALLEST_CELL
    content = page[at : at + local]
    if size > local:
        content = _chain(content, size, int.from_bytes(page[at + local : at + local + 4], "big"), pages)
    return (number, _columns(content)), size > local


def _chain(content: bytes, size: int, follow: int, pages: Pages) -> bytes:
    if size > len(pages) * PAGE:
        raise ValueError("longer than the file")
    parts = [content]
    left = size - len(content)
    while left > 0:
        page = pages[follow]
        follow = int.from_bytes(page[:4], "big")
        parts.append(page[4 : 4 + left])
        left -= PAGE - 4
    return b"".join(parts)


def _columns(content: bytes) -> tuple[Column, ...]:
    end, at = _varint(content, 0)
    kinds = []
    while at < end:
        kind, at = _varint(content, at)
        kinds.append(kind)
    values: list[Column] = []
    for kind in kinds:
        if kind in (0, 8, 9):
            values.append(None if kind == 0 else kind - 8)
        elif kind in _INTEGER_BYTES:
            size = _INTEGER_BYTES[kind]
            values.append(int.from_bytes(content[at : at + size], "big", signed=True))
            at += size
        elif kind >= 12:
            size = (kind - 12) // 2
            values.append(content[at : at + size])
            at += size
        else:
            raise ValueError("a kind of value that no journal holds")
    return tuple(values)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _short(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
