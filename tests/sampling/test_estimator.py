"""The loss estimator: its step by hand and against PyTorch's, what it leaves out, its beginning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.sampling.estimator import Init, LinearEstimator, finite_rows

NAN, INF = math.nan, math.inf


def estimator(
    n_features: int = 2, *, lr: float = 0.1, init: Init = "zeros", seed: int = 0
) -> LinearEstimator:
    source = torch.Generator().manual_seed(seed)
    return LinearEstimator(n_features, lr=lr, init=init, generator=source)


def prepared(*, lr: float = 0.1) -> LinearEstimator:
    """ŷ = 0.5 c₁ - c₂ + 0.25."""
    made = estimator(lr=lr)
    made.load_state_dict({"weight": torch.tensor([0.5, -1.0]), "bias": torch.tensor(0.25)})
    return made


def assert_is(made: LinearEstimator, weight: list[float], bias: float) -> None:
    assert made.weight.tolist() == pytest.approx(weight, abs=1e-6)
    assert float(made.bias) == pytest.approx(bias, abs=1e-6)


CONTEXT = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
LOSSES = torch.tensor([1.0, 3.0])
# Predictions -1.25 and 2.75, errors -2.25 and -0.25, 2/B = 1: the gradient of a is
# -2.25·(1, 2) - 0.25·(3, -1) = (-3, -4.25), that of β -2.5.
AFTER = [0.8, -0.575], 0.5


def test_prediction_is_linear() -> None:
    predicted = prepared().predict(CONTEXT)
    assert predicted.tolist() == [-1.25, 2.75]
    assert predicted.dtype == torch.float32


def test_what_all_rows_share_can_be_given_once() -> None:
    shared = torch.tensor([2.0])
    whole = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert prepared().predict(whole[:, :1], shared).tolist() == [-1.25, -0.25]
    assert prepared().predict(whole).tolist() == [-1.25, -0.25]


def test_step_is_the_one_worked_by_hand() -> None:
    made = prepared()
    made.update(CONTEXT, LOSSES)
    assert_is(made, *AFTER)


def test_second_step_starts_from_the_first() -> None:
    made = prepared()
    made.update(CONTEXT, LOSSES)
    # Predictions 0.15 and 3.475; errors -0.85 and 0.475.
    made.update(CONTEXT, LOSSES)
    assert_is(made, [0.8 - 0.0575, -0.575 + 0.2175], 0.5375)


def test_step_is_the_mean_over_the_batch_so_repeats_change_nothing() -> None:
    made = prepared()
    made.update(CONTEXT.repeat(5, 1), LOSSES.repeat(5))
    assert_is(made, *AFTER)


def test_step_grows_with_the_learning_rate() -> None:
    made = prepared(lr=0.2)
    made.update(CONTEXT, LOSSES)
    assert_is(made, [1.1, -0.15], 0.75)


def test_steps_are_those_of_pytorch() -> None:
    source = torch.Generator().manual_seed(3)
    made = estimator(7, lr=0.03, init="uniform")
    linear = nn.Linear(7, 1)
    linear.load_state_dict({"weight": made.weight[None], "bias": made.bias[None]})
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.03)
    for n_rows in (16, 16, 1, 5, 16):
        context = torch.randn(n_rows, 7, generator=source)
        losses = torch.rand(n_rows, generator=source) * 3
        predicted = linear(context)[:, 0]
        torch.testing.assert_close(made.predict(context), predicted.detach())
        optimizer.zero_grad()
        nn.functional.mse_loss(predicted, losses).backward()
        optimizer.step()
        made.update(context, losses)
        torch.testing.assert_close(made.weight, linear.weight.detach()[0])
        torch.testing.assert_close(made.bias, linear.bias.detach()[0])


@pytest.mark.parametrize(
    ("context", "loss"),
    [
        ([1.0, 1.0], NAN),
        ([1.0, 1.0], INF),
        ([1.0, 1.0], -INF),
        ([0.0, 0.0], INF),
        ([NAN, 1.0], 1.0),
        ([1.0, INF], 1.0),
        ([-INF, NAN], NAN),
    ],
)
def test_rows_that_are_not_finite_are_left_out(context: list[float], loss: float) -> None:
    made = prepared()
    bad = torch.tensor([context])
    made.update(
        torch.cat([bad, CONTEXT[:1], bad, CONTEXT[1:]]),
        torch.tensor([loss, LOSSES[0], loss, LOSSES[1]]),
    )
    assert_is(made, *AFTER)
    made.update(bad, torch.tensor([loss]))
    assert_is(made, *AFTER)


def test_inputs_of_a_step_are_not_changed() -> None:
    context, losses = torch.tensor([[NAN, 1.0], [2.0, 1.0]]), torch.tensor([1.0, NAN])
    prepared().update(context, losses)
    assert context[1].tolist() == [2.0, 1.0]
    assert context[0].isnan().tolist() == [True, False]
    assert losses.isnan().tolist() == [False, True]


def test_zeros_begin_with_zeros_and_reset_to_them() -> None:
    made = estimator()
    assert_is(made, [0.0, 0.0], 0.0)
    made.update(CONTEXT, LOSSES)
    assert float(made.bias) > 0
    made.reset()
    assert_is(made, [0.0, 0.0], 0.0)


def test_uniform_begins_as_a_linear_layer_does() -> None:
    made = estimator(10_000, init="uniform")
    torch.manual_seed(0)
    theirs = nn.Linear(10_000, 1).weight.detach()[0]
    for weight in (made.weight, theirs):
        assert 0.0099 < float(weight.max()) <= 0.01
        assert -0.01 <= float(weight.min()) < -0.0099
        assert float(weight.std()) == pytest.approx(0.01 / math.sqrt(3), rel=0.03)
        assert abs(float(weight.mean())) < 3e-4


def test_uniform_bias_is_drawn_in_the_same_bounds() -> None:
    biases = torch.stack([estimator(4, init="uniform", seed=seed).bias for seed in range(300)])
    assert 0.45 < float(biases.max()) <= 0.5
    assert -0.5 <= float(biases.min()) < -0.45


def test_reset_draws_anew_from_the_generator() -> None:
    first, twin = (estimator(5, init="uniform", seed=4) for _ in range(2))
    drawn: list[list[float]] = []
    for _ in range(3):
        assert first.weight.tolist() == twin.weight.tolist()
        assert float(first.bias) == float(twin.bias)
        assert first.weight.tolist() not in drawn
        drawn.append(first.weight.tolist())
        first.reset()
        twin.reset()
    assert estimator(5, init="uniform", seed=5).weight.tolist() not in drawn


def test_state_is_taken_over_and_is_a_copy() -> None:
    source = estimator(3, init="uniform")
    state = source.state_dict()
    kept: dict[str, Tensor] = {key: value.clone() for key, value in state.items()}
    other = estimator(3)
    other.load_state_dict(state)
    context, losses = torch.ones(4, 3), torch.full((4,), 2.0)
    assert torch.equal(other.predict(context), source.predict(context))
    source.update(context, losses)
    assert not torch.equal(other.predict(context), source.predict(context))
    other.update(context, losses)
    assert torch.equal(other.predict(context), source.predict(context))
    assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize("init", ["uniform", "zeros"])
@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_shrinking_keeps_a_share_of_what_was_learnt(init: Init, factor: float) -> None:
    made, fresh = (estimator(2, init=init, seed=7) for _ in range(2))
    made.load_state_dict({"weight": torch.tensor([4.0, -8.0]), "bias": torch.tensor(2.0)})
    made.shrink(factor)
    fresh.reset()
    assert_is(
        made,
        [
            (1 - factor) * new + factor * old
            for new, old in zip(fresh.weight.tolist(), (4.0, -8.0), strict=True)
        ],
        (1 - factor) * float(fresh.bias) + factor * 2.0,
    )


def test_rows_are_finite_only_where_every_value_is() -> None:
    values = torch.ones(5, 3)
    values[1, 0], values[2, 1], values[3, 2] = float("nan"), float("inf"), -float("inf")
    values[4] = torch.finfo(torch.float32).max  # whose sum is not finite
    assert finite_rows(values).tolist() == [True, False, False, False, True]
