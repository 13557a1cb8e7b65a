"""The critic in the folder of a policy that OREO trained: its content's hash, and whether it is the recorded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.serving.cache import sha256_of
from optograph.serving.vllm.adapters import adapter_hash

RECORD = "training.json"
"""Name of the file in a policy's folder that says how it came about."""
CRITIC_FOLDER = "critic"
"""Name of the critic's folder in the policy's."""
HEAD_FILE = "head.safetensors"
"""Name of the file with the critic's head in its folder, beside an adapter in PEFT's form."""


def critic_hash(critic: Path) -> str:
    """Return a hash of a critic's content, adapter and head: 64 hexadecimal digits (SHA-256).

    Raises:
        UserError: The folder holds no critic.
    """
    head = critic / HEAD_FILE
    if not head.is_file():
        raise UserError(f"{str(critic)!r} is no critic: it needs {HEAD_FILE} beside its adapter")
    return hashlib.sha256(f"{adapter_hash(critic)} {sha256_of(head)}".encode()).hexdigest()


def found_critic(policy: Path) -> str | None:
    """Return the hash of the critic that a policy's folder holds; None where there is none.

    Raises:
        UserError: The critic is damaged.
    """
    folder = policy / CRITIC_FOLDER
    return critic_hash(folder) if folder.is_dir() else None


def checked_critic(policy: Path) -> Path | None:
    """Return the folder of a policy's critic, checked to be the one that was trained with it; None where there is none.

    A policy without a record, such as one from elsewhere, is taken as it is.

    Raises:
        UserError: The critic was changed, added or removed since, or it is damaged.
    """
    record, found = training_record(policy), found_critic(policy)
    if "critic" in record and record["critic"] != found:
        recorded, there = ("no critic" if one is None else str(one)[:16] for one in (record["critic"], found))
        raise UserError(
            f"the critic in {str(policy)!r} is not the one that was trained with the policy: {there} is there, and "
            f"{recorded} was recorded. Put the old one back, or take the policy's weights alone "
            "(adapter_config.json and adapter_model.safetensors in a folder of their own) to begin with a new critic"
        )
    return None if found is None else policy / CRITIC_FOLDER


def training_record(policy: Path) -> Mapping[str, Any]:
    """Return what is recorded of a policy's training; nothing where there is no record.

    Raises:
        UserError: The record cannot be read.
    """
    try:
        record = json.loads((policy / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"the record {str(policy / RECORD)!r} cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"the record {str(policy / RECORD)!r} is damaged: it holds no JSON object")
    return record
