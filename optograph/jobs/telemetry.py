"""OpenTelemetry spans of a run: the run, its examples, their nodes and model calls, by the GenAI semantic conventions.

Names follow the conventions as of their first release of their own (semantic-conventions-genai 0.1.0). OpenTelemetry is
imported only where a run asks for spans; the SDK only where the program has set no tracer provider itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from optograph.context import CallContext
from optograph.errors import OptographError, ServingError, UserError
from optograph.graphs import Feedback, OpError
from optograph.jobs.options import RunResult, Telemetry
from optograph.secrets import scrub
from optograph.serving import Completion, JsonSchema, Request
from optograph.telemetry import Span, SpanKind, making_spans

if TYPE_CHECKING:
    from opentelemetry import trace

SWITCH = "OPTOGRAPH_OTEL"
"""Environment variable that turns spans on where the run does not say."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OFF = ("", "0", "false", "no", "off")
_PROVIDERS = {"local": "llama.cpp"}
_IN_PROCESS = ("local", "scripted")
_PORTS = {"http": 80, "https": 443}


def wanted(telemetry: Telemetry) -> bool:
    """Tell whether a run makes spans: as its options say, or else the environment."""
    if telemetry.otel is not None:
        return telemetry.otel
    return os.environ.get(SWITCH, "").strip().lower() not in _OFF


@contextmanager
def run_spans(telemetry: Telemetry, title: str, about: Mapping[str, Any]) -> Iterator[RunSpan]:
    """Make spans within a ``with`` block, under one span for the whole run, where they are wanted.

    Args:
        telemetry: What is wanted.
        title: Name of the run.
        about: More attributes of the run's span.

    Raises:
        UserError: OpenTelemetry is not installed, or nothing would receive the spans.
    """
    if not wanted(telemetry):
        yield RunSpan(None)
        return
    with ExitStack() as stack:
        provider = _provider(telemetry, stack)
        spans = OtelSpans(provider, content=telemetry.content)
        root = stack.enter_context(spans.root(title, about))
        stack.enter_context(making_spans(spans))
        yield RunSpan(root)


class RunSpan:
    """The span of a whole run; nothing where none is wanted."""

    def __init__(self, span: _OpenSpan | None) -> None:
        self._span = span

    def outcome(self, result: RunResult) -> None:
        """Tell what the run found."""
        if self._span is not None:
            before, after = result.test
            self._span.set(
                {
                    "optograph.status": result.status,
                    "optograph.candidate.id": result.best.id,
                    "optograph.test.before": before.mean,
                    "optograph.test.after": after.mean,
                    "optograph.test.difference": result.difference.mean,
                }
            )


class OtelSpans:
    """Makes OpenTelemetry spans; each is the current one of its context, so that other libraries' spans nest in it.

    Args:
        provider: OpenTelemetry tracer provider.
        content: Whether messages, feedback and error texts are recorded, without known secrets.
    """

    def __init__(self, provider: trace.TracerProvider, *, content: bool) -> None:
        self.content = content
        self._tracer = provider.get_tracer("optograph")
        self._root: trace.Span | None = None

    @contextmanager
    def root(self, title: str, about: Mapping[str, Any]) -> Iterator[_OpenSpan]:
        """Make the span of the run, which spans of contexts without a current one belong to."""
        name = title or "run"
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.agent.name": name,
            "gen_ai.workflow.name": name,  # the name of the above before 0.1.0
            **about,
        }
        with _OpenSpan(self, f"invoke_workflow {name}", attributes) as opened:
            self._root = opened.span
            yield opened

    def span(self, kind: SpanKind, name: str, about: Any) -> AbstractContextManager[Span]:
        """Make the span of an example, a node or a call."""
        if kind == "call":
            return _CallSpan(self, name, about)
        if kind == "example":
            return _ExampleSpan(self, name, about)
        return _OpenSpan(self, f"run_node {name}", _about_node(name, about))

    def called(self, provider: str, note: Mapping[str, Any]) -> None:
        """Make the span of a call that another library made and that ends now."""
        operation = "text_completion" if note.get("prompt") is not None else "chat"
        model, now = str(note.get("model") or "model"), time.time_ns()
        begun = now - int(1e9 * float(note.get("latency_s") or 0.0))
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            **_about_note(note, content=self.content),
        }
        span = self.start(f"{operation} {model}", attributes, remote=True, begun=begun)
        if note.get("error") is not None:
            _fail(span, str(note["error"]).partition(":")[0], str(note["error"]) if self.content else None)
        span.end(now)

    def start(self, name: str, attributes: Mapping[str, Any], *, remote: bool, begun: int | None = None) -> trace.Span:
        """Start a span under the current one, or under the run's where there is none.

        Args:
            name: Its name.
            attributes: Its attributes; those that are None are left out.
            remote: Whether it waits for another process.
            begun: When it began, in nanoseconds since the epoch; None for now.
        """
        from opentelemetry import trace

        parent = None
        if self._root is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = trace.set_span_in_context(self._root)
        kind = trace.SpanKind.CLIENT if remote else trace.SpanKind.INTERNAL
        clean = _clean(attributes)
        return self._tracer.start_span(scrub(name), context=parent, kind=kind, attributes=clean, start_time=begun)


