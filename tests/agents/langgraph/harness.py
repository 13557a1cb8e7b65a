"""Finds the apps, drives them by every method, and puts what they give into a form that can be compared."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from uuid import uuid4

from langchain_core.messages import BaseMessage
from langgraph.types import Interrupt
from pydantic import BaseModel

from optograph.graphs import Candidate, applying, tracing
from tests.agents.langgraph.apps.models import Call, recording

PACKAGE = "tests.agents.langgraph.apps"
METHODS = ("invoke", "ainvoke", "stream", "astream")
MODES: tuple[Any, ...] = ("values", "updates", "messages", "custom", "tasks", ["updates", "custom"])
_RANDOM = re.compile(
    r"(lc_run--|run-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-\d+)?|^[0-9a-f]{32}$"
)


class App(NamedTuple):
    """What a module of an app says of itself.

    Attributes:
        name: Its name.
        module: The module.
        edges: Its data flow: who wrote, who read, which channel.
        prompts: Nodes and texts that must be found.
        computed: Nodes and texts that must be reported as computed.
        either: Nodes and texts that must be found, or else reported.
        other: Further texts that may be found.
        reworked: Nodes that work texts over before the model gets them, or ask it about data from outside the state:
            what they send may be reported as computed too.
        inputs: Inputs; the edges are of the first.
        resume: What the app is called with after that, on the same thread.
        sync: Whether blocking calls work.
        parallel: Whether the order of events is open.
    """

    name: str
    module: ModuleType
    edges: frozenset[tuple[str, str, str]]
    prompts: frozenset[tuple[str, str]]
    computed: frozenset[tuple[str, str]]
    either: frozenset[tuple[str, str]]
    other: frozenset[str]
    reworked: frozenset[str]
    inputs: tuple[Any, ...]
    resume: tuple[Any, ...]
    sync: bool
    parallel: bool

    def build(self) -> Any:
        """Return the compiled app, built anew."""
        return self.module.build()

    def arguments(self) -> dict[str, Any]:
        """Return the config of one run, with a thread of its own, and the context."""
        config = copy.deepcopy(getattr(self.module, "CONFIG", {}))
        if "thread_id" in config.get("configurable", {}):
            config["configurable"]["thread_id"] = str(uuid4())
        context = getattr(self.module, "CONTEXT", None)
        return {"config": config} if context is None else {"config": config, "context": context}


def _load(name: str) -> App | None:
    module = importlib.import_module(f"{PACKAGE}.{name}")
    if not hasattr(module, "build"):
        return None
    return App(
        name,
        module,
        frozenset(module.EDGES),
        frozenset(module.PROMPTS),
        frozenset(getattr(module, "COMPUTED", ())),
        frozenset(getattr(module, "EITHER", ())),
        frozenset(getattr(module, "OTHER", ())),
        frozenset(getattr(module, "REWORKED", ())),
        (module.INPUT, *getattr(module, "MORE_INPUTS", ())),
        tuple(getattr(module, "RESUME", ())),
        getattr(module, "SYNC", True),
        getattr(module, "PARALLEL", False),
    )


FILES = sorted(Path(__file__).with_name("apps").glob("*.py"))
APPS = {app.name: app for path in FILES if (app := _load(path.stem)) is not None}


class Ran(NamedTuple):
    """What a run gave: the plain results of each call of the app, what the model received, and the tape."""

    results: list[Any]
    calls: list[Call]
    tape: Any


def run(app: App, compiled: Any, method: str, mode: Any = "values", *, given: int = 0, quiet: bool = False) -> Ran:
    """Drive an app through its input and its resumes by a blocking method.

    Args:
        app: The app.
        compiled: Its compiled graph, traced or not.
        method: ``"invoke"`` or ``"stream"``.
        mode: The mode of a stream.
        given: Which of the inputs.
        quiet: Whether all answers of the model have the same text.
    """
    more = app.arguments()
    results: list[Any] = []
    with recording(quiet=quiet) as calls, tracing() as tape:
        for data in copy.deepcopy((app.inputs[given], *app.resume)):
            if method == "invoke":
                results.append(compiled.invoke(data, **more))
            else:
                results.append(list(compiled.stream(data, stream_mode=mode, **more)))
    return Ran(results, sorted(calls), tape)


async def arun(
    app: App, compiled: Any, method: str, mode: Any = "values", *, given: int = 0, quiet: bool = False
) -> Ran:
    """Drive an app by ``"ainvoke"`` or ``"astream"``; else as `run`."""
    more = app.arguments()
    results: list[Any] = []
    with recording(quiet=quiet) as calls, tracing() as tape:
        for data in copy.deepcopy((app.inputs[given], *app.resume)):
            if method == "ainvoke":
                results.append(await compiled.ainvoke(data, **more))
            else:
                results.append([event async for event in compiled.astream(data, stream_mode=mode, **more)])
    return Ran(results, sorted(calls), tape)


def run_with(app: App, compiled: Any, values: Mapping[str, Any], *, given: int = 0, quiet: bool = False) -> Ran:
    """Run an app once under a candidate with these values."""
    with applying(Candidate(values)):
        return run(app, compiled, "invoke", given=given, quiet=quiet)


async def arun_with(app: App, compiled: Any, values: Mapping[str, Any], *, given: int = 0, quiet: bool = False) -> Ran:
    """Run an app once under a candidate with these values, async."""
    with applying(Candidate(values)):
        return await arun(app, compiled, "ainvoke", given=given, quiet=quiet)


def plain(data: Any) -> Any:
    """Return data with the types written out and all random ids taken away."""
    if isinstance(data, str):
        return _RANDOM.sub("ID", str(data)) if type(data) is str else (type(data).__name__, str(data))
    if isinstance(data, BaseMessage):
        kept = {"content", "name", "tool_calls", "tool_call_id", "usage_metadata"}
        return type(data).__name__, {key: plain(value) for key, value in data.model_dump().items() if key in kept}
    if isinstance(data, Interrupt):
        return "Interrupt", plain(data.value)
    if isinstance(data, BaseModel):
        return type(data).__name__, {key: plain(getattr(data, key)) for key in type(data).model_fields}
    if is_dataclass(data) and not isinstance(data, type):
        return type(data).__name__, {field.name: plain(getattr(data, field.name)) for field in fields(data)}
    if isinstance(data, dict):
        return type(data).__name__, {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data).__name__, [plain(item) for item in data]
    return data


def comparable(app: App, results: list[Any], mode: Any) -> Any:
    """Return the results of a run in plain form; the order of events counts where nodes run one after the other."""
    if app.parallel and mode != "values":
        return [sorted((plain(event) for event in events), key=repr) for events in results]
    return [plain(events) for events in results]


def fingerprint(compiled: Any) -> Any:
    """Return what makes an app behave as it does: its nodes, functions and their surroundings, by identity."""
    seen: dict[int, Any] = {}
    _look(compiled, seen, 0)
    return seen, compiled.get_graph(xray=True).draw_mermaid()


def _look(thing: Any, seen: dict[int, Any], depth: int) -> None:
    if id(thing) in seen or depth > 12:
        return
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        mine = {name: value for name, value in thing.__globals__.items() if not name.startswith("__")}
        inner = [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        inner += [value for name, value in mine.items() if name in thing.__code__.co_names]
        seen[id(thing)] = (id(thing.__code__), [id(one) for one in inner], {key: id(one) for key, one in mine.items()})
    elif isinstance(thing, MethodType):
        inner = [thing.__self__, thing.__func__]
        seen[id(thing)] = "method"
    elif isinstance(thing, partial):
        inner = [thing.func, *thing.args, *thing.keywords.values()]
        seen[id(thing)] = [id(one) for one in inner]
    elif isinstance(thing, list | tuple | dict):
        inner = list(thing.values()) if isinstance(thing, dict) else list(thing)
        seen[id(thing)] = [id(one) for one in inner]
    elif hasattr(thing, "__dict__") and _ours(type(thing)):
        attributes = {key: one for key, one in vars(thing).items() if key not in _CACHES}
        inner = list(attributes.values())
        seen[id(thing)] = (type(thing), {key: id(one) for key, one in attributes.items()})
    else:
        return
    for one in inner:
        _look(one, seen, depth + 1)


_CACHES = (
    "node",
    "flat_writers",
    "input_cache_key",
    "_serialized",
)  # filled by the libraries themselves at the first run


def _ours(kind: type) -> bool:
    return (
        kind.__module__.split(".")[0] in ("langgraph", "langchain_core", "tests")
        and "checkpoint" not in kind.__module__
    )
