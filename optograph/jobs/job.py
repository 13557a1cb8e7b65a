"""The job file: one typed TOML document that says what to optimize, on what, with which models and budget."""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optograph.errors import UserError
from optograph.jobs.training.section import PolicySection
from optograph.serving import BudgetLimits, Price, PriceTable, RoleLimits
from optograph.serving.limits import ROLES

_FORMS = ("str", "SplitSource", "Named")
"""What pydantic puts into an error's place to name the form of a key that is a text or a table."""

_NAMED = ("workflow.langgraph.rename", "workflow.langgraph.extra")
"""Tables whose keys are names with dots in them."""

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Section(BaseModel):
    """A table of the job file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ExtraSection(Section):
    """What a setting of a LangGraph app may be."""

    kind: Literal["float", "int", "bool", "text", "choice"] | None = None
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    choices: list[Any] | None = None


class LangGraphSection(Section):
    """How a LangGraph app is traced; names are those that ``optograph inspect`` shows."""

    output: str | None = None
    """Key of the final state that is scored; the whole state where it is left out."""
    rename: dict[str, str] = {}
    """Other names of parameters, by their usual ones."""
    freeze: list[str] = []
    """Parameters that stay as they are."""
    extra: dict[str, ExtraSection] = {}
    """Further settings to learn, by ``NODE.VARIABLE`` or ``NODE.VARIABLE.ATTRIBUTE``."""
    model: dict[str, Any] = {}
    """Settings of the chat model that a factory is given as ``model``, such as ``max_tokens``."""


class WorkflowSection(Section):
    """What is optimized."""

    target: str
    """``FILE.py:NAME`` or ``module:NAME``: a function that builds the workflow, called with ``lm``, ``train`` and (a
    LangChain chat model) ``model``, as far as it names them; or a compiled LangGraph app."""
    allow_unsandboxed: bool = False
    """Whether code that a model wrote may run in this process."""
    langgraph: LangGraphSection | None = None


class SplitSource(Section):
    """Where one split comes from."""

    path: str | None = None
    """File, or ``hf:NAME[:CONFIG]:SPLIT``; None for the task's ``source``."""
    start: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)


class TaskSection(Section):
    """Data and scorer."""

    name: str = "task"
    source: str | None = None
    """File or hub data set that splits without a path of their own are cut from."""
    train: str | SplitSource
    dev: str | SplitSource
    test: str | SplitSource
    """Sealed: only the final report reads it."""
    inputs: list[str] = Field(default=["text"], min_length=1)
    expected: str | None = "label"
    id: str = "id"
    rows_key: str | None = None
    disjoint: bool = True
    """Whether an input in two splits is an error."""
    scorer: str = "exact"
    """``exact``, ``choice``, ``numeric``, ``regex``, or ``FILE.py:FUNCTION`` taking (expected, output)."""
    scorer_options: dict[str, Any] = {}


class Named(BaseModel):
    """A name with options of its own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """All keys but the known ones."""
        return dict(self.model_extra or {})


class ModelsSection(Section):
    """Model strings, or tables with the string as ``name`` beside the model's options (such as ``n_parallel``)."""

    task: str | Named = "local/smollm2-135m"
    optimizer: str | Named | None = None
    """Model that proposes; the task's model where it is left out."""

    def task_model(self) -> Named:
        """The model of the workflow."""
        return self.task if isinstance(self.task, Named) else Named(name=self.task)

    def optimizer_model(self) -> Named:
        """The model that proposes."""
        if self.optimizer is None:
            return self.task_model()
        return self.optimizer if isinstance(self.optimizer, Named) else Named(name=self.optimizer)


class OptimizerSection(Named):
    """The optimizer, or a list of stages that run in sequence."""

    name: str = "optoprime"
    seed: int = Field(default=0, ge=0, lt=2**31)
    stages: list[Named] = []


class EvaluationSection(Section):
    """How examples are run."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    deadline_s: float = Field(default=900.0, gt=0)


class AcceptanceSection(Section):
    """How sure an acceptance must be."""

    confidence: float = Field(default=0.8, ge=0.5, lt=1)


class ReviewSection(Section):
    """Whether people judge candidates."""

    when: Literal["never", "accepted"] = "never"
    """``accepted``: each candidate that passed the acceptance test waits for ``optograph review``."""


class RoleBudgetSection(Section):
    """What one role may use within the run's budget."""

    calls: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class BudgetSection(Section):
    """What the run may use, the final test included."""

    calls: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars; needs a price for each model that is not local."""
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Active minutes, summed over restarts."""
    task: RoleBudgetSection = RoleBudgetSection()
    optimizer: RoleBudgetSection = RoleBudgetSection()
    judge: RoleBudgetSection = RoleBudgetSection()


