"""Building what a job optimizes: a workflow of ours as it is, a LangGraph app traced."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.graphs import BoolSpec, ChoiceSpec, FloatSpec, IntSpec, Spec, TextSpec
from optograph.jobs.job import ExtraSection, LangGraphSection, WorkflowSection
from optograph.jobs.targets import call_with, resolve, takes
from optograph.serving import LM

_BOUNDED = ("int", "float")


def find_target(section: WorkflowSection, base: Path) -> Any:
    """Return what ``workflow.target`` names: a function that builds the workflow, or a LangGraph app.

    Raises:
        UserError: There is no such thing, or it is something else.
    """
    found = resolve(section.target, base)
    if not (callable(found) or is_langgraph(found)):
        raise UserError(
            f"{section.target!r} is {type(found).__name__}: name a function that builds the workflow, or a compiled "
            "LangGraph app"
        )
    return found


def is_langgraph(thing: Any) -> bool:
    """Whether an object is one of LangGraph's; nothing is imported to find out."""
    return any(cls.__module__.partition(".")[0] == "langgraph" for cls in type(thing).__mro__)


def wants_model(target: Any) -> bool:
    """Whether a target is to be given the task's model, as ``lm`` or as LangChain's ``model``."""
    return callable(target) and (takes(target, "lm") or _wants_chat_model(target))


def build_workflow(target: Any, section: WorkflowSection, lm: LM | None, train: Sequence[Any]) -> Any:
    """Build the workflow; a LangGraph app becomes a traced one.

    Args:
        target: What `find_target` gave. A function is called with what it names of ``lm``, ``train``, ``config``
            (LangGraph's, empty) and, where it has no default, ``model`` (LangChain's, over ``lm``); it may be async.
        section: The job's table about it.
        lm: The task's model, or None where the target takes none.
        train: Train examples.

    Raises:
        UserError: The function fails or needs something else, the app is not compiled, or an option fits nothing.
    """
    made = target if is_langgraph(target) else _made(target, section, lm, train)
    options = section.langgraph
    if is_langgraph(made):
        from optograph.agents.langgraph import trace_langgraph

        options = options or LangGraphSection()
        extra = {name: spec_of(name, one) for name, one in options.extra.items()}
        return trace_langgraph(made, rename=options.rename, freeze=options.freeze, extra=extra, output=options.output)
    if options is not None and (options.model_fields_set - {"model"} or not _wants_chat_model(target)):
        raise UserError(
            f"{section.target!r} gives a {type(made).__name__}, so [workflow.langgraph] does not apply: name a "
            "compiled LangGraph app or a function that returns one, or leave the table out"
        )
    return made


def spec_of(name: str, section: ExtraSection) -> Spec:
    """Return the spec that a setting's table describes.

    Raises:
        UserError: Its keys do not fit its kind.
    """
    kind = section.kind or ("choice" if section.choices is not None else None)
    bounded = section.low is not None or section.high is not None
    if kind is None or (kind == "choice") != (section.choices is not None) or (bounded and kind not in _BOUNDED):
        raise UserError(
            f"setting {name!r}: write {{ kind = 'float' or 'int', low = …, high = … }}, {{ kind = 'bool' }}, "
            "{ kind = 'text' } or { choices = […] }"
        )
    if kind == "int":
        for bound in (section.low, section.high):
            if bound is not None and bound != int(bound):
                raise UserError(f"setting {name!r}: bounds of an int are whole numbers, got {bound!r}")
        return IntSpec(*(None if one is None else int(one) for one in (section.low, section.high)))
    if kind == "float":
        return FloatSpec(section.low, section.high)
    if kind == "choice":
        return ChoiceSpec(section.choices or [])
    return BoolSpec() if kind == "bool" else TextSpec()


def _made(target: Any, section: WorkflowSection, lm: LM | None, train: Sequence[Any]) -> Any:
    available: dict[str, Any] = {"lm": lm, "train": train}
    if takes(target, "config"):
        available["config"] = {"configurable": {}}
    if _wants_chat_model(target) and lm is not None:
        from optograph.agents import ChatModel

        available["model"] = ChatModel(lm, **_chat_options(section))
    made = call_with(target, available)
    return _awaited(made, section.target) if inspect.isawaitable(made) else made


def _wants_chat_model(target: Any) -> bool:
    if not callable(target):
        return False
    one = inspect.signature(target).parameters.get("model")
    return one is not None and one.default is one.empty


def _chat_options(section: WorkflowSection) -> Mapping[str, Any]:
    from optograph.agents import ChatModel

    options = {} if section.langgraph is None else section.langgraph.model
    known = sorted(set(ChatModel.model_fields) - {"lm"})
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise UserError(f"workflow.langgraph.model has unknown keys {wrong!r}; a chat model takes some of {known!r}")
    return options


def _awaited(made: Any, target: str) -> Any:
    async def wait() -> Any:
        return await made

    try:
        return asyncio.run(wait())
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the factory of {target!r} failed: {type(error).__name__}: {error}") from error
