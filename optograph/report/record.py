"""The base of every record of a report: frozen, checked, with texts that any file or terminal may receive."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from optograph.secrets import scrub

# Characters that no HTML file or terminal may receive: C0 and C1 controls but tab and line feed, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    r"""Return the text with secrets blanked, line ends made ``\n`` and unprintable characters replaced by U+FFFD.

    Terminal escapes, NUL bytes and lone surrogates come out of models and data files, and keys out of error texts; none
    of them may reach a terminal or a file in UTF-8.
    """
    return _UNSAFE.sub(_REPLACEMENT, scrub(text).replace("\r\n", "\n").replace("\r", "\n"))


def plain(value: Any) -> Any:
    """Return ``value`` as JSON data with clean texts; what JSON cannot hold becomes text.

    Rows of this module pass through untouched, so that a report may be built from rows or from dicts.
    """
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, (bool, int, Row)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {clean_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray)):
        return clean_text(repr(bytes(value)))
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return clean_text(str(value))


class Row(BaseModel):
    """Base of every record: frozen, no unknown fields, finite numbers, clean texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        return plain(data) if isinstance(data, Mapping) else data