class _OpenSpan:
    """A span for a ``with`` block."""

    def __init__(self, spans: OtelSpans, name: str, attributes: Mapping[str, Any], *, remote: bool = False) -> None:
        self._spans, self._name, self._attributes, self._remote = spans, name, attributes, remote
        self.content = spans.content

    def __enter__(self) -> _OpenSpan:
        from opentelemetry import context, trace

        self.span = self._spans.start(self._name, self._attributes, remote=self._remote)
        self._token = context.attach(trace.set_span_in_context(self.span))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        from opentelemetry import context

        if error is not None:
            self.failed(_error_type(error), str(error))
        context.detach(self._token)
        self.span.end()

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes; those that are None are left out."""
        self.span.set_attributes(_clean(attributes))

    def failed(self, kind: str, text: str) -> None:
        """Mark the span as failed; what an error says may hold an answer, so it is content."""
        _fail(self.span, kind, text if self.content else None)

    def outcome(self, result: Any) -> None:
        """Nothing to tell."""


class _ExampleSpan(_OpenSpan):
    """The evaluation of an example; its outcome is the feedback (or None) and the error (or None)."""

    def __init__(self, spans: OtelSpans, name: str, trial: Any) -> None:
        attributes = {
            "gen_ai.operation.name": "evaluate_example",
            "optograph.example.id": name,
            "optograph.candidate.id": trial.candidate.id,
            "optograph.split": trial.split,
            "optograph.repeat": trial.repeat,
        }
        super().__init__(spans, "evaluate_example", attributes)

    def outcome(self, result: tuple[Feedback | None, str | None]) -> None:
        feedback, error = result
        if feedback is not None:
            self.set(
                {
                    "gen_ai.evaluation.name": "score",
                    "gen_ai.evaluation.score.value": feedback.total,
                    "gen_ai.evaluation.score.label": feedback.failure_type,
                    "gen_ai.evaluation.explanation": feedback.text if self.content else None,
                }
            )
        if error is not None:
            kind = error.partition(":")[0] if feedback is None else feedback.failure_type
            self.failed(kind or "_OTHER", error)


class _CallSpan(_OpenSpan):
    """A model call; its outcome is the completion."""

    def __init__(self, spans: OtelSpans, name: str, request: Request) -> None:
        operation = "chat" if request.messages else "text_completion"
        provider, model = _named(name)
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
            **_about_request(request),
            **_server(name.rpartition("@")[2]),
        }
        if spans.content:
            turns = [(one.role, one.content) for one in request.messages]
            attributes["gen_ai.input.messages"] = _input(turns or [("user", request.prompt or "")])
        super().__init__(spans, f"{operation} {model}", attributes, remote=provider not in _IN_PROCESS)

    def outcome(self, result: Completion) -> None:
        self.set(
            {
                "gen_ai.response.model": result.identity.served_name,
                "gen_ai.response.finish_reasons": list(result.finish_reasons),
                "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": result.usage.completion_tokens,
                "gen_ai.output.messages": _output(result.texts, result.finish_reasons) if self.content else None,
                **_server(result.identity.endpoint),
            }
        )


# Attributes -------------------------------------------------------------------------------------------------------


def _about_node(name: str, context: CallContext) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "run_node",
        "gen_ai.agent.name": name,
        "optograph.node": name,
        "optograph.parent": context.parent,
        "optograph.role": context.role,
    }


def _about_request(request: Request) -> dict[str, Any]:
    return {
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": float(request.temperature),
        "gen_ai.request.top_p": float(request.top_p),
        "gen_ai.request.seed": request.sampling_seed,
        "gen_ai.request.stop_sequences": list(request.stop) or None,
        "gen_ai.request.choice.count": request.n if request.n != 1 else None,
        "gen_ai.output.type": "json" if isinstance(request.schema, JsonSchema) else None,
    }


def _named(name: str) -> tuple[str, str]:
    """Split a model string into the provider and the model's own name."""
    provider, slash, rest = name.partition("/")
    if not slash:
        return name, name
    model, at, url = rest.rpartition("@")
    return provider, model if at and "://" in url else rest


