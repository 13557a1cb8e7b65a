"""One way to write JSON, so that equal things have equal bytes and equal hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(data: Any) -> str:
    """Write JSON data with sorted keys and no spaces; NaN and infinity are refused with ``ValueError``."""
    return _ENCODER.encode(data)


def content_hash(data: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of ``data``."""
    return text_hash(canonical_json(data))


def text_hash(text: str) -> str:
    """Return the SHA-256 (64 hex digits) of a text that is canonical JSON already."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()
