"""A trained adapter made part of its base model: as a folder in Hugging Face's form, and as a GGUF file to embed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optograph.errors import UserError
from optograph.optimizers.policy.quiet import quiet_libraries
from optograph.storage import move_whole

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import numpy.typing as npt

Precision = Literal["f32", "f16", "q8_0"]
"""How the matrices of a GGUF file are kept: 32, 16 or about 8.5 bits a weight. Vectors are always 32 bits."""

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
"""Numbers of llama.cpp's ``general.file_type``."""
_ROTATED = frozenset({"llama"})
"""Architectures whose query and key rows llama.cpp pairs up for rotary embeddings otherwise than transformers."""
_PLAIN = frozenset({"qwen2", "qwen3"})
"""Architectures whose tensors are the same in both forms."""


def merge_adapter(base: Path, adapter: Path | None, out: Path, *, dtype: str | None = None) -> Path:
    """Write base and adapter as one model, with the base's tokenizer and chat template; all or nothing.

    Args:
        base: Folder of the base model (`base_model(...).folder`).
        adapter: Folder of a PEFT adapter; None writes the base alone.
        out: Folder to make.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; the base's own by default. The sum is made in float32;
            what a small step of training changed may be less than bfloat16 tells apart.

    Returns:
        `out`.

    Raises:
        UserError: `out` is there already, or base or adapter cannot be read.
    """
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype not in dtypes:
        raise UserError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}")
    _absent(out)
    with quiet_libraries():
        from transformers import AutoConfig, AutoTokenizer

        model = merged_model(base, adapter)
        own = getattr(AutoConfig.from_pretrained(base, local_files_only=True), "dtype", None)
        model.to(dtypes[dtype] if dtype is not None else own or torch.float32)
        with _drafted(out) as draft:
            model.save_pretrained(draft)
            AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(draft)
    return out


def merged_model(base: Path, adapter: Path | None) -> Any:
    """Load a base model in float32 and add the adapter to its weights.

    Raises:
        UserError: One of them cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if adapter is not None and not (adapter / "adapter_model.safetensors").is_file():
        raise UserError(f"{str(adapter)!r} is no adapter: it needs adapter_config.json and adapter_model.safetensors")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
        if adapter is None:
            return model
        from peft import PeftModel

        with warnings.catch_warnings():  # PEFT asks transformers for an attribute under its old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            tuned: Any = PeftModel.from_pretrained(model, str(adapter))
        return tuned.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError) as error:
        what = "base model" if adapter is None else f"adapter {str(adapter)!r} on the base model"
        raise UserError(f"cannot read the {what} {str(base)!r}: {error}") from error


def export_gguf(base: Path, adapter: Path | None, out: Path, *, like: Path, precision: Precision = "f16") -> Path:
    """Write base and adapter as one GGUF file, which the embedded engine runs: ``load_lm("local/FILE.gguf")``.

    The file is a copy of `like` with all its metadata (tokenizer, chat template, hyperparameters) and the merged
    weights in the place of its own.

    Args:
        base: Folder of the base model in Hugging Face's form.
        adapter: Folder of a PEFT adapter; None writes the base alone.
        out: File to make.
        like: A GGUF file of the same base model, in whatever quantization.
        precision: How matrices are kept. Embedding ``"q8_0"`` is half the size of ``"f16"``.

    Returns:
        `out`.

    Raises:
        UserError: `out` is there already, `like` is another model or of an architecture that is not known here, a
            weight does not fit the precision, or something cannot be read.
    """
    if precision not in _FILE_TYPES:
        raise UserError(f"precision must be one of {', '.join(_FILE_TYPES)}, got {precision!r}")
    _absent(out)
    reader, architecture = _read(like)
    with quiet_libraries():
        tensors = _named(merged_model(base, adapter), architecture, reader)
    _write(reader, architecture, tensors, out, precision)
    return out


def _read(like: Path) -> tuple[gguf.GGUFReader, str]:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise UserError("GGUF files need gguf: pip install 'optograph[train]'") from error
    try:
        reader = gguf.GGUFReader(like)
        architecture = str(reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {str(like)!r} as a GGUF file: {error}") from error
    if architecture not in _ROTATED | _PLAIN:
        raise UserError(
            f"{str(like)!r} is a model of the architecture {architecture!r}; weights are written for "
            f"{', '.join(sorted(_ROTATED | _PLAIN))} only. Use merge_adapter and llama.cpp's own converter"
        )
    return reader, architecture


def _named(model: Any, architecture: str, reader: gguf.GGUFReader) -> dict[str, npt.NDArray[np.float32]]:
    """Return the model's tensors under GGUF's names and in its order of rows, for each tensor of the file."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], int(model.config.num_hidden_layers))
    order = _order(model.config) if architecture in _ROTATED else None
    there = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
    found: dict[str, npt.NDArray[np.float32]] = {}
    for name, tensor in model.state_dict().items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UserError(f"the base model's tensor {name!r} has no name in GGUF")
        if target not in there and target == "output.weight" and model.config.tie_word_embeddings:
            continue  # the embeddings serve as the output too
        data = tensor.detach().float().numpy()
        if order is not None:
            data = order(name, data)
        if there.get(target) != data.shape:
            raise UserError(
                f"the GGUF file is of another model: its {target!r} has the shape {there.get(target)!r}, the base "
                f"model's {name!r} {data.shape!r}"
            )
        found[target] = data
    missing = sorted(name for name in there if name not in found and not name.startswith("rope_"))
    if missing:
        raise UserError(f"the GGUF file is of another model: the base has no {missing[:3]!r}")
    return found