def _server(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return {}
    return {"server.address": host, "server.port": port} if host and "://" in url else {}


def _about_note(note: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
    reasons, texts = list(note.get("finish_reasons") or ()), list(note.get("texts") or ())
    tokens = note.get("usage") or (None, None)
    turns = [(one["role"], one["content"]) for one in note.get("messages") or ()]
    return {
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.usage.input_tokens": tokens[0],
        "gen_ai.usage.output_tokens": tokens[1],
        "gen_ai.input.messages": _input(turns or [("user", note.get("prompt") or "")]) if content else None,
        "gen_ai.output.messages": _output(texts, reasons) if content and texts else None,
    }


def _input(turns: Iterable[tuple[str, str]]) -> str:
    data = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in turns]
    return json.dumps(data, ensure_ascii=False)


def _output(texts: Sequence[str], reasons: Sequence[str]) -> str:
    data = [
        {"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": reason}
        for text, reason in zip_longest(texts, reasons[: len(texts)], fillvalue="stop")
    ]
    return json.dumps(data, ensure_ascii=False)


def _clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not known, and blank secrets."""
    return {
        key: scrub(value) if isinstance(value, str) else value for key, value in attributes.items() if value is not None
    }


def _fail(span: trace.Span, kind: str, text: str | None) -> None:
    from opentelemetry import trace

    span.set_attribute("error.type", kind)
    span.set_status(trace.StatusCode.ERROR, None if text is None else scrub(text))


def _error_type(error: BaseException) -> str:
    """Return the kind of a failed endpoint (``"timeout"``, ``"rate_limit"`` …), else the name of the error's class."""
    if isinstance(error, OpError):
        error = error.original
    return error.kind if isinstance(error, ServingError) else type(error).__name__


# Where spans go ---------------------------------------------------------------------------------------------------


def _provider(telemetry: Telemetry, stack: ExitStack) -> trace.TracerProvider:
    """Return the provider to use; one that is made here is flushed and closed when the stack unwinds."""
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise _not_installed() from error
    if telemetry.provider is not None:
        given: trace.TracerProvider = telemetry.provider
        return given
    provider = trace.get_tracer_provider()
    if not isinstance(provider, trace.ProxyTracerProvider):
        return provider
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        raise UserError(
            "spans are on, but nothing receives them: set a tracer provider (opentelemetry.trace.set_tracer_provider), "
            f"or name a collector, such as {_ENDPOINTS[1]}=http://127.0.0.1:4318"
        )
    return _exporting(stack)


def _exporting(stack: ExitStack) -> trace.TracerProvider:
    """Return a provider that sends spans to where the OTLP variables of the environment say."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _not_installed() from error
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "optograph"})
    provider = TracerProvider(resource=resource)
    stack.callback(provider.shutdown)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _not_installed() -> OptographError:
    return UserError(
        f"spans are on, but OpenTelemetry is not installed: pip install 'optograph[otel]', or unset {SWITCH}"
    )
