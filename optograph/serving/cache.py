"""The user's cache folder, and content hashes of large files remembered there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from optograph.errors import UserError


def cache_dir() -> Path:
    """Give the cache folder, made if need be: ``OPTOGRAPH_CACHE``, or ``optograph`` in the XDG cache folder.

    Raises:
        UserError: When it cannot be made.
    """
    wanted = os.environ.get("OPTOGRAPH_CACHE")
    if wanted:
        folder = Path(wanted).expanduser()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optograph"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {str(folder)!r} cannot be made ({error.strerror}); "
            "set OPTOGRAPH_CACHE to a folder that can be written"
        ) from None
    return folder


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file in hexadecimal.

    Reading a model takes a moment, so the hash is remembered in the cache folder until size or modification time
    change.
    """
    path = path.resolve()
    found = path.stat()
    stamp = [found.st_size, found.st_mtime_ns]
    book = cache_dir() / "hashes.json"
    known = _read(book)
    entry = known.get(str(path))
    if isinstance(entry, list) and entry[:2] == stamp and isinstance(entry[-1], str):
        return entry[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slow
        still_there = {name: entry for name, entry in _read(book).items() if Path(name).exists()}
        _write(book, {**still_there, str(path): [*stamp, digest]})
    return digest


def _read(book: Path) -> dict[str, object]:
    try:
        data = json.loads(book.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(book: Path, data: dict[str, object]) -> None:
    handle, name = tempfile.mkstemp(dir=book.parent, prefix=f"{book.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=0)
    Path(name).replace(book)
