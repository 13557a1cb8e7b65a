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
