"""OREO: its fixed points on tabular models, what it ignores, and runs cut into rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from optograph.errors import UserError
from optograph.optimizers.policy import (
    OREOLosses,
    OREOOptions,
    beta_effective,
    future_logratios,
    oreo_losses,
    token_kl,
    token_logprobs,
)
from tests.optimizers.policy.tabular import Model, Tree, minimize, number, total_variation

EXACT = OREOOptions(beta=0.5, kl_weight=0.0)
PATH_CONSISTENCY = OREOOptions(beta=0.5, kl_weight=0.0, stop_gradient=False)


@pytest.mark.parametrize("observations", [0, 2], ids=["prefix tree", "random observations"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fixed_point_is_the_optimal_policy_and_its_value(observations: int, seed: int) -> None:
    tree = Tree(observations, seed)
    model = Model(tree)
    values, policy = tree.solution(EXACT.beta)
    assert np.abs(values - model.values.detach().numpy()).max() > 0.1
    model.train(EXACT, 450)
    assert np.abs(values - model.values.detach().numpy()).max() < 1e-8
    assert total_variation(policy, model.policy()) < 1e-8


@pytest.mark.parametrize("seed", [0, 1])
def test_without_stop_gradient_random_observations_lead_elsewhere(seed: int) -> None:
    tree = Tree(2, seed)
    model = Model(tree)
    values, policy = tree.solution(0.5)
    minimize(lambda: model.losses(PATH_CONSISTENCY).total, [model.logits, model.values], 1000)
    gradients = torch.autograd.grad(model.losses(PATH_CONSISTENCY).total, [model.logits, model.values])
    assert max(number(one.abs().max()) for one in gradients) < 1e-5  # this is where it ends
    assert np.abs(values - model.values.detach().numpy()).max() > 0.1
    assert total_variation(policy, model.policy()) > 0.1


def test_without_stop_gradient_a_tree_without_chance_is_solved_too() -> None:
    tree = Tree(0, 2)
    model = Model(tree)
    values, policy = tree.solution(0.5)
    minimize(lambda: model.losses(PATH_CONSISTENCY).total, [model.logits, model.values], 1000)
    assert np.abs(values - model.values.detach().numpy()).max() < 1e-6
    assert total_variation(policy, model.policy()) < 1e-6


@pytest.mark.parametrize(("beta", "kl_weight"), [(0.5, 0.2), (0.3, 0.0), (0.2, 0.1)])
def test_the_regularizer_raises_the_temperature_as_the_formula_says(beta: float, kl_weight: float) -> None:
    options = OREOOptions(beta=beta, kl_weight=kl_weight)
    torch.manual_seed(0)
    reference = torch.randn(5, dtype=torch.float64)
    rewards = torch.rand(5, dtype=torch.float64)
    ids = torch.stack([torch.zeros(5, dtype=torch.long), torch.arange(5)], 1)
    mask = torch.tensor([[False, True]]).expand(5, 2)
    logits = reference.clone().requires_grad_()
    value = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def spread(row: Tensor) -> Tensor:
        return row.expand(5, 2, 5)

    for _ in range(1500):
        on_policy = logits.detach().softmax(-1)
        losses = oreo_losses(
            token_logprobs(spread(logits), ids) - token_logprobs(spread(reference), ids),
            value.expand(5, 2),
            mask,
            rewards,
            options,
            kl=token_kl(spread(logits), spread(reference)),
            weights=on_policy,
            runs=1,
        )
        steps = torch.autograd.grad(losses.total, [logits, value])
        with torch.no_grad():
            # Divided by the chance of each arm, all arms learn equally fast; where gradients vanish stays the same.
            logits -= 0.4 / (2 * beta**2 + kl_weight) * steps[0] / on_policy
            value -= 0.4 * steps[1]
    assert losses.beta_effective == options.beta_effective == beta_effective(beta, kl_weight)
    wanted = (reference + rewards / beta_effective(beta, kl_weight)).softmax(-1)
    assert (logits.softmax(-1) - wanted).abs().max() < 1e-9
    learned = logits - reference
    assert number((rewards[0] - rewards[1]) / (learned[0] - learned[1])) == pytest.approx(
        beta + kl_weight / (2 * beta), abs=1e-6
    )


def test_the_coefficients_of_the_paper_have_a_temperature_of_a_fifth() -> None:
    assert OREOOptions().beta_effective == pytest.approx(0.03 + 0.01 / 0.06) == pytest.approx(0.19667, abs=1e-5)


# Masks and levels -------------------------------------------------------------------------------------------------


def some_run(rows: int = 3, length: int = 14, seed: int = 0) -> dict[str, Tensor]:
    """Return random inputs of the losses with gaps in the mask, and steps."""
    made = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, length, generator=made) < 0.6
    mask[:, 0] = False
    mask[:, 3] = True
    first = mask & (mask.cumsum(-1) == 1)
    draw = {"generator": made, "dtype": torch.float64}
    return {
        "logratios": torch.randn(rows, length, **draw).requires_grad_(),  # type: ignore[call-overload]
        "values": torch.randn(rows, length, **draw).requires_grad_(),  # type: ignore[call-overload]
        "kl": torch.rand(rows, length, **draw).requires_grad_(),  # type: ignore[call-overload]
        "mask": mask,
        "rewards": torch.rand(rows, **draw),  # type: ignore[call-overload]
        "steps": (mask & (torch.rand(rows, length, generator=made) < 0.4)) | first,
    }


def losses_of(run: dict[str, Tensor], level: str, **more: object) -> OREOLosses:
    options = OREOOptions(beta=0.3, kl_weight=0.1, level=level)  # type: ignore[arg-type]
    steps = run["steps"] if level == "step" else None
    return oreo_losses(
        run["logratios"],
        run["values"],
        run["mask"],
        run["rewards"],
        options,
        kl=run["kl"],
        steps=steps,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("level", ["token", "step", "response"])
def test_tokens_of_observations_contribute_exactly_nothing(level: str) -> None:
    run = some_run()
    clean = losses_of(run, level)
    names = ("logratios", "values", "kl")
    clean_gradients = torch.autograd.grad(clean.total, [run[name] for name in names])
    for name, gradient in zip(names, clean_gradients, strict=True):
        assert bool((gradient[~run["mask"]] == 0).all()), name
        assert bool((gradient[run["mask"]] != 0).any()), name
    dirty = dict(run)
    for name, rubbish in zip(names, (float("nan"), float("inf"), -1e30), strict=True):
        dirty[name] = torch.where(run["mask"], run[name].detach(), torch.tensor(rubbish).double()).requires_grad_()
    losses = losses_of(dirty, level)
    assert bool((losses.total == clean.total) & (losses.value == clean.value) & (losses.policy == clean.policy))
    gradients = torch.autograd.grad(losses.total, [dirty[name] for name in names])
    assert all(bool((one == other).all()) for one, other in zip(gradients, clean_gradients, strict=True))


def test_the_token_level_is_what_the_paper_writes() -> None:
    logratios = torch.tensor([[9.0, 0.1, 0.2, 9.0, 0.4]], dtype=torch.float64)
    values = torch.tensor([[9.0, 0.5, 0.6, 9.0, 0.7]], dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1, 0, 1]])
    losses = oreo_losses(logratios, values, mask, torch.tensor([1.0]), OREOOptions(beta=2.0, kl_weight=0.0))
    residuals = [0.5 - 1 + 2 * 0.7, 0.6 - 1 + 2 * 0.6, 0.7 - 1 + 2 * 0.4]
    wanted = sum(one**2 for one in residuals) / 3
    assert number(losses.policy) == number(losses.value) == pytest.approx(wanted)
    assert losses.logratios.tolist() == pytest.approx([0.7])


def test_gradients_go_where_the_paper_sends_them() -> None:
    run = some_run()
    losses = losses_of(run, "token")
    for loss, other in ((losses.value, "logratios"), (losses.policy, "values")):
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, run[other], retain_graph=True, allow_unused=True)
        assert found == (None,)
    (gradient,) = torch.autograd.grad(losses.policy, run["logratios"])
    mask, beta = run["mask"], 0.3
    suffix = torch.where(mask, run["logratios"], 0).flip(-1).cumsum(-1).flip(-1)
    residual = run["values"] - run["rewards"][:, None] + beta * suffix
    wanted = torch.where(mask, 2 * beta * residual / mask.sum(-1, keepdim=True), 0) / len(mask)
    assert torch.allclose(gradient, wanted, atol=1e-14)  # of each token only its own residual


def test_a_step_is_the_sum_of_its_tokens() -> None:
    logratios = torch.tensor([[0.0, 0.1, 0.2, 7.0, 0.4, 0.8]], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([[9.0, 0.5, 9.0, 9.0, 0.7, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1, 0, 1, 1]])
    steps = torch.tensor([[0, 1, 0, 0, 1, 0]])
    options = OREOOptions(beta=2.0, kl_weight=0.0, level="step")
    losses = oreo_losses(logratios, values, mask, torch.tensor([1.0]), options, steps=steps)
    first, second = 0.5 - 1 + 2 * 1.5, 0.7 - 1 + 2 * 1.2
    assert number(losses.policy) == number(losses.value) == pytest.approx((first**2 + second**2) / 2)
    (gradient,) = torch.autograd.grad(losses.policy, logratios)
    assert gradient.tolist()[0] == pytest.approx([0, 2 * first, 2 * first, 0, 2 * second, 2 * second])


def test_the_response_level_has_one_residual_and_all_gradients() -> None:
    run = some_run()
    losses = losses_of(run, "response")
    start = torch.stack([row[mask][0] for row, mask in zip(run["values"], run["mask"], strict=True)])
    sums = torch.where(run["mask"], run["logratios"], 0).sum(-1)
    residual = start - run["rewards"] + 0.3 * sums
    assert number(losses.policy) == pytest.approx(number((residual**2).mean()))
    (gradient,) = torch.autograd.grad(losses.policy, run["logratios"])
    assert torch.allclose(gradient, torch.where(run["mask"], (0.6 * residual / 3)[:, None], 0))


def test_rewards_on_the_way_count_from_where_they_come() -> None:
    run = some_run()
    last = run["mask"] & (run["mask"].flip(-1).cumsum(-1).flip(-1) == 1)
    spread = torch.where(last, run["rewards"][:, None], float("nan")).nan_to_num(0.0)
    for level in ("token", "step"):
        assert number(losses_of({**run, "rewards": spread}, level).total) == pytest.approx(
            number(losses_of(run, level).total), abs=1e-14
        )
    early = torch.where(run["mask"] & (run["mask"].cumsum(-1) == 1), run["rewards"][:, None], 0)
    assert abs(number(losses_of({**run, "rewards": early}, "token").total - losses_of(run, "token").total)) > 1e-3


# Runs cut into rows -----------------------------------------------------------------------------------------------


def cut(run: dict[str, Tensor], owners: Tensor, starts: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """Return (run, place, owner, mask of its tokens) of each call: one begins wherever `starts` says."""
    calls = []
    part = starts.long().cumsum(-1)
    for row in range(len(part)):
        for place in range(1, int(part[row].max()) + 1):
            mask = (part[row] == place) & run["mask"][row]
            calls.append((row, place, int(owners[row, mask][0]), mask))
    return calls


def as_rows(run: dict[str, Tensor], calls: list[tuple[int, int, int, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """Put each call into a row of its own, and take the log-ratios that its run adds later."""
    where = torch.tensor([row for row, _, _, _ in calls])
    rows = {name: tensor[where] for name, tensor in run.items()}
    rows["mask"] = torch.stack([mask for _, _, _, mask in calls])
    sums = torch.where(rows["mask"], rows["logratios"], 0).sum(-1)
    future = future_logratios(
        sums, where.tolist(), [place for _, place, _, _ in calls], [owner for _, _, owner, _ in calls]
    )
    return rows, future


@pytest.mark.parametrize("level", ["token", "step"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_rows_of_a_run_equal_the_run(level: str, seed: int) -> None:
    run = some_run(rows=4, length=24, seed=seed)
    whole = losses_of(run, level)
    cuts = torch.rand(run["mask"].shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    starts = (run["steps"] & cuts) | (run["mask"] & (run["mask"].cumsum(-1) == 1))
    calls = cut(run, torch.zeros_like(run["mask"], dtype=torch.long), starts)
    assert len(calls) > 8
    rows, future = as_rows(run, calls)
    where = [row for row, _, _, _ in calls]
    actions = (run["mask"] if level == "token" else run["steps"]).sum(-1)[where]
    shuffled = torch.randperm(len(calls), generator=torch.Generator().manual_seed(seed))
    split = losses_of(
        {name: tensor[shuffled] for name, tensor in rows.items()},
        level,
        future=future[shuffled],
        run_actions=actions[shuffled],
        run_tokens=run["mask"].sum(-1)[where][shuffled],
        runs=4,
    )
    for name in ("policy", "value", "kl", "total"):
        assert abs(number(getattr(split, name) - getattr(whole, name))) < 1e-10, name
    inputs = [run[name] for name in ("logratios", "values", "kl")]
    of_whole, of_split = torch.autograd.grad(whole.total, inputs), torch.autograd.grad(split.total, inputs)
    for one, other in zip(of_whole, of_split, strict=True):
        assert number((one - other).abs().max()) < 1e-10
    without = losses_of(rows, level, run_actions=actions, run_tokens=run["mask"].sum(-1)[where], runs=4)
    assert abs(number(without.total - whole.total)) > 1e-3  # the test can tell


def test_adapters_of_nodes_sum_their_own_log_ratios_only() -> None:
    run = some_run(rows=3, length=24, seed=5)
    starts = run["steps"]
    owners = starts.long().cumsum(-1) % 2
    calls = cut(run, owners, starts)
    for owner in (0, 1):
        own = run["mask"] & (owners == owner)
        assert bool(own.any(-1).all())
        whole = losses_of({**run, "mask": own}, "token")
        mine = [place for place, call in enumerate(calls) if call[2] == owner]
        rows, future = as_rows(run, calls)
        where = [calls[place][0] for place in mine]
        tokens = own.sum(-1)[where]
        part = {name: tensor[mine] for name, tensor in rows.items()}
        split = losses_of(part, "token", future=future[mine], run_actions=tokens, run_tokens=tokens, runs=3)
        assert abs(number(split.total - whole.total)) < 1e-10
        (gradient,) = torch.autograd.grad(split.total, run["logratios"])
        assert bool((gradient[~own] == 0).all())
        assert bool((gradient[own] != 0).all())


def test_future_logratios_are_constants_in_the_order_of_calls() -> None:
    sums = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], requires_grad=True)
    found = future_logratios(sums, ["a", "a", "b", "a", "b"], [2, 0, 1, 1, 0])
    assert found.tolist() == [0.0, 9.0, 0.0, 1.0, 4.0]
    assert not found.requires_grad
    own = future_logratios(sums, ["a", "a", "b", "a", "b"], [2, 0, 1, 1, 0], ["x", "y", "x", "x", "x"])
    assert own.tolist() == [0.0, 0.0, 0.0, 1.0, 4.0]


# Refusals ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    run = some_run()
    ok = (run["logratios"], run["values"], run["mask"], run["rewards"])
    with pytest.raises(UserError, match=r"beta must be a finite number above 0, got 0"):
        OREOOptions(beta=0)
    with pytest.raises(UserError, match="kl_weight"):
        beta_effective(0.1, -1.0)
    with pytest.raises(UserError, match="level must be one of"):
        OREOOptions(level="word")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"kl_weight is 0\.01: pass kl"):
        oreo_losses(*ok, OREOOptions())
    with pytest.raises(UserError, match=r"values must have shape \(3, 14\)"):
        oreo_losses(ok[0], ok[1][:, 1:], ok[2], ok[3], EXACT)
    with pytest.raises(UserError, match="level 'step' and only there"):
        oreo_losses(*ok, EXACT, steps=run["steps"])
    with pytest.raises(UserError, match="must begin a step"):
        oreo_losses(*ok, OREOOptions(kl_weight=0, level="step"), steps=torch.zeros_like(run["mask"]))
    with pytest.raises(UserError, match="run_actions counts the whole run"):
        oreo_losses(*ok, EXACT, run_actions=torch.ones(3))
    with pytest.raises(UserError, match="a row is a whole run"):
        oreo_losses(*ok, OREOOptions(kl_weight=0, level="response"), future=torch.ones(3))
    with pytest.raises(UserError, match="have the same place"):
        future_logratios(torch.ones(2), ["a", "a"], [0, 0])
