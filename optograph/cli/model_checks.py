"""Checks of models for ``optograph doctor``: files and keys, then tiny real calls, each with one thing to prove."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.cli.checks import Check
from optograph.errors import OptographError, UserError

if TYPE_CHECKING:
    from optograph.serving import BaseLM, Capabilities, Completion, LocalModel, Request

CALL_TIMEOUT_S = 60.0
"""A tiny call that takes longer has failed."""

_QUESTION = "Answer with the word yes."
_CHOICES = ("yes", "no")
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": list(_CHOICES)}},
    "required": ["answer"],
    "additionalProperties": False,
}


def check_model(name: str, options: Mapping[str, Any] | None = None) -> list[Check]:
    """Look at one model: what it needs, whether it is served, and what it really can do.

    Args:
        name: Model string, such as ``"local/smollm2-135m"``.
        options: Options of the model, as a job gives them.
    """
    found = _file_checks(name) + _key_checks(name, options or {})
    if any(one.ok is False for one in found):
        return found
    from optograph.serving import load_lm, run_sync

    try:
        lm = load_lm(name, **_quick(name, options or {}))
    except OptographError as error:
        return [*found, Check(f"{name}", False, str(error), "correct the model string or its options")]
    try:
        return found + run_sync(_try_out(lm, name, options or {}))
    finally:
        run_sync(lm.aclose())


def _quick(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model without retries, which would only make a broken endpoint look slow."""
    return dict(options) if name.startswith("local/") else {**options, "retry": {"attempts": 1, "bad_answers": 1}}


def _file_checks(name: str) -> list[Check]:
    """Look at the file of an embedded model; nothing is fetched."""
    kind, _, rest = name.partition("/")
    if kind != "local":
        return []
    what = f"{name}: file"
    if rest.endswith(".gguf"):
        if Path(rest).expanduser().is_file():
            return [Check(what, True, f"{Path(rest).expanduser().stat().st_size / 1e6:.0f} MB")]
        return [Check(what, False, f"there is no file {rest!r}", "give the path of a .gguf file")]
    from optograph.serving.fetch import find_model

    try:
        return [check_catalogued(find_model(rest), needed=True)]
    except UserError as error:
        return [Check(what, False, str(error), "see the names: optograph models list")]


def check_catalogued(model: LocalModel, *, needed: bool) -> Check:
    """See whether the file of an embedded model is here and whole."""
    from optograph.serving.cache import sha256_of

    what, fix = f"local/{model.name}: file", f"optograph models pull {model.name}"
    if not model.path.is_file():
        return Check(what, False if needed else None, f"{model.title} is not here yet", fix)
    if not model.present or sha256_of(model.path) != model.sha256:
        return Check(what, False, f"{str(model.path)!r} is damaged: its SHA-256 is not as expected", fix)
    return Check(what, True, f"{model.title}, {model.size / 1e6:.0f} MB, SHA-256 as expected")


def _key_checks(name: str, options: Mapping[str, Any]) -> list[Check]:
    """See whether an API key is set where one is needed; its value is never looked at."""
    kind, _, rest = name.partition("/")
    if kind not in ("openai", "vllm"):
        return []
    from optograph.serving.urls import is_loopback

    names = ("VLLM_API_KEY", "OPENAI_API_KEY") if kind == "vllm" else ("OPENAI_API_KEY",)
    here = next((one for one in names if os.environ.get(one)), None)
    url = rest.rpartition("@")[2] if "://" in rest else options.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    what = f"{name}: API key"
    if here is not None:
        return [Check(what, True, f"{here} is set (its value is not shown)")]
    try:
        open_door = kind == "vllm" or (url is not None and is_loopback(str(url)))
    except ValueError:  # a bad URL has a message of its own
        open_door = True
    if open_door:
        return [Check(what, None, "none is set, and this endpoint may need none")]
    return [Check(what, False, "none is set", f"export {names[-1]}=…")]


@dataclass(frozen=True, slots=True)
class Trial:
    """One tiny call.

    Attributes:
        what: What it proves.
        needed: Whether a job depends on it: a model that claims it and lacks it is at fault.
        able: Whether the model claims it.
        fields: Fields of the request.
        proof: Returns what was found, or raises ``ValueError`` with what is wrong.
        fix: What to do where it fails.
    """

    what: str
    needed: bool
    able: Callable[[Capabilities], bool]
    fields: Mapping[str, Any]
    proof: Callable[[Completion], str]
    fix: str


