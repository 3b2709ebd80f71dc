"""Optimiser and schedule: learning rates of whole runs against formulas worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.optimization import make_optimizer, make_schedule, rungs
from tests.settings import training_config

LR = 0.8
property_settings = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rates(steps_per_epoch: int, **given_settings: Any) -> list[float]:
    """Return the learning rate of every step of a run, and that after the last one."""
    config = training_config({"lr": LR} | given_settings)
    optimizer = make_optimizer(config, nn.Linear(1, 1))
    schedule = make_schedule(config, optimizer, steps_per_epoch)
    found = []
    for _ in range(config.epochs * steps_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def one_cycle(step: int, total: int, rise: float) -> float:
    """Return the formula of one-cycle: cosine from max/25 up to max, then down to max/250,000."""
    top = rise * (total + 1) - 1
    start, end, at = LR / 25, LR, step / top if top > 0 else 0.0
    if step > top:
        start, end, at = LR, LR / 25 / 1e4, (step - top) / (total - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * at))


def test_constant_rate_never_changes() -> None:
    assert rates(3, schedule="constant", epochs=4) == [LR] * 13


def test_constant_rate_rises_linearly_over_the_warm_up() -> None:
    found = rates(2, schedule="constant", epochs=3, warmup_epochs=1.5)
    assert found == pytest.approx([LR / 4, LR / 2, 3 * LR / 4, LR, LR, LR, LR])


def test_cosine_of_four_steps() -> None:
    root = math.sqrt(0.5)
    expected = [1, (1 + root) / 2, 0.5, (1 - root) / 2, 0]
    assert rates(2, epochs=2) == pytest.approx([LR * factor for factor in expected])


def test_cosine_with_warm_up() -> None:
    found = rates(1, epochs=5, warmup_epochs=1)
    root = math.sqrt(0.5)
    expected = [0.5, 1, (1 + root) / 2, 0.5, (1 - root) / 2, 0]
    assert found == pytest.approx([LR * factor for factor in expected])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_run_of_one_step_has_the_full_rate(schedule: str) -> None:
    assert rates(1, epochs=1, schedule=schedule)[0] == LR


def test_run_of_one_step_of_one_cycle_falls_from_the_peak() -> None:
    # The peak would be at step 0.3 · 2 - 1 = -0.4, the end at step 1.
    lowest = LR / 25 / 1e4
    expected = lowest + (LR - lowest) / 2 * (1 + math.cos(math.pi * 0.4 / 1.4))
    assert rates(1, epochs=1, schedule="one-cycle")[0] == pytest.approx(expected)


def test_one_cycle_of_nine_steps_peaks_at_the_third() -> None:
    found = rates(9, epochs=1, schedule="one-cycle")  # 0.3 · 10 - 1 = 2
    assert found[0] == pytest.approx(LR / 25)
    assert found[1] == pytest.approx((LR + LR / 25) / 2)
    assert found[2] == pytest.approx(LR)
    assert found[-1] == pytest.approx(LR / 25 / 1e4)
    assert max(found) == found[2]


@property_settings
@given(
    steps_per_epoch=st.integers(1, 40),
    epochs=st.integers(1, 12),
    schedule=st.sampled_from(["constant", "cosine", "one-cycle"]),
    warmup_share=st.floats(0, 0.99),
)
def test_whole_run_follows_the_formula(
    steps_per_epoch: int, epochs: int, schedule: str, warmup_share: float
) -> None:
    warmup_epochs = warmup_share * epochs
    total = steps_per_epoch * epochs
    warmup = round(warmup_epochs * steps_per_epoch)

    def constant(step: int) -> float:
        return LR * min(1.0, (step + 1) / (warmup + 1))

    def cosine(step: int) -> float:
        if step < warmup:
            return constant(step)
        return LR * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    formulas: dict[str, Callable[[int], float]] = {
        "constant": constant,
        "cosine": cosine,
        "one-cycle": lambda step: one_cycle(step, total, warmup / total if warmup else 0.3),
    }
    found = rates(steps_per_epoch, epochs=epochs, schedule=schedule, warmup_epochs=warmup_epochs)
    expected = [formulas[schedule](step) for step in range(total)]
    assert found[:-1] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert all(0 < rate <= LR * (1 + 1e-9) for rate in found[:-1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_cycle_leaves_the_momentum_alone(optimizer: str) -> None:
    config = training_config(
        {"optimizer": optimizer, "momentum": 0.7, "schedule": "one-cycle", "epochs": 10}
    )
    made = make_optimizer(config, nn.Linear(1, 1))
    schedule = make_schedule(config, made, 1)
    for _ in range(10):
        group = made.param_groups[0]
        assert (group["momentum"] if optimizer == "sgd" else group["betas"][0]) == 0.7
        made.step()
        schedule.step()


def configured(optimizer: str, **given_settings: Any) -> TrainingConfig:
    return training_config({"optimizer": optimizer, "lr": 0.1} | given_settings)


def test_sgd_has_its_settings() -> None:
    config = configured("sgd", momentum=0.8, nesterov=True, weight_decay=0.01)
    optimizer = make_optimizer(config, nn.Linear(2, 2))
    assert type(optimizer) is torch.optim.SGD
    group = optimizer.param_groups[0]
    wanted = {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01, "dampening": 0}
    assert {key: group[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adam_has_its_settings(name: str, cls: type[torch.optim.Optimizer]) -> None:
    config = configured(name, momentum=0.8, weight_decay=0.01)
    optimizer = make_optimizer(config, nn.Linear(2, 2))
    assert type(optimizer) is cls
    group = optimizer.param_groups[0]
    wanted = {"lr": 0.1, "betas": (0.8, 0.999), "weight_decay": 0.01, "eps": 1e-8}
    assert {key: group[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Gradient 2 at weight 1: 1 - 0.1 · (2 + 0.5), then velocity 0.9 · 2.5 + (2 + 0.375).
        (configured("sgd", weight_decay=0.5), [0.75, 0.2875]),
        # Nesterov steps by the gradient plus 0.9 of the new velocity: 1 - 0.1 · (2 + 0.9 · 2).
        (configured("sgd", weight_decay=0.0, nesterov=True), [0.62, 0.078]),
        (configured("sgd", weight_decay=0.0, momentum=0.0), [0.8, 0.6]),
        # Adam's steps have the length of the learning rate while the gradient stays the same.
        (configured("adam", weight_decay=0.0), [0.9, 0.8]),
        # AdamW shrinks the weight by 1 - 0.1 · 0.5 apart from the step.
        (configured("adamw", weight_decay=0.5), [0.85, 0.7075]),
    ],
)
def test_two_steps_worked_by_hand(config: TrainingConfig, expected: list[float]) -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = make_optimizer(config, model)
    for weight in expected:
        model.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        assert model.weight.item() == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_parameter_that_learns_is_in_once(optimizer: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    groups = make_optimizer(configured(optimizer), model).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert len(held) == 5


@pytest.mark.parametrize(
    ("epochs", "factor", "expected"),
    [(9, 3, [1, 3, 9]), (30, 3, [1, 3, 10, 30]), (8, 2, [1, 2, 4, 8]), (1, 3, [1]), (5, 9, [5])],
)
def test_rungs_are_those_of_successive_halving(
    epochs: int, factor: int, expected: list[int]
) -> None:
    assert rungs(epochs, factor) == expected


def test_rungs_decay_to_zero_at_each_rung_and_begin_anew() -> None:
    config = training_config({"lr": 1.0, "epochs": 3, "schedule": "rungs", "rung_factor": 3})
    optimizer = make_optimizer(config, nn.Linear(1, 1))
    schedule = make_schedule(config, optimizer, 2)
    found = []
    for _ in range(6):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # Two steps to the rung of epoch 1, four to that of epoch 3: (1 + cos(π k / n)) / 2.
    assert found == pytest.approx([1, 0.5, 1, 0.8535534, 0.5, 0.1464466])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "rungs"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rate_of_the_head_follows_in_proportion(schedule: str, optimizer: str) -> None:
    given = {"schedule": schedule, "epochs": 3, "warmup_epochs": 1.0, "optimizer": optimizer}
    config = training_config({"lr": 0.1, "lr_head": 0.4} | given)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    made = make_optimizer(config, model, 5)
    follows = make_schedule(config, made, 4)
    held = [[id(one) for one in group["params"]] for group in made.param_groups]
    assert held == [[id(one) for one in layer.parameters()] for layer in model]
    for _ in range(12):
        rate, of_head = (group["lr"] for group in made.param_groups)
        assert of_head == pytest.approx(4 * rate)
        made.step()
        follows.step()
    alone = training_config({"lr": 0.1} | given)
    plain = make_optimizer(alone, nn.Linear(1, 1))
    follows = make_schedule(alone, plain, 4)
    first = make_optimizer(config, model, 5)
    both = make_schedule(config, first, 4)
    for _ in range(12):
        assert first.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
        for one in (first, plain, follows, both):
            one.step()


def test_a_head_that_is_all_there_is_has_its_rate() -> None:
    config = training_config({"lr": 0.1, "lr_head": 0.4})
    (group,) = make_optimizer(config, nn.Linear(2, 3), 3).param_groups
    assert group["lr"] == 0.4
