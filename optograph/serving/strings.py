"""Model strings, as job files and the command line write them."""

from __future__ import annotations

from typing import Any

from optograph.errors import UserError
from optograph.serving.base import BaseLM
from optograph.serving.fetch import fetch_model, models
from optograph.serving.llamacpp import LlamaCppLM
from optograph.serving.openai_lm import OpenAILM
from optograph.serving.retry import Deadline, Retry
from optograph.serving.urls import check_url

FORMS = (
    "local/NAME (a model that is fetched once: {names})",
    "local/PATH.gguf",
    "openai/NAME (at OPENAI_BASE_URL, or OpenAI itself)",
    "openai/NAME@URL",
    "vllm/NAME@URL, such as vllm/Qwen/Qwen2.5-7B-Instruct@http://127.0.0.1:8000/v1",
)


def load_lm(spec: str, **options: Any) -> BaseLM:
    """Make a model from a string.

    Args:
        spec: ``local/smollm2-135m``, ``local/PATH.gguf``, ``openai/NAME``, ``openai/NAME@URL`` or ``vllm/NAME@URL``.
        **options: Keyword arguments of `LlamaCppLM` or `OpenAILM`.

    Raises:
        UserError: When the string has none of these forms, or an option is unknown.
        ServingError: When a model cannot be fetched.
    """
    for name, make in (("deadline", Deadline), ("retry", Retry)):
        if isinstance(options.get(name), dict):  # as a job file writes it
            try:
                options[name] = make(**options[name])
            except TypeError as error:
                raise UserError(f"model {spec!r}: {name}: {error}") from None
    kind, slash, rest = spec.partition("/") if isinstance(spec, str) else ("", "", "")
    if not slash or not rest or kind not in ("local", "openai", "vllm"):
        raise _no_such_form(spec)
    name, at, url = rest.rpartition("@")
    if not at or "://" not in url:  # a revision or a file may carry an @ too
        name, url = rest, ""
    try:
        if kind == "local":
            return _local(spec, rest, options)
        if not name or (kind == "vllm" and not url):
            raise _no_such_form(spec)
        if url:
            options["base_url"] = check_url(url)
        return OpenAILM(name, flavour="vllm" if kind == "vllm" else "openai", name=spec, **options)
    except TypeError as error:
        raise UserError(f"model {spec!r} takes no such option: {error}") from None


def _local(spec: str, rest: str, options: dict[str, Any]) -> BaseLM:
    if rest.endswith(".gguf"):
        return LlamaCppLM(rest, name=spec, **options)
    return LlamaCppLM(fetch_model(rest), name=spec, **options)


def _no_such_form(spec: object) -> UserError:
    forms = "; ".join(FORMS).format(names=", ".join(models()))
    return UserError(f"{spec!r} names no model; write {forms}")
