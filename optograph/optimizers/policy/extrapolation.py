"""Extrapolated adapters: what momentum DPO samples from, made in the space of weights.

In the space of sequences the extrapolated policy is exact (`momentum_reference`), but nothing can sample from it. Here
it is approximated by moving the weights on: with dW = scaling B A of two adapters, (1 + alpha) dW - alpha dW_before.
That is PEFT's combination ``"cat"``: factors side by side, exact in the weights, of the sum of both ranks. (PEFT's
``"linear"`` mixes the factors and is wrong with a negative weight.)

Ranks do not grow from round to round: training goes on with the adapter that was trained, of rank r, and only what is
sampled from has rank 2 r; or give `rank`, and it is cut to that by a singular value decomposition.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy.base import BaseModelFiles
from optograph.optimizers.policy.rows import TrainingRow, preference_rows
from optograph.serving.vllm.adapters import CONFIG_FILE, WEIGHTS_FILE, adapter_hash, read_adapter_config
from optograph.storage import move_whole

_A, _B = ".lora_A.weight", ".lora_B.weight"
_PAIRS = 32
"""Most pairs on which the realised share is measured."""


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """An adapter that was moved on.

    Attributes:
        folder: The adapter.
        hash: Its content.
        rank: Its rank.
        cut: Share of the update's size (Frobenius norm, over all modules) that was lost by cutting the rank; 0 to 1.
        realised_share: How much of the intended change of margins the weights bring about: the slope of the extra
            margin on the intended one, 1 where both agree. None where there were no pairs, or no step to move on.
    """

    folder: Path
    hash: str
    rank: int
    cut: float
    realised_share: float | None


def extrapolate_adapter(
    current: str | Path,
    previous: str | Path | None,
    alpha: float,
    out: str | Path,
    *,
    base: BaseModelFiles | None = None,
    rows: Sequence[TrainingRow] = (),
    rank: int | None = None,
) -> Extrapolated:
    """Move an adapter on by `alpha` times its last step.

    Args:
        current: Adapter of the policy that the last round trained.
        previous: Adapter of the one before; none for the bare base.
        alpha: Momentum, 0 to less than 1.
        out: Folder for the result; it must not exist yet.
        base: The base, to measure `realised_share`.
        rows: Rows with pairs, to measure it on.
        rank: Largest rank of the result; by default nothing is cut.

    Raises:
        UserError: `alpha` is out of range, an adapter is no plain LoRA, or the two have different modules.
    """
    if not (isinstance(alpha, int | float) and 0 <= alpha < 1):
        raise UserError(f"alpha, the momentum, must be from 0 to less than 1, got {alpha!r}")
    folder = Path(out)
    if folder.exists():
        raise UserError(f"{str(folder)!r} exists already: an adapter never changes, so give a new folder")
    parts = [(_read(Path(current)), 1 + alpha)]
    if previous is not None and alpha:
        parts.append((_read(Path(previous)), -alpha))
    if len({frozenset(part) for part, _ in parts}) > 1:
        raise UserError(f"the adapters {str(current)!r} and {str(previous)!r} change different modules")
    modules = {}
    lost = whole = 0.0
    for name in sorted(parts[0][0]):
        a = torch.cat([part[name][0] * (weight * part[name][2]) for part, weight in parts])
        b = torch.cat([part[name][1] for part, _ in parts], 1)
        modules[name], missing, size = _cut(a, b, rank)
        lost, whole = lost + missing, whole + size
    _write(Path(current), modules, folder)
    share = None
    if base is not None and previous is not None and alpha:
        share = realised_share(Path(current), Path(previous), folder, alpha, base, rows)
    reached = max(a.shape[0] for a, _ in modules.values())
    return Extrapolated(folder, adapter_hash(folder), reached, (lost / whole) ** 0.5 if whole else 0.0, share)


def realised_share(
    current: Path, previous: Path, moved: Path, alpha: float, base: BaseModelFiles, rows: Sequence[TrainingRow]
) -> float | None:
    """Return which share of the intended change of margins an extrapolated adapter brings about.

    The margin of a pair is its chosen answer's log-probability less the rejected one's; intended is `alpha` times what
    the last step added to it. Measured in float32, on up to 32 pairs from all over the rows.
    """
    pairs = preference_rows(rows)
    pairs = pairs[:: math.ceil(len(pairs) / _PAIRS)] if pairs else pairs
    if not pairs:
        return None
    from peft import PeftModel

    from optograph.optimizers.policy.models import POLICY, add_frozen, load_base
    from optograph.optimizers.policy.quiet import quiet_libraries
    from optograph.optimizers.policy.references import score_rows

    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_libraries():
        model = PeftModel.from_pretrained(load_base(base, dtype=torch.float32, device=device), str(current))
        margins = []
        for name, folder in ((POLICY, None), ("previous", previous), ("moved", moved)):
            if folder is not None:
                add_frozen(model, name, folder)
            totals = torch.tensor([one.total for one in score_rows(model, answers, name, batch_size=32)])
            margins.append(totals[: len(pairs)] - totals[len(pairs) :])
    intended, reached = alpha * (margins[0] - margins[1]), margins[2] - margins[0]
    size = float((intended**2).sum())
    return float((intended * reached).sum()) / size if size > 0 else None


def _read(folder: Path) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Return (A, B, scaling) of each module."""
    settings = read_adapter_config(folder)
    odd = [name for name in ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save") if settings.get(name)]
    if settings.get("peft_type") != "LORA" or odd:
        raise UserError(
            f"the adapter {str(folder)!r} is no plain LoRA ({odd or settings.get('peft_type')}): it cannot move"
        )
    rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    scaling = alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank
    tensors = load_file(folder / WEIGHTS_FILE)
    names = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    if 2 * len(names) != len(tensors) or any(name + _B not in tensors for name in names):
        raise UserError(f"the adapter {str(folder)!r} holds more than LoRA's factors: it cannot move")
    return {name: (tensors[name + _A].float(), tensors[name + _B].float(), scaling) for name in names}


def _cut(a: Tensor, b: Tensor, rank: int | None) -> tuple[tuple[Tensor, Tensor], float, float]:
    """Return the factors of the nearest matrix to B A of that rank, and squared norms: of what it lacks, and of all."""
    left, right = torch.linalg.qr(b.double()), torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(left.R @ right.R.T)
    size = float((s**2).sum())
    if rank is None or a.shape[0] <= rank:
        return (a, b), 0.0, size
    root = s[:rank].sqrt()
    factors = (root[:, None] * v[:rank] @ right.Q.T).float(), (left.Q @ u[:, :rank] * root).float()
    return factors, float((s[rank:] ** 2).sum()), size


def _write(like: Path, modules: dict[str, tuple[Tensor, Tensor]], folder: Path) -> None:
    rank = max(a.shape[0] for a, _ in modules.values())
    settings: dict[str, Any] = {**read_adapter_config(like), "r": rank, "lora_alpha": rank, "use_rslora": False}
    tensors = {
        name + end: part.contiguous()
        for name, both in modules.items()
        for end, part in zip((_A, _B), both, strict=True)
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.")) / "policy"
    try:
        new.mkdir()
        save_file(dict(sorted(tensors.items())), new / WEIGHTS_FILE, metadata={"format": "pt"})
        (new / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        move_whole(new, folder)
    finally:
        shutil.rmtree(new.parent, ignore_errors=True)
