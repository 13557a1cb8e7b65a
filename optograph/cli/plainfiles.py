"""Writing plain files into a folder that a user names: safe names, no links followed, nothing overwritten unasked."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from optograph.errors import StorageError, UserError

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a file may be called."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 48


def safe_names(suffixes: Mapping[str, str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a file name for each parameter: like its own name, safe, and different from all others.

    Args:
        suffixes: File suffix (without dot) by parameter name.
        taken: File names that are in use; upper and lower case count as the same.
    """
    used = {name.lower() for name in taken}
    names: dict[str, str] = {}
    for name, suffix in suffixes.items():
        stem = _UNSAFE.sub("_", name).lstrip("._-")[:_LONGEST_STEM] or "parameter"
        file = f"{stem}.{suffix}"
        if file.lower() in used:
            file = f"{stem}-{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}.{suffix}"
        used.add(file.lower())
        names[name] = file
    return names


def write_files(directory: Path, texts: Mapping[str, str], *, force: bool = False) -> list[Path]:
    """Write files into a folder, which is made if need be; either all of them may be written, or none is.

    A file that holds the same text already is left alone.

    Args:
        directory: The folder.
        texts: Content by file name.
        force: Whether files that hold something else are overwritten.

    Returns:
        The files, in the order of ``texts``.

    Raises:
        UserError: A name is not allowed, or a file is there already.
        StorageError: The folder cannot be written.
    """
    for name in texts:
        if not FILE_NAME.fullmatch(name):
            raise UserError(f"cannot write a file called {name!r}: use letters, digits, '.', '_' and '-', at most 64")
    data = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"cannot write in {str(directory)!r}: {error.strerror or error}") from error
    try:
        same = {name for name, content in data.items() if _read(folder, name) == content}
        there = [name for name in data if name not in same and _exists(folder, name)]
        if there and not force:
            raise UserError(
                f"{str(directory / there[0])!r} is there already and holds something else: choose another folder "
                "with --to, or overwrite with --force"
            )
        for name, content in data.items():
            if name not in same:
                _replace(folder, name, content)
    except OSError as error:
        raise StorageError(f"cannot write in {str(directory)!r}: {error.strerror or error}") from error
    finally:
        os.close(folder)
    return [directory / name for name in texts]


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(folder: int, name: str) -> bytes | None:
    """Return what a file holds; None for one that is missing, or is a link or a folder."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        try:
            return file.read()
        except OSError:
            return None


def _replace(folder: int, name: str, content: bytes) -> None:
    """Put a whole file in place of whatever has its name; a link is replaced, never followed."""
    temporary = f".{name}.{os.getpid()}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