class TelemetrySection(Section):
    """What the run tells OpenTelemetry."""

    otel: bool | None = None
    """Whether it makes spans; where it is left out, whether the environment has ``OPTOGRAPH_OTEL=1``."""
    content: bool = False
    """Whether spans hold messages, feedback and error texts too."""


class PriceSection(Section):
    """What a model costs, in US dollars per million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


class Job(Section):
    """A whole job."""

    name: str | None = None
    """Run name: letters, digits, ``.``, ``_`` and ``-``; the file's name where it is left out."""
    workflow: WorkflowSection
    task: TaskSection
    models: ModelsSection = ModelsSection()
    optimizer: OptimizerSection = OptimizerSection()
    evaluation: EvaluationSection = EvaluationSection()
    acceptance: AcceptanceSection = AcceptanceSection()
    review: ReviewSection = ReviewSection()
    budget: BudgetSection = BudgetSection()
    telemetry: TelemetrySection = TelemetrySection()
    prices: dict[str, PriceSection] = {}
    """By model string, or pattern with ``*``."""
    policy: PolicySection | None = None
    """How ``optograph train`` trains the weights behind the workflow."""
    parameters: dict[str, Any] = {}
    """Starting values of the workflow's parameters, by name."""

    def limits(self) -> BudgetLimits:
        """Return the budget as the ledger takes it."""
        budget = self.budget
        roles = {role: RoleLimits(**getattr(budget, role).model_dump()) for role in ROLES}
        return BudgetLimits(budget.calls, budget.tokens, budget.usd, budget.minutes, roles)

    def price_table(self) -> PriceTable:
        """Return the prices that the job gives."""
        return PriceTable({model: Price(one.input, one.output) for model, one in self.prices.items()})


def load_job(path: str | Path, overrides: list[str] | None = None) -> Job:
    """Read a job file.

    Args:
        path: The TOML file.
        overrides: ``section.key=value`` strings; the value is read as TOML, or as text where it is none.

    Raises:
        UserError: The file is missing or no TOML, or a key or value is wrong.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"job file {str(file)!r} does not exist: check the path, or copy one from examples/")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{str(file)!r} is no valid TOML file: {error}") from error
    for override in overrides or []:
        _apply(data, override)
    data.setdefault("name", file.stem)
    return _validated(data, repr(str(file)))


def job_from(data: Mapping[str, Any], overrides: Sequence[str], where: str) -> Job:
    """Make a job from JSON data with overrides, as ``load_job`` does from a file.

    Args:
        data: A job as ``Job.model_dump`` gives it.
        overrides: ``section.key=value`` strings.
        where: Where the data comes from, for messages.

    Raises:
        UserError: A key or value is wrong.
    """
    changed = copy.deepcopy(dict(data))
    for override in overrides:
        _apply(changed, override)
    return _validated(changed, where)


def _validated(data: dict[str, Any], where: str) -> Job:
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from error
    if job.name is None or not RUN_NAME.fullmatch(job.name):
        raise UserError(f"run name {job.name!r} must be letters, digits, '.', '_' or '-', at most 64: set `name`")
    return job


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"cannot read {override!r}: write section.key=value, such as optimizer.seed=1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = _parts(key.strip())
    table = data
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"cannot set {key!r}: {section!r} is no table in the job file")
        table = inner
    table[last] = value


def _parts(key: str) -> list[str]:
    """Split a dotted key; names of parameters and of models hold dots themselves."""
    for table in _NAMED:
        if key.startswith(f"{table}."):
            return [*table.split("."), key.removeprefix(f"{table}.").strip("\"'")]
    first, _, rest = key.partition(".")
    if first == "parameters":
        return [first, rest]
    model, separator, last = rest.rpartition(".")
    if first == "prices" and separator:
        return [first, model.strip("\"'"), last]
    return key.split(".")


def _explain(error: ValidationError) -> str:
    """Say what is wrong with each key; what concerns only the other form of a key (text or table) is left out."""
    lines = []
    for one in error.errors():
        location = tuple(part for part in one["loc"] if part not in _FORMS)
        where = ".".join(str(part) for part in location)
        if one["loc"][-1:] == ("str",) and isinstance(one["input"], dict):
            continue
        if one["loc"][-1:] and one["loc"][-1] in _FORMS and not isinstance(one["input"], dict):
            lines.append(f"{where} = {one['input']!r}: write a text or a table")
        elif one["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"unknown key {where!r}; {hint}")
        elif one["type"] == "missing":
            lines.append(f"{where!r} is missing: add it")
        else:
            lines.append(f"{where} = {one['input']!r}: {one['msg']}")
    return "; ".join(dict.fromkeys(lines))


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Job
    for part in location[:1] if location[:1] == ("prices",) else location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # a name in a table of tables
            continue
        forms = get_args(field.annotation)
        model = next((form for form in forms if hasattr(form, "model_fields")), field.annotation)
    return sorted(getattr(model, "model_fields", {}))
