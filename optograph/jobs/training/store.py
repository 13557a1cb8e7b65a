"""The adapters of a run on the disk: each in a folder named after its hash, all or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from optograph.errors import StorageError, UserError
from optograph.optimizers.policy.critic_files import found_critic
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

    def folder(self, hash_: str, critic: str | None = None) -> Path:
        """Return the folder of an adapter, checked to hold just that one.

        Args:
            hash_: Hash of the adapter.
            critic: Hash of the critic that must be there too; None where any will do.

        Raises:
            StorageError: It is gone, or holds something else.
        """
        path = self._with_critic(hash_, critic)
        if not path.is_dir():
            raise StorageError(
                f"the adapter {str(path)!r} is gone: put the folder back (a copy of the run has it), or start a new run"
            )
        found = adapter_hash(path)
        if found != hash_:
            raise StorageError(f"the adapter {str(path)!r} was changed: its hash is {found[:16]}, not {hash_[:16]}")
        return path

    def _with_critic(self, hash_: str, critic: str | None) -> Path:
        """Return the folder of an adapter with some critic, or with a certain one."""
        path = self.path(hash_)
        if critic is None or not path.is_dir():
            return path
        for one in (path, self._beside(path, critic)):
            if _critic(one) == critic:
                return one
        raise StorageError(
            f"the critic of the adapter {str(path)!r} is gone, or was changed: {critic[:16]} is needed; put it back (a "
            "copy of the run has it), or start a new run"
        )

    @staticmethod
    def _beside(path: Path, critic: str) -> Path:
        """Return the folder of an adapter with another critic than the first that it was kept with."""
        return path.with_name(f"{path.name}-{critic[:_DIGITS]}")

    def draft(self, name: str) -> Path:
        """Return a path where an adapter may be made; what a killed process left there is removed."""
        path = self.root / f".{name}"
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        return path

    def adopt(self, draft: Path) -> str:
        """Take in an adapter that was made at a draft's path, and return its hash.

        Where it is there already with another critic, both stay.
        """
        hash_, critic = adapter_hash(draft), found_critic(draft)
        path = self.path(hash_)
        try:
            if _is(path, hash_) and critic not in (None, _critic(path)):
                path = self._beside(path, str(critic))
            if path.is_dir():
                if _is(path, hash_) and critic in (None, _critic(path)):
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
            if path.is_dir() and path.name.partition("-")[0] not in kept:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path.name)
        return gone


def _is(path: Path, hash_: str) -> bool:
    """Whether a folder is there and holds that adapter."""
    try:
        return path.is_dir() and adapter_hash(path) == hash_
    except UserError:  # damaged
        return False


def _critic(path: Path) -> str | None:
    """Return the hash of the critic in an adapter's folder; None where there is none, or a damaged one."""
    try:
        return found_critic(path)
    except UserError:
        return None
