"""Model strings and the URLs in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.errors import UserError
from optograph.serving import OpenAILM, load_lm
from optograph.serving.urls import check_url, is_loopback


def test_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    hosted = load_lm("openai/gpt-x")
    own = load_lm("openai/org/model@http://localhost:9000/v1/")
    vllm = load_lm("vllm/Qwen/Qwen2.5-7B-Instruct@http://127.0.0.1:8000/v1", max_concurrency=4)
    for lm, model, url, flavour in (
        (hosted, "gpt-x", "https://api.openai.com/v1", "openai"),
        (own, "org/model", "http://localhost:9000/v1", "openai"),
        (vllm, "Qwen/Qwen2.5-7B-Instruct", "http://127.0.0.1:8000/v1", "vllm"),
    ):
        assert isinstance(lm, OpenAILM)
        assert (lm.model, lm.base_url, lm.flavour) == (model, url, flavour)
    assert vllm.max_concurrency == 4
    assert vllm.name == "vllm/Qwen/Qwen2.5-7B-Instruct@http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    "spec", ["", "gpt-4", "local/", "vllm/name", "vllm/@http://127.0.0.1:1/v1", "ollama/x", "/x", None, 3]
)
def test_a_bad_string_lists_the_forms(spec: object) -> None:
    with pytest.raises(UserError, match=r"names no model; write local/NAME .*smollm2-135m.*vllm/NAME@URL"):
        load_lm(spec)  # type: ignore[arg-type]


def test_an_unknown_local_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'local/smollm2-135m'"):
        load_lm("local/smollm-135m")
    with pytest.raises(UserError, match="known: smollm2-135m"):
        load_lm("local/zzz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model file"):
        load_lm(f"local/{tmp_path}/none.gguf")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match=r"takes no such option.*temperatur"):
        load_lm("vllm/m@http://127.0.0.1:1/v1", temperatur=1)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@127.0.0.1/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1/v1?key=secret",
        "http://169.254.169.254/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://2852039166/v1",
        "http://0xA9FEA9FE/v1",
        "http://metadata.google.internal/v1",
        "http://100.100.100.200/v1",
        "http://[fd00:ec2::254]/v1",
        "http://[broken/v1",
    ],
)
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        check_url(url)
    assert "user:secret" not in str(caught.value)


def test_good_urls() -> None:
    assert check_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"
    assert check_url("https://api.example.com/v1") == "https://api.example.com/v1"
    assert check_url("http://10.0.0.3:8000/v1") == "http://10.0.0.3:8000/v1"
    assert is_loopback("http://[::1]:80/v1")
    assert is_loopback("http://localhost/v1")
    assert not is_loopback("https://api.example.com/v1")
