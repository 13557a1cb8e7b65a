"""The folder from which our own server takes its plugin: a copy of `cpu_lora` that vLLM finds by an entry point."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from optograph.errors import StorageError
from optograph.serving.cache import cache_dir
from optograph.serving.vllm import cpu_lora
from optograph.storage import move_whole

_ENTRY = f"[vllm.general_plugins]\n{cpu_lora.NAME} = {cpu_lora.NAME}:install\n"
_ABOUT = f"Metadata-Version: 2.1\nName: {cpu_lora.NAME}\nVersion: 1\n"


def plugin_folder() -> Path:
    """Return a folder that, on ``PYTHONPATH``, has vLLM call `cpu_lora.install` in each of its processes.

    It lies in the cache under a name made from what it holds, so that it is written once and outlives any server.

    Raises:
        StorageError: The cache cannot be written.
    """
    code = Path(cpu_lora.__file__).read_bytes()
    digest = hashlib.sha256(code + _ENTRY.encode() + _ABOUT.encode()).hexdigest()[:16]
    folder = cache_dir() / "plugins" / digest
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        (draft / f"{cpu_lora.NAME}.py").write_bytes(code)
        about = draft / f"{cpu_lora.NAME}-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(_ABOUT, encoding="utf-8")
        (about / "entry_points.txt").write_text(_ENTRY, encoding="utf-8")
        try:
            move_whole(draft, folder)
        except OSError:  # another process was quicker
            shutil.rmtree(draft)
            if not folder.is_dir():
                raise
    except OSError as error:
        raise StorageError(f"cannot write vLLM's plugin to {str(folder)!r}: {error}") from error
    return folder
