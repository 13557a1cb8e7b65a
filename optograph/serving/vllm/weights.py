"""What stands behind a base model's name: a hash of its weights, configuration, tokenizer and chat template."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from optograph.errors import UserError
from optograph.serving.cache import sha256_of

_OTHERS = ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")


def model_weights(model: str | Path) -> str | None:
    """Name a model's content, for `ModelIdentity.weights`.

    Args:
        model: A folder in Hugging Face's form, or a name on the hub that has been fetched.

    Returns:
        ``"sha256:…"`` of a folder's files; ``"hf:NAME@COMMIT"`` of a model in the hub's cache; None where that does
        not tell which commit is there.

    Raises:
        UserError: A folder without weights in safetensors.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return _cached_commit(str(model))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{str(folder)!r} holds no weights (*.safetensors); give a model folder in Hugging Face's form")
    digest = hashlib.sha256()
    for path in (*weights, *(folder / name for name in _OTHERS)):
        if path.is_file():
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _cached_commit(name: str) -> str | None:
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    try:
        commit = (hub / f"models--{name.replace('/', '--')}" / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return f"hf:{name}@{commit}"
