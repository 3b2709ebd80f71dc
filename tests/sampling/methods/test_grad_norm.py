"""Gradient norms of the last layer: by hand, against autograd, and models they cannot be had of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Forward
from impon_hpo.sampling.methods.grad_norm import GradNorm
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import (
    Course,
    assert_finite,
    assert_same,
    assert_well_formed,
    deep_model,
    field,
    flat_rows,
    through_a_file,
)


def zeroed(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def sampler_of(rows: Rows, model: nn.Module, batch_size: int = 1, **given: Any) -> GradNorm:
    return GradNorm(rows, batch_size=batch_size, model=model, **given)


def forward_of(rows: Rows, model: nn.Module) -> Forward:
    def forward(picked: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = model(rows.read(picked))
            return cross_entropy(logits, rows.labels[picked], reduction="none"), logits

    return forward


def n_hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_pre_hooks) for layer in model.modules())


@pytest.mark.parametrize(
    ("bias", "expected"), [(False, [3.5355339, 0.0]), (True, [3.6055513, 0.7071068])]
)
def test_norms_are_those_worked_by_hand(bias: bool, expected: list[float]) -> None:
    # ‖(½, ½) - (1, 0)‖ = √½, times ‖(3, 4)‖ = 5 without and √26 with the bias; then ‖(0, 0)‖.
    rows = flat_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    model = zeroed(nn.Linear(2, 2, bias=bias))
    norms = sampler_of(rows, model).gradient_norms(torch.arange(2), forward_of(rows, model))
    assert norms.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bias", [True, False])
def test_norms_are_those_of_autograd(bias: bool) -> None:
    torch.manual_seed(0)
    rows = flat_rows(torch.randn(12, 5), n_classes=4)
    last = nn.Linear(6, 4, bias=bias)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), last)
    picked = torch.tensor([7, 0, 3, 3, 11])
    result = sampler_of(rows, model).gradient_norms(picked, forward_of(rows, model))
    for row, norm in zip(picked.tolist(), result.tolist(), strict=True):
        one = torch.tensor([row])
        loss = cross_entropy(model(rows.read(one)), rows.labels[one])
        gradients = torch.autograd.grad(loss, list(last.parameters()))
        expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        assert norm == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("smoothing", "shares", "weights"),
    [(0.0, [0.25, 0.75], [2.0, 2 / 3]), (1.0, [0.375, 0.625], [4 / 3, 0.8])],
)
def test_choice_and_weights_are_those_worked_by_hand(
    smoothing: float, shares: list[float], weights: list[float]
) -> None:
    # Norms 1 and 3 times √½, mean 2: with smoothing 3 and 5.
    rows = flat_rows(torch.tensor([[1.0], [3.0]]))
    model = zeroed(nn.Linear(1, 2, bias=False))
    sampler = sampler_of(rows, model, smoothing=smoothing)
    draws = [sampler.draw(forward_of(rows, model)) for _ in range(4000)]
    picked = torch.cat([draw.rows for draw in draws])
    assert (picked.bincount(minlength=2) / 4000).tolist() == pytest.approx(shares, abs=0.03)
    for draw in draws:
        assert field(draw.weights).item() == pytest.approx(weights[draw.rows.item() == 1])


def test_weighted_mean_is_on_average_that_of_all_rows() -> None:
    torch.manual_seed(1)
    rows = flat_rows(torch.randn(30, 3), n_classes=3)
    model = nn.Linear(3, 3)
    sampler = sampler_of(rows, model, batch_size=5, bank_size=10)
    values = torch.arange(30.0)  # mean 14.5
    means = []
    for _ in range(4000):
        draw = sampler.draw(forward_of(rows, model))
        means.append(float((field(draw.weights) * values[draw.rows]).mean()))
    assert sum(means) / len(means) == pytest.approx(14.5, abs=0.5)


def test_placebo_chooses_all_rows_alike() -> None:
    rows = flat_rows(torch.tensor([[1.0], [3.0]]))
    model = zeroed(nn.Linear(1, 2, bias=False))
    sampler = sampler_of(rows, model)
    sampler.blind = True
    draws = [sampler.draw(forward_of(rows, model)) for _ in range(4000)]
    assert sum(draw.rows.item() for draw in draws) / 4000 == pytest.approx(0.5, abs=0.03)
    # The weights undo the permuted choice: on average 1.
    assert sum(field(draw.weights).item() for draw in draws) / 4000 == pytest.approx(1, abs=0.05)


def test_bank_is_three_batches_or_all_rows() -> None:
    for n_rows, expected in ((20, 12), (10, 10)):
        course = Course("grad-norm", n_rows=n_rows, batch_size=4)
        course.epoch(1, 2)
        assert course.rows_scored == 2 * expected


def test_bank_of_a_batch_gives_a_full_batch_of_its_rows() -> None:
    course = Course("grad-norm", batch_size=8, bank_size=8)
    for draw in course.epochs(2, 3):
        assert_well_formed(draw, course)


def test_rows_whose_norm_is_not_finite_are_not_drawn() -> None:
    rows = flat_rows(torch.tensor([[1.0], [math.nan], [1.0], [math.inf]]))
    model = zeroed(nn.Linear(1, 2, bias=False))
    for smoothing in (0.0, 0.5):
        sampler = sampler_of(rows, model, batch_size=4, smoothing=smoothing)
        draws = [sampler.draw(forward_of(rows, model)) for _ in range(50)]
        assert {row for draw in draws for row in draw.rows.tolist()} == {0, 2}
        assert all(field(draw.weights).tolist() == pytest.approx([0.5] * 4) for draw in draws)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_rows_are_equally_likely_where_no_norm_tells_them_apart(value: float) -> None:
    rows = flat_rows(torch.full((4, 1), value))
    model = zeroed(nn.Linear(1, 2, bias=False))
    sampler = sampler_of(rows, model, batch_size=4, smoothing=0.5)
    draws = [sampler.draw(forward_of(rows, model)) for _ in range(1000)]
    picked = torch.cat([draw.rows for draw in draws])
    assert (picked.bincount(minlength=4) / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert all(field(draw.weights).tolist() == pytest.approx([1.0] * 4) for draw in draws)


def test_forward_in_parts_gives_the_same_norms() -> None:
    rows = flat_rows(torch.linspace(-1, 2, 14).reshape(7, 2))
    model = nn.Linear(2, 2)
    whole = forward_of(rows, model)

    def in_parts(picked: Tensor) -> tuple[Tensor, Tensor]:
        parts = [whole(part) for part in picked.split(3)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    sampler = sampler_of(rows, model)
    expected = sampler.gradient_norms(torch.arange(7), whole)
    torch.testing.assert_close(sampler.gradient_norms(torch.arange(7), in_parts), expected)


def test_layer_called_by_name_is_seen() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = zeroed(nn.Linear(2, 2, bias=False))

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.fc(input=inputs)
            return logits

    rows = flat_rows(torch.tensor([[3.0, 4.0]]))
    model = Named()
    norms = sampler_of(rows, model).gradient_norms(torch.arange(1), forward_of(rows, model))
    assert norms.tolist() == pytest.approx([3.5355339])


def test_model_without_a_linear_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())
    with pytest.raises(ConfigError, match=r"as its last layer, but the model has no nn\.Linear"):
        sampler_of(flat_rows(torch.zeros(4, 1)), model)


def test_layer_that_does_not_run_is_named_with_what_to_do() -> None:
    rows = flat_rows(torch.zeros(4, 2))
    model = nn.Linear(2, 2)
    sampler = sampler_of(rows, model)
    with pytest.raises(ConfigError, match="must not be compiled"):
        sampler.draw(lambda picked: (torch.ones(len(picked)), torch.zeros(len(picked), 2)))
    assert n_hooks(model) == 0


@pytest.mark.parametrize("called_before", [False, True])
def test_compiled_model_is_refused_with_what_to_do(called_before: bool) -> None:
    rows = flat_rows(torch.zeros(4, 2))
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    compiled = torch.compile(model, backend="eager")
    forward = forward_of(rows, compiled)  # type: ignore[arg-type]
    if called_before:
        forward(torch.arange(3))
    sampler = sampler_of(rows, model)
    for _ in range(2):
        with pytest.raises(ConfigError, match="must not be compiled"):
            sampler.draw(forward)
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 2, 1), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Linear(2, 2), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (2, 1)), nn.Linear(1, 2), nn.Flatten()),
    ],
    ids=["logits by another layer", "one token", "two tokens"],
)
def test_layer_that_does_not_give_the_logits_is_refused(model: nn.Module) -> None:
    rows = flat_rows(torch.zeros(6, 2))
    sampler = sampler_of(rows, model)
    with pytest.raises(ConfigError, match=r"whose last nn\.Linear gives the logits"):
        sampler.draw(forward_of(rows, model))
    assert n_hooks(model) == 0


def test_no_hook_stays_behind() -> None:
    rows = flat_rows(torch.zeros(4, 2))
    model = nn.Linear(2, 2)
    sampler = sampler_of(rows, model)
    sampler.draw(forward_of(rows, model))
    assert n_hooks(model) == 0

    def breaks(picked: Tensor) -> tuple[Tensor, Tensor]:
        assert n_hooks(model) == 1
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        sampler.draw(breaks)
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": -0.1}, r"smoothing must be at least 0 .*smoothing=-0\.1"),
        ({"smoothing": math.inf}, r"smoothing must be .*finite.*smoothing=inf"),
        ({"smoothing": math.nan}, r"smoothing must be .*smoothing=nan"),
        ({"bank_size": 3}, r"between batch_size \(4\).*bank_size=3"),
        ({"bank_size": 11}, r"rows \(10\).*bank_size=11"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler_of(flat_rows(torch.zeros(10, 1)), deep_model(), batch_size=4, **options)


def test_loaded_sampler_goes_on_in_the_middle_of_an_epoch() -> None:
    saved, loaded = (Course("grad-norm", smoothing=0.3, bank_size=30) for _ in range(2))
    saved.epoch(1, 3)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    for _ in range(4):
        assert_same(vars(saved.step()), vars(loaded.step()))
    assert_finite(loaded.sampler.state_dict())
