"""What the server is started with follows from the job and from the adapter that training begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.jobs.training.defaults import server_options
from optograph.jobs.training.section import PolicySection
from tests.jobs.training.toys import write_adapter


def section(**values: Any) -> PolicySection:
    """Return a table."""
    return PolicySection.model_validate({"method": "dpo", "rank": 8, **values})


def test_the_servers_rank_is_that_of_the_start(tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "given", 0.5, rank=24)
    for start, rank in (({"adapter": "given"}, 24), ({"rows": "r.jsonl", "rank": 32}, 32), (None, 8)):
        assert server_options(section(start=start), tmp_path)["max_lora_rank"] == rank
        momentum = section(start=start, method="momentum_dpo")
        assert server_options(momentum, tmp_path)["max_lora_rank"] == 2 * rank
    small = section(start={"adapter": str(given)}, server={"max_lora_rank": 16})
    with pytest.raises(UserError, match=r"reach rank 24 .*takes 16.*policy\.server\.max_lora_rank"):
        server_options(small, tmp_path)
    (given / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "use_dora": True}))
    with pytest.raises(UserError, match="use_dora"):
        server_options(section(start={"adapter": "given"}), tmp_path)
