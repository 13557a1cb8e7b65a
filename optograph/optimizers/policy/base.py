"""The frozen base under all adapters: a folder in Hugging Face's form, whose weights and chat template are pinned."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.serving.cache import cache_dir, sha256_of
from optograph.serving.fetch import LocalModel, fetch_model, find_model
from optograph.storage import move_whole

_PIN = "optograph.json"
_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True, slots=True)
class BaseModelFiles:
    """Where a base model lies, and what it is.

    Attributes:
        folder: Configuration, weights (safetensors), tokenizer and chat template.
        weights_hash: SHA-256 over the weight files' hashes and the configuration, 64 hexadecimal digits.
        chat_template_hash: SHA-256 of the chat template's text; of nothing where there is none.
    """

    folder: Path
    weights_hash: str
    chat_template_hash: str

    def check(self) -> None:
        """Look again whether the files are still the pinned ones.

        Raises:
            UserError: They are not.
        """
        now = _described(self.folder)
        for what, found, pinned in (
            ("weights", now.weights_hash, self.weights_hash),
            ("chat template", now.chat_template_hash, self.chat_template_hash),
        ):
            if found != pinned:
                raise UserError(
                    f"the {what} in {str(self.folder)!r} changed: {pinned[:16]} was pinned, {found[:16]} is there. "
                    "Adapters fit the base that they were trained on: put the old files back, or start a new run"
                )


def base_model(source: str | Path) -> BaseModelFiles:
    """Find a base model, bring it into Hugging Face's form if need be, and hash it.

    Args:
        source: A folder; ``"local/NAME"`` for a model that needs no hub (``"local/smollm2-135m"``; its quantized file
            is turned once into bfloat16 weights in the cache folder); or ``"OWNER/NAME@COMMIT"`` of the hub, with all
            40 digits of the commit.

    Raises:
        UserError: There is no such model, it has no safetensors, a name of the hub has no commit, or the cached form is
            damaged.
        ServingError: It cannot be fetched.
    """
    text = str(source)
    if text.startswith("local/"):
        return _converted(find_model(text.removeprefix("local/")))
    hub = _HUB.fullmatch(text)
    if hub is not None and not Path(source).is_dir():
        return _described(_from_hub(hub["name"], hub["revision"]))
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {text!r}. A base model is a folder, 'local/smollm2-135m', or 'OWNER/NAME@COMMIT' of "
            "the hub with all 40 digits of the commit, so that every round trains on the same weights"
        )
    return _described(folder.resolve())


def _described(folder: Path) -> BaseModelFiles:
    """Hash what makes the model's function; names of files stand for their place, so folders may move."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise UserError(f"{str(folder)!r} is no model: it needs config.json and weights in .safetensors files")
    digest = hashlib.sha256(_canonical(folder / "config.json"))
    for file in weights:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    template = hashlib.sha256(_chat_template(folder).encode()).hexdigest()
    return BaseModelFiles(folder, digest.hexdigest(), template)


def _canonical(path: Path) -> bytes:
    """Return a configuration without what says only who wrote it, and where."""
    values = _json(path)
    kept = {key: value for key, value in values.items() if key not in ("transformers_version", "_name_or_path")}
    return json.dumps(kept, sort_keys=True).encode()


def _chat_template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    configuration = folder / "tokenizer_config.json"
    if not configuration.is_file():
        return ""
    return json.dumps(_json(configuration).get("chat_template", ""), sort_keys=True)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{str(path)!r} holds no JSON object")
    return values


def _converted(model: LocalModel) -> BaseModelFiles:
    """Return the model in bfloat16 in the cache folder, made there once, by one process, in one rename."""
    parent = cache_dir() / "models" / "hf"
    folder = parent / f"{model.name}-{model.sha256[:12]}-bf16"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(parent / f"{folder.name}.lock"):
            if not folder.is_dir():
                _convert(fetch_model(model), folder)
            found = _described(folder)
            pinned = _json(folder / _PIN)
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be made ({error.strerror}); free some space, or set OPTOGRAPH_CACHE"
        ) from error
    if [found.weights_hash, found.chat_template_hash] != [pinned.get("weights"), pinned.get("chat_template")]:
        raise UserError(f"{str(folder)!r} is damaged, or was changed: delete it, and it is made again")
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(gguf: Path, folder: Path) -> None:
    try:
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError as error:
        raise UserError(f"a local base model needs {error.name}: pip install 'optograph[train]'") from error
    from optograph.optimizers.policy.quiet import quiet_libraries

    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    unpacked = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **options, **unpacked)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        model.hf_quantizer = None  # the weights are unpacked: save_pretrained refuses where it thinks they are not
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            new = Path(name) / "model"
            model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            made = _described(new)
            pin = {"weights": made.weights_hash, "chat_template": made.chat_template_hash, "source": sha256_of(gguf)}
            (new / _PIN).write_text(json.dumps(pin, indent=1) + "\n", encoding="utf-8")
            move_whole(new, folder)


def _from_hub(name: str, revision: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise UserError(f"a base model of the hub needs {error.name}: pip install 'optograph[train]'") from error
    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name}@{revision} cannot be had from the hub: {type(error).__name__}. Where there is no network, copy "
            "the model and give its folder"
        ) from error
