"""Prices: the most telling entry counts, money adds up exactly, and an unknown price is never taken for 0."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optograph.errors import UserError
from optograph.serving import Price, PriceTable
from optograph.serving.prices import PICO, to_pico

TABLE = PriceTable(
    {
        "openai/gpt-x": Price(1, 2),
        "openai/gpt-*": Price(3, 4),
        "openai/*": Price(5, 6),
        "qwen": Price(7, 8),
        "vllm/*@https://gpu.example/*": Price(9, 9),
    }
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-x", Price(1, 2)),
        ("openai/gpt-x@https://elsewhere.example/v1", Price(1, 2)),
        ("openai/gpt-y", Price(3, 4)),
        ("openai/other", Price(5, 6)),
        ("vllm/qwen@http://10.0.0.1:8000/v1", Price(7, 8)),
        ("vllm/big@https://gpu.example/v1", Price(9, 9)),
        ("vllm/big@http://127.0.0.1:8000/v1", Price(0, 0)),
        ("openai/gpt-x@http://localhost:1/v1", Price(1, 2)),
        ("vllm/big@https://other.example/v1", None),
        ("local/smollm2-135m", Price(0, 0)),
        ("scripted", Price(0, 0)),
        ("gpt-x", None),
        ("", None),
    ],
)
def test_the_most_telling_entry_counts(model: str, expected: Price | None) -> None:
    assert TABLE.find(model) == expected


def test_what_endpoints_list_counts_after_the_job() -> None:
    table = TABLE.merged({"qwen": (1.0, 1.0), "vllm/big@https://other.example/v1": (0.5, 1.5), "llama": Price(2, 3)})
    assert table.find("openai/llama@https://a.example/v1") == Price(5, 6)
    assert table.find("vllm/llama@https://a.example/v1") == Price(2, 3)
    assert table.find("vllm/big@https://other.example/v1") == Price(0.5, 1.5)
    assert table.find("vllm/qwen@https://a.example/v1") == Price(7, 8)
    assert table.merged({"more": (1, 1)}).find("vllm/llama@https://a.example/v1") == Price(2, 3)
    assert TABLE.find("vllm/llama@https://a.example/v1") is None
    assert table != TABLE
    assert TABLE.merged({}) == TABLE


def test_an_unknown_price_is_a_mistake_that_says_what_to_write() -> None:
    with pytest.raises(
        UserError, match=r'(?s)\'openai/a@https://x/v1\'.*\[prices\."openai/a"\]\ninput = .*\noutput = '
    ):
        PriceTable().require("openai/a@https://x/v1")
    assert TABLE.require("openai/gpt-x") == Price(1, 2)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "1", True, None])
def test_a_price_is_a_number(bad: object) -> None:
    with pytest.raises(UserError, match=r"per million tokens, not"):
        Price(bad, 1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="output"):
        PriceTable().merged({"m": (1, bad)})  # type: ignore[dict-item]


def test_money_is_what_was_written() -> None:
    assert Price(0.15, 0.6).per_token == (150_000, 600_000)
    assert Price(0.15, 0.6).usd(2_000_000, 1_000_000) == 0.9
    assert to_pico(0.1) == PICO // 10
    assert Price(1e-9, 0).per_token == (1, 0)


@given(st.floats(0, 1e6, allow_nan=False))
def test_a_price_is_never_rounded_down(usd: float) -> None:
    written = Fraction(repr(usd))
    assert 0 <= Fraction(to_pico(usd)) - written * PICO < 1