def _said(completion: Completion) -> str:
    if not completion.text.strip():
        raise ValueError("the answer is empty")
    return f"answered in {completion.latency_s:.2f} s, {completion.usage.total_tokens} tokens"


def _held_to_schema(completion: Completion) -> str:
    data = json.loads(completion.text)
    if not isinstance(data, dict) or data.get("answer") not in _CHOICES:
        raise ValueError(f"the answer {completion.text[:80]!r} breaks the schema")
    return "answers obey a JSON schema"


def _held_to_choice(completion: Completion) -> str:
    if completion.text not in _CHOICES:
        raise ValueError(f"the answer {completion.text[:80]!r} is none of the choices")
    return "answers are one of the choices"


def _with_logprobs(completion: Completion) -> str:
    tokens = completion.logprobs[0]
    if not tokens:
        raise ValueError("the answer carries none")
    return f"{len(tokens)} tokens with up to {max(len(one.top) for one in tokens)} alternatives"


def _trials() -> list[Trial]:
    from optograph.serving import schema_of

    return [
        Trial("answers", True, lambda can: True, {}, _said, "look at the server's log"),
        Trial(
            "JSON schema",
            True,
            lambda can: can.json_schema,
            {"schema": schema_of(_SCHEMA), "max_tokens": 32},
            _held_to_schema,
            "serve it with structured output on; else steps fall back to parsing: capabilities without json_schema",
        ),
        Trial(
            "choice",
            True,
            lambda can: can.choice,
            {"schema": schema_of(list(_CHOICES))},
            _held_to_choice,
            "serve it with structured output on, or give it capabilities without choice",
        ),
        Trial(
            "log-probabilities",
            False,
            lambda can: can.logprobs,
            {"logprobs": 2},
            _with_logprobs,
            "needed only where labels are scored by their log-probabilities",
        ),
    ]


async def _try_out(lm: BaseLM, name: str, options: Mapping[str, Any]) -> list[Check]:
    found = await _served(lm, name)
    if any(one.ok is False for one in found):
        return found
    for trial in _trials():
        found.append(await _try(lm, name, trial))
        if found[-1].ok is False and trial.what == "answers":
            return found
    return [*found, *await _streaming(name, options)]


async def _served(lm: BaseLM, name: str) -> list[Check]:
    """See whether an endpoint can be reached, and serves the model."""
    list_models = getattr(lm, "served_models", None)
    if list_models is None:
        return []
    what = f"{name}: endpoint"
    started = time.monotonic()
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            served = await list_models()
    except OptographError as error:
        return [Check(what, False, str(error), "start the server, or correct the URL or the key")]
    except TimeoutError:
        return [Check(what, False, f"silent for {CALL_TIMEOUT_S:.0f} s", "look at the server's log")]
    model = getattr(lm, "model", "")
    if served and model not in served:
        return [Check(what, False, f"it serves {', '.join(served)}", f"name one of these instead of {model!r}")]
    return [Check(what, True, f"reached in {(time.monotonic() - started) * 1e3:.0f} ms, serves {model!r}")]


async def _try(lm: BaseLM, name: str, trial: Trial) -> Check:
    """Make one tiny call and see whether it proves what it should."""
    what = f"{name}: {trial.what}"
    if not trial.able(lm.capabilities):
        return Check(what, None, "not offered by this model")
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            completion = await lm.complete(_request(trial.fields))
        return Check(what, True, trial.proof(completion))
    except TimeoutError:
        problem = f"no answer within {CALL_TIMEOUT_S:.0f} s"
    except (OptographError, ValueError) as error:
        problem = str(error)
    return Check(what, False if trial.needed else None, problem, trial.fix)


def _request(fields: Mapping[str, Any]) -> Request:
    from optograph.serving import make_request

    return make_request(_QUESTION, **{"max_tokens": 16, **fields})


async def _streaming(name: str, options: Mapping[str, Any]) -> list[Check]:
    """See whether asking for a streamed answer brings a whole one; a server may ignore the wish."""
    from optograph.serving import load_lm

    if name.startswith("local/") or "stream" in options:
        return []  # nothing to choose, or chosen: then all calls above were streamed
    lm = load_lm(name, **_quick(name, options), stream=True)
    try:
        trial = Trial("streaming", False, lambda can: True, {}, _said, "leave stream = true out of the job")
        return [await _try(lm, name, trial)]
    finally:
        await lm.aclose()
