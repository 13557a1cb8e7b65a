"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from optograph.errors import StorageError


def write_whole(path: Path, content: bytes, what: str = "") -> None:
    """Write a file beside its place, then move it there; an older one is replaced, missing folders are made.

    Args:
        path: The file.
        content: All of it.
        what: What it is, for the message, such as ``"the report"``.

    Raises:
        StorageError: It cannot be written; an older file is left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(
            f"cannot write {what + ' ' if what else ''}{str(path)!r}: {error.strerror or error}"
        ) from error


def move_whole(draft: Path, place: Path) -> None:
    """Bring a file, or a folder with all in it, to the disk, and then to its place in one rename.

    Without that, a power cut soon after the rename could leave the name with half of the content.

    Args:
        draft: What was made, on the same file system.
        place: Where it belongs; a file that is there is replaced, and so is an empty folder.

    Raises:
        OSError: It cannot be written or moved.
    """
    for path in sorted(draft.rglob("*"), reverse=True) if draft.is_dir() else ():  # what a folder holds comes first
        if not path.is_symlink():
            _flush(path)
    _flush(draft)
    draft.replace(place)
    for folder in {draft.parent, place.parent}:
        _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
