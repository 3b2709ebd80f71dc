"""The LSTM loss estimator: its network by hand and against PyTorch, and its Adam."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pack_padded_sequence

from impon_hpo.sampling.lstm import LossEstimator, Network
from tests.sampling.courses import assert_same, leaves, through_a_file


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
