"""The journal: one run is one directory, and everything a run learns is written there once."""

from __future__ import annotations

from optograph.storage.batch import Batch
from optograph.storage.canonical import canonical_json, content_hash, text_hash
from optograph.storage.damage import Damage
from optograph.storage.failpoints import FAILPOINTS, failpoint
from optograph.storage.journal import Journal
from optograph.storage.rows import CallRow, CandidateRow, DecisionRow, EvaluationRow
from optograph.storage.whole import move_whole, write_whole

__all__ = [
    "FAILPOINTS",
    "Batch",
    "CallRow",
    "CandidateRow",
    "Damage",
    "DecisionRow",
    "EvaluationRow",
    "Journal",
    "canonical_json",
    "content_hash",
    "failpoint",
    "move_whole",
    "text_hash",
    "write_whole",
]
