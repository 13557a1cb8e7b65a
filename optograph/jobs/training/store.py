"""The adapters of a run on the disk: each in a folder named after its hash, all or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from optograph.errors import StorageError
from optograph.serving.vllm.adapters import adapter_hash
from optograph.storage import move_whole

FOLDER = "adapters"
"""Name of the folder in the run directory."""

_DIGITS = 16


def adapter_folder(run_dir: Path, hash_: str) -> Path:
    """Return the folder of an adapter of a run, there or not."""
    return run_dir / FOLDER / hash_[:_DIGITS]


class AdapterStore:
    """Keeps adapters by their content.

    Args:
        run_dir: Directory of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.root = run_dir / FOLDER

    def path(self, hash_: str) -> Path:
        """Return the folder of an adapter, there or not."""
        return adapter_folder(self.root.parent, hash_)

    def folder(self, hash_: str) -> Path:
        """Return the folder of an adapter, checked to hold just that one.

        Raises:
            StorageError: It is gone, or holds something else.
        """
        path = self.path(hash_)
        if not path.is_dir():
            raise StorageError(
                f"the adapter {str(path)!r} is gone: put the folder back (a copy of the run has it), or start a new run"
            )
        found = adapter_hash(path)
        if found != hash_:
            raise StorageError(f"the adapter {str(path)!r} was changed: its hash is {found[:16]}, not {hash_[:16]}")
        return path

    def draft(self, name: str) -> Path:
        """Return a path where an adapter may be made; what a killed process left there is removed."""
        path = self.root / f".{name}"
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def adopt(self, draft: Path) -> str:
        """Take in an adapter that was made at a draft's path, and return its hash."""
        hash_ = adapter_hash(draft)
        path = self.path(hash_)
        try:
            if path.is_dir():
                if adapter_hash(path) == hash_:
                    shutil.rmtree(draft)
                    return hash_
                shutil.rmtree(path)
            move_whole(draft, path)
        except OSError as error:
            raise StorageError(f"cannot keep the adapter {str(path)!r}: {error.strerror or error}") from error
        return hash_

    def copy(self, source: Path) -> str:
        """Take in a copy of an adapter from elsewhere, and return its hash."""
        draft = self.draft("given")
        shutil.copytree(source, draft)
        return self.adopt(draft)

    def prune(self, keep: Collection[str]) -> list[str]:
        """Remove all adapters but these, and drafts; returns the names of the folders that went."""
        kept = {self.path(hash_).name for hash_ in keep if hash_}
        gone = []
        for path in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path.name)
        return gone
