"""Job files: what is read, and what is said where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from optograph.errors import UserError
from optograph.jobs import load_job
from optograph.jobs.stages import make_optimizer, make_sequence
from optograph.jobs.targets import call_with, resolve
from optograph.optimizers import FewShotSearch, InSequence, OptoPrime

GOOD = """
[workflow]
target = "app.py:build"
[task]
train = "train.jsonl"
dev = { path = "dev.jsonl", limit = 5 }
test = "test.jsonl"
[models]
task = { name = "local/smollm2-135m", n_parallel = 1 }
[[optimizer.stages]]
name = "fewshot"
size = 4
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "my.job.toml"
    file.write_text(text)
    return file


def test_a_job_is_read(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, GOOD), ["optimizer.seed=3", "budget.calls=10", 'parameters.judge.instruction="Hi."'])
    assert (job.name, job.optimizer.seed, job.budget.calls) == ("my.job", 3, 10)
    assert job.optimizer.stages[0].options == {"size": 4}
    assert job.models.task_model().options == {"n_parallel": 1}
    assert job.models.optimizer_model() == job.models.task_model()
    assert job.parameters == {"judge.instruction": "Hi."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[bugdet]\ncalls = 1", "unknown key 'bugdet'; did you mean 'budget'?"),
        ("[budget]\ncall = 1", "unknown key 'budget.call'; did you mean 'calls'?"),
        ("[budget]\ncalls = 0", "budget.calls = 0"),
        ("[budget]\nminutes = 'ten'", "budget.minutes = 'ten'"),
        ("[evaluation]\nconcurrency = 0", "evaluation.concurrency = 0"),
        ("x = = 1", "no valid TOML"),
        ("[optimizer]\nseed = -1", "optimizer.seed = -1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_job(write(tmp_path, f"{GOOD}\n{change}\n"))
    assert message in str(caught.value)


def test_a_wrong_key_inside_a_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_job(write(tmp_path, GOOD), ['task.train={path="x", strt=1}'])
    assert str(caught.value).endswith("unknown key 'task.train.strt'; did you mean 'start'?")
    with pytest.raises(UserError, match=r"task.train = 3: write a text or a table"):
        load_job(write(tmp_path, GOOD), ["task.train=3"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'workflow' is missing"):
        load_job(write(tmp_path, "[task]\ntrain='a'\ndev='b'\ntest='c'\n"))
    with pytest.raises(UserError, match="does not exist"):
        load_job(tmp_path / "none.toml")
    with pytest.raises(UserError, match=r"section\.key=value"):
        load_job(write(tmp_path, GOOD), ["seed"])
    with pytest.raises(UserError, match="run name"):
        load_job(write(tmp_path, 'name = "../x"\n' + GOOD))


def test_targets(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def build(lm, train=None, other=3):\n    return lm, other\n")
    build = resolve("app.py:build", tmp_path)
    assert call_with(build, {"lm": 1, "train": 2}) == (1, 3)
    assert resolve("json:dumps", tmp_path)({}) == "{}"
    for target, message in [
        ("app.py", "write FILE.py:NAME"),
        ("app.py:nothing", r"it defines \['build'\]"),
        ("none.py:build", "does not exist"),
        ("no_such_package:x", "cannot import"),
    ]:
        with pytest.raises(UserError, match=message):
            resolve(target, tmp_path)
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "raises.py").write_text("import json\n\ndef build():\n    return json.loads('{')\n")
    (tmp_path / "imports.py").write_text("import no_such_module_here\n")
    for target, message in [
        ("broken.py:build", "SyntaxError"),
        ("imports.py:build", r"failed at imports\.py:1: Module"),
    ]:
        with pytest.raises(UserError, match=message):
            resolve(target, tmp_path)
    with pytest.raises(UserError, match=r"the factory 'build' failed at .*: JSONDecodeError"):
        call_with(resolve("raises.py:build", tmp_path), {})
    with pytest.raises(UserError, match="asks for"):
        call_with(lambda nothing: nothing, {"lm": 1})


def test_stages() -> None:
    assert isinstance(make_optimizer("optoprime", {"steps": 2}), OptoPrime)
    both = make_sequence([("fewshot", {}), ("optoprime", {"parameters": ["judge.*"]})])
    assert isinstance(both, InSequence)
    assert isinstance(both.stages[0], FewShotSearch)
    with pytest.raises(UserError, match="unknown optimizer 'gepa'"):
        make_optimizer("gepa", {})
    with pytest.raises(UserError, match="has no option 'step'"):
        make_optimizer("optoprime", {"step": 2})
    for options in ({"temperature": 9}, {"mask": ["codee"]}, {"budget_tokens": 5}, {"max_tokens": 0}):
        with pytest.raises(UserError):
            make_optimizer("optoprime", options)
    with pytest.raises(UserError, match="steps"):
        make_optimizer("optoprime", {"steps": "many"})
