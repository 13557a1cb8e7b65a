"""Models behind one protocol: embedded, OpenAI-compatible and scripted."""

from optograph.serving.base import LM, BaseLM, make_request
from optograph.serving.breaker import Breaker, CircuitBreaker
from optograph.serving.budget import Budget, Reservation
from optograph.serving.cache import cache_dir
from optograph.serving.fetch import LocalModel, catalogue, fetch_model, find_model, models
from optograph.serving.journaled import JournaledLM, counting_draws, next_draw
from optograph.serving.limiter import Limiter
from optograph.serving.limits import BudgetLimits, Need, Remaining, RoleLimits, Spend
from optograph.serving.llamacpp import LlamaCppLM
from optograph.serving.loop import on_background_loop, run_on_background, run_sync
from optograph.serving.observing import CallEvent, Observer, observing
from optograph.serving.openai_lm import OpenAILM
from optograph.serving.ordering import asking, branching, ordering_calls, own_lane
from optograph.serving.pieces import Pieces, streaming_to
from optograph.serving.prices import Price, PriceTable
from optograph.serving.retry import Deadline, Retry
from optograph.serving.schemas import Choice, JsonSchema, Regex, Schema, schema_from_json, schema_of
from optograph.serving.scripted import ScriptedLM
from optograph.serving.strings import load_lm
from optograph.serving.types import (
    Capabilities,
    Completion,
    Message,
    ModelIdentity,
    Request,
    TokenLogprob,
    Usage,
    messages_of,
)
from optograph.serving.wrapping import WrappingLM

__all__ = [
    "LM",
    "BaseLM",
    "Breaker",
    "Budget",
    "BudgetLimits",
    "CallEvent",
    "Capabilities",
    "Choice",
    "CircuitBreaker",
    "Completion",
    "Deadline",
    "JournaledLM",
    "JsonSchema",
    "Limiter",
    "LlamaCppLM",
    "LocalModel",
    "Message",
    "ModelIdentity",
    "Need",
    "Observer",
    "OpenAILM",
    "Pieces",
    "Price",
    "PriceTable",
    "Regex",
    "Remaining",
    "Request",
    "Reservation",
    "Retry",
    "RoleLimits",
    "Schema",
    "ScriptedLM",
    "Spend",
    "TokenLogprob",
    "Usage",
    "WrappingLM",
    "asking",
    "branching",
    "cache_dir",
    "catalogue",
    "counting_draws",
    "fetch_model",
    "find_model",
    "load_lm",
    "make_request",
    "messages_of",
    "models",
    "next_draw",
    "observing",
    "on_background_loop",
    "ordering_calls",
    "own_lane",
    "run_on_background",
    "run_sync",
    "schema_from_json",
    "schema_of",
    "streaming_to",
]