def _order(config: Any) -> Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Return what brings query and key rows from halves (transformers) into neighbours (llama.cpp)."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}

    def ordered(name: str, data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        count = next((count for part, count in heads.items() if f".{part}." in name), None)
        if count is None:
            return data
        halves = data.reshape(count, 2, data.shape[0] // count // 2, *data.shape[1:])
        return halves.swapaxes(1, 2).reshape(data.shape)

    return ordered


def _write(
    reader: gguf.GGUFReader,
    architecture: str,
    tensors: dict[str, npt.NDArray[np.float32]],
    out: Path,
    precision: Precision,
) -> None:
    import gguf

    general = gguf.Keys.General
    kinds = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    replaced = {general.ARCHITECTURE, general.FILE_TYPE, general.QUANTIZATION_VERSION}
    with _drafted(out) as draft:
        writer = gguf.GGUFWriter(draft, architecture, endianess=reader.endianess)
        writer.add_file_type(_FILE_TYPES[precision])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for field in reader.fields.values():
            if field.name in replaced or field.name.startswith("GGUF."):
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
        for tensor in reader.tensors:
            merged = tensors.get(tensor.name)
            if merged is None:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
                continue
            wanted = kinds[precision] if merged.ndim > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor.name, _packed(tensor.name, merged, wanted), raw_dtype=wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _packed(name: str, data: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> npt.NDArray[Any]:
    import gguf
    import numpy as np

    if kind == gguf.GGMLQuantizationType.F16 and not np.abs(data).max() <= np.finfo(np.float16).max:
        raise UserError(f"tensor {name!r} holds numbers that do not fit 16 bits; export with precision='f32'")
    try:
        return gguf.quants.quantize(data, kind)
    except gguf.quants.QuantError as error:
        raise UserError(f"tensor {name!r} cannot be kept as {kind.name}: {error}") from error


def _absent(out: Path) -> None:
    if out.exists():
        raise UserError(f"{str(out)!r} is there already: remove it, or write elsewhere")


@contextmanager
def _drafted(out: Path) -> Iterator[Path]:
    """Give a place beside `out` to write to; it becomes `out` in one rename, when all is on the disk."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            draft = Path(name) / out.name
            yield draft
            move_whole(draft, out)
    except OSError as error:
        raise UserError(f"cannot write {str(out)!r}: {error}") from error
