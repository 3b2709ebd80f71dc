"""LSTM loss: choice, weights and histories by hand, its network and Adam, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pack_padded_sequence

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.lstm_loss import LossEstimator, LstmLoss, Network
from tests.sampling.courses import (
    Course,
    assert_finite,
    assert_same,
    deep_model,
    field,
    flat_rows,
    leaves,
    rows_of,
    through_a_file,
)

PREDICTED = [1.0, 1.0, 2.0, 4.0]


def sampler_of(n_rows: int = 4, n_classes: int = 4, **given: Any) -> LstmLoss:
    """Row i is of class i mod `n_classes`."""
    settings: dict[str, Any] = {"batch_size": 2, "model": deep_model(), "hidden": 4, "history": 3}
    return LstmLoss(flat_rows(torch.zeros(n_rows, 1), n_classes), **(settings | given))


def predicting(values: list[float], **given: Any) -> LstmLoss:
    """A sampler of one row a class that predicts `values`, whatever the history."""
    sampler = sampler_of(len(values), len(values), **given)
    network = sampler.estimator.network
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        network.classes.weight[:, 0] = torch.tensor(values)
        network.dense.weight[0, 4] = 1  # after the four hidden units
    return sampler


def tell(sampler: LstmLoss, rows: list[int], losses: list[float]) -> None:
    sampler.observe(Draw(torch.tensor(rows)), torch.tensor(losses))


def shares(sampler: LstmLoss, n_draws: int = 2000) -> list[float]:
    picked = torch.cat([sampler.draw().rows for _ in range(n_draws)])
    return (picked.bincount(minlength=len(sampler.rows)) / len(picked)).tolist()


def histories(sampler: LstmLoss) -> list[list[float]]:
    state = sampler.state_dict()
    pairs = zip(state["past"].tolist(), state["count"].tolist(), strict=True)
    return [past[:count] for past, count in pairs]


def test_rows_are_drawn_in_proportion_to_their_prediction() -> None:
    sampler = predicting(PREDICTED)
    assert shares(sampler) == pytest.approx([1 / 8, 1 / 8, 2 / 8, 4 / 8], abs=0.03)
    draw = sampler.draw()
    assert field(draw.scores).tolist() == [PREDICTED[row] for row in draw.rows.tolist()]
    sampler.blind = True
    assert shares(sampler) == pytest.approx([1 / 4] * 4, abs=0.03)


def test_smoothing_adds_a_share_of_the_moving_mean() -> None:
    sampler = predicting(PREDICTED, smoothing=0.5, k=1.0)
    # The mean moves from 1 to 0.9 · 1 + 0.1 · 2, so that the first scores are 0.55 higher.
    draw = sampler.draw()
    weights = {1.0: 2.55 / 1.55, 2.0: 1.0, 4.0: 2.55 / 4.55}
    expected = [weights[score] for score in field(draw.scores).tolist()]
    assert field(draw.weights).tolist() == pytest.approx(expected, rel=1e-5)
    for _ in range(100):
        sampler.draw()
    assert shares(sampler) == pytest.approx([2 / 12, 2 / 12, 3 / 12, 5 / 12], abs=0.03)


HALF = {
    (1.0, 1.0): (2.0, 2.0),
    (2.0, 2.0): (1.0, 1.0),
    (4.0, 4.0): (0.5, 0.5),
    (1.0, 2.0): (1.656854, 1.171573),
    (1.0, 4.0): (1.333333, 0.666667),
    (2.0, 4.0): (0.828427, 0.585786),
}


@pytest.mark.parametrize("k", [1.0, 0.5, 0.0])
def test_weights_are_those_worked_by_hand(k: float) -> None:
    # The mean prediction is 2, so the unbiased weights are 2 / s.
    sampler = predicting(PREDICTED, k=k)
    seen = set()
    for _ in range(60):
        draw = sampler.draw()
        scores, weights = field(draw.scores).tolist(), field(draw.weights).tolist()
        low, high = sorted(scores)
        result = dict(zip(scores, weights, strict=True))
        expected = {
            1.0: (2 / low, 2 / high),
            0.5: HALF[low, high],
            0.0: (4 / (low + high), 4 / (low + high)),
        }[k]
        assert (result[low], result[high]) == pytest.approx(expected, rel=1e-5)
        seen.add((low, high))
    assert seen == set(HALF)


def test_weights_of_one_are_unbiased() -> None:
    sampler = predicting(PREDICTED, k=1.0)
    values = torch.tensor([5.0, 1.0, 3.0, 7.0])
    means = []
    for _ in range(3000):
        draw = sampler.draw()
        means.append((field(draw.weights) * values[draw.rows]).mean())
    assert float(torch.stack(means).mean()) == pytest.approx(4.0, abs=0.15)


def test_low_k_gives_nearly_all_weight_to_the_highest_and_none_is_zero() -> None:
    sampler = predicting([2.0, 2.0, 2.0, 4.0], k=-500.0, batch_size=4)
    n_mixed = 0
    for _ in range(20):
        draw = sampler.draw()
        weights, highest = field(draw.weights), field(draw.scores) == 4
        assert weights.isfinite().all()
        assert (weights > 0).all()
        if 0 < int(highest.sum()) < 4:
            n_mixed += 1
            # Σ ŵ s = Σ w s = 4 · 2.5, all of it from the highest, whose s is 4.
            assert float(weights[highest].sum()) == pytest.approx(2.5)
            assert float(weights[~highest].max()) < 1e-20
    assert n_mixed > 10


def test_predictions_below_zero_count_as_almost_nothing() -> None:
    some = predicting([-1.0, -5.0, 0.5, 0.5])
    assert shares(some, 500)[:2] == [0.0, 0.0]
    none = predicting([-1.0, -5.0, 0.0, -2.0])
    assert shares(none) == pytest.approx([1 / 4] * 4, abs=0.03)
    assert field(none.draw().weights).tolist() == pytest.approx([1.0, 1.0])


def test_equal_predictions_draw_uniformly_with_weights_of_one() -> None:
    sampler = predicting([0.7] * 4)
    assert shares(sampler) == pytest.approx([1 / 4] * 4, abs=0.03)
    assert field(sampler.draw().weights).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("presample", "expected"), [(2, 0.04), (25, 0.5), (50, 1.0), (99, 1.0)])
def test_rows_are_chosen_from_the_presample_only(presample: int, expected: float) -> None:
    # Row 7 is all of a batch where it is one of the presampled of 50 rows.
    sampler = predicting([1e5 if row == 7 else 1e-4 for row in range(50)], presample=presample)
    assert sampler.presample == min(presample, 50)
    assert shares(sampler, 1000)[7] == pytest.approx(expected, abs=0.06 if expected < 1 else 1e-9)


def test_histories_keep_the_last_losses_in_order() -> None:
    sampler = sampler_of()
    for loss in (1.0, 2.0):
        tell(sampler, [2], [loss])
    assert histories(sampler) == [[], [], [1.0, 2.0], []]
    for loss in (3.0, 4.0, 5.0):
        tell(sampler, [2], [loss])
    tell(sampler, [0, 1], [0.25, 0.5])
    assert histories(sampler) == [[0.25], [0.5], [3.0, 4.0, 5.0], []]


def test_histories_take_one_finite_loss_a_batch() -> None:
    sampler = sampler_of()
    tell(sampler, [3, 0, 0, 1, 2, 1, 2], [7.0, 1.0, 2.0, 3.0, math.inf, math.nan, -math.inf])
    assert histories(sampler) == [[2.0], [3.0], [], [7.0]]
    tell(sampler, [0, 3], [3e38, -3e38])
    assert histories(sampler) == [[2.0, 60000.0], [3.0], [], [7.0, -60000.0]]
    for _ in range(3):
        tell(sampler, [0, 3], [3e38, -3e38])
    assert_finite(sampler.state_dict())
    assert field(sampler.draw().scores).isfinite().all()


def test_estimator_learns_from_the_history_before_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampler_of()
    seen: list[list[Any]] = []

    def update(past: Tensor, count: Tensor, labels: Tensor, losses: Tensor) -> None:
        seen.append([tensor.tolist() for tensor in (past, count, labels, losses)])

    monkeypatch.setattr(sampler.estimator, "update", update)
    tell(sampler, [1, 3], [0.5, 2.0])
    tell(sampler, [3, 0], [1.5, 1.0])
    assert seen[0] == [[[0.0] * 3] * 2, [0, 0], [1, 3], [0.5, 2.0]]
    assert seen[1] == [[[2.0, 0.0, 0.0], [0.0] * 3], [1, 0], [3, 0], [1.5, 1.0]]


def test_losses_that_rows_keep_are_predicted_within_a_class() -> None:
    sampler = sampler_of(40, 1, batch_size=20, hidden=8, estimator_lr=0.02)
    true = torch.linspace(0.5, 3, 40)
    for epoch in (1, 2, 3, 4):
        sampler.start_epoch(epoch)
        assert math.isnan(sampler.diagnostics()["rank_correlation"])
        for _ in range(40):
            draw = sampler.draw()
            sampler.observe(draw, true[draw.rows])
        told = sampler.diagnostics()
    assert told["rank_correlation"] > 0.9
    assert told["r_squared"] > 0.8


def test_rows_can_stand_twice_in_a_batch() -> None:
    assert LstmLoss.repeats_rows
    draws = [predicting([1.0, 1e6, 1.0, 1.0], seed=seed).draw().rows.tolist() for seed in range(5)]
    assert draws == [[1, 1]] * 5


def test_loaded_sampler_goes_on_as_the_saved_one() -> None:
    given: dict[str, Any] = {"presample": 100, "history": 4, "smoothing": 0.5, "k": 1.0}
    saved, loaded = Course("lstm-loss", **given), Course("lstm-loss", **given)
    saved.epoch(1, 5)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    following = [rows_of([course.step() for _ in range(5)]) for course in (saved, loaded)]
    assert following[0] == following[1]
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("presample", 1, r"batch_size \(2\).*presample=1\."),
        ("history", 0, "history=0"),
        ("history", 1001, "history=1001"),
        ("embedding", 0, "embedding=0"),
        ("hidden", 0, "hidden=0"),
        ("estimator_lr", 0.0, r"estimator_lr=0\.0"),
        ("estimator_lr", math.nan, "estimator_lr=nan"),
        ("smoothing", -0.1, r"smoothing=-0\.1"),
        ("smoothing", math.inf, "smoothing=inf"),
        ("k", 1.5, r"k=1\.5"),
        ("k", -math.inf, "k=-inf"),
        ("k", math.nan, "k=nan"),
    ],
)
def test_option_out_of_its_range_is_refused(option: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sampler_of(**{option: value})


def network(seed: int = 0, *, embedding: int = 3, hidden: int = 5) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return Network(4, embedding=embedding, hidden=hidden, generator=generator)


def some_histories(n: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(3)
    past = torch.rand(n, 6, generator=source) * 3
    count = torch.arange(n) % 7
    return past, count, torch.arange(n) % 4


def test_prediction_is_that_worked_by_hand() -> None:
    one = network(embedding=1, hidden=1)
    with torch.no_grad():
        for weights in one.parameters():
            weights.zero_()
        # Gates of ½; only the candidate, third of four, looks at its input.
        dict(one.named_parameters())["lstm.weight_ih_l0"][2] = 1
        dict(one.named_parameters())["lstm.weight_ih_l1"][2] = 1
        one.classes.weight.copy_(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
        one.dense.weight.copy_(torch.tensor([[1.0, 0.1]]))
        one.dense.bias.fill_(0.5)
    past = torch.tensor([[1.0, 9.0], [1.0, 2.0], [7.0, 8.0]])
    told = LossEstimator(one, lr=0.1).predict(
        past, torch.tensor([1, 2, 0]), torch.tensor([0, 2, 3])
    )
    # c₁ ← ½ c₁ + ½ tanh x, h₁ = ½ tanh c₁, and so on with h₁ for x.
    assert told.tolist() == pytest.approx([0.544811, 2.592670, 3.5], abs=1e-6)


def test_predictions_are_those_of_packed_sequences() -> None:
    one = network()
    past, count, labels = some_histories()
    some = count > 0
    reference = nn.LSTM(1, 5, num_layers=2, batch_first=True)
    reference.load_state_dict(one.lstm.state_dict())
    packed = pack_padded_sequence(
        past[some, :, None], count[some], batch_first=True, enforce_sorted=False
    )
    _, (state, _) = reference(packed)
    last = torch.zeros(len(past), 5)
    last[some] = state[-1]
    expected = one.dense(torch.cat([last, one.classes(labels)], dim=1))[:, 0]
    told = LossEstimator(one, lr=0.1).predict(past, count, labels)
    torch.testing.assert_close(told, expected.detach())
    assert not told.requires_grad


def test_updates_are_those_of_adam_on_the_squared_error() -> None:
    ours, theirs = LossEstimator(network(), lr=0.01), network()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    past, count, labels = some_histories()
    losses = torch.linspace(0.1, 3, 12)
    for step in range(5):
        target = losses + step
        with torch.no_grad():  # as a caller may
            ours.update(past, count, labels, target)
        optimizer.zero_grad()
        mse_loss(theirs(past, count, labels), target).backward()
        optimizer.step()
    for name, weights in ours.network.named_parameters():
        torch.testing.assert_close(weights, dict(theirs.named_parameters())[name], msg=name)
        assert weights.grad is None


def test_first_update_moves_each_weight_by_the_learning_rate() -> None:
    one = LossEstimator(network(), lr=0.25)
    with torch.no_grad():
        for weights in one.network.parameters():
            weights.zero_()
    nothing = (
        torch.zeros(2, 6),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
    )
    one.update(*nothing, torch.tensor([3.0, 1.0]))
    # With zero weights only the bias has a gradient; Adam's first step is its sign.
    moved = {name: weights.sum().item() for name, weights in one.network.named_parameters()}
    assert moved.pop("dense.bias") == pytest.approx(0.25)
    assert set(moved.values()) == {0.0}


def test_losses_that_are_not_finite_do_not_count() -> None:
    ours, theirs = (LossEstimator(network(), lr=0.01) for _ in range(2))
    past, count, labels = some_histories()
    losses = torch.linspace(0.1, 3, 12)
    losses[8:] = torch.tensor([math.nan, math.inf, -math.inf, math.nan])
    ours.update(past, count, labels, losses)
    theirs.update(past[:8], count[:8], labels[:8], losses[:8])
    expected = dict(leaves(theirs.state_dict()))
    for key, value in leaves(ours.state_dict()):
        torch.testing.assert_close(value, expected[key], msg=key)


def test_initial_weights_are_of_the_generator_and_in_their_range() -> None:
    first, second, other = network(1), network(1), network(2)
    assert_same(dict(first.state_dict()), dict(second.state_dict()))
    for name, weights in first.named_parameters():
        assert not torch.equal(weights, dict(other.named_parameters())[name])
        bound = {"classes": 0.05, "lstm": 1 / math.sqrt(5), "dense": 1 / math.sqrt(8)}
        limit = bound[name.split(".")[0]]
        assert float(weights.detach().abs().max()) <= limit
        assert len(weights) == 1 or float(weights.detach().abs().max()) > limit / 2


def test_loaded_estimator_goes_on_as_the_saved_one() -> None:
    saved, loaded = LossEstimator(network(1), lr=0.01), LossEstimator(network(2), lr=0.01)
    past, count, labels = some_histories()
    saved.update(past, count, labels, torch.ones(12))
    state = saved.state_dict()
    loaded.load_state_dict(through_a_file(state))
    kept = through_a_file(state)
    for one in (saved, loaded):
        one.update(past, count, labels, torch.full((12,), 2.0))
    assert_same(saved.state_dict(), loaded.state_dict())
    assert_same(state, kept)
