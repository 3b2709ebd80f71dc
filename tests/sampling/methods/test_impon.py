"""Impon: the paper's rule against its definition, its context, its resets and its options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.draws import draw_bank
from impon_hpo.sampling.methods.impon import Impon, ImponLow
from tests.sampling.courses import (
    deep_model,
    field,
    flat_rows,
    image_rows,
    impon,
    points,
    set_weights,
    weights,
)

BOTH = pytest.mark.parametrize(("kind", "sign"), [(Impon, 1), (ImponLow, -1)])


@BOTH
@pytest.mark.parametrize(("n_rows", "bank_size"), [(120, 50), (120, 120), (2000, 50)])
def test_batch_is_the_top_of_the_bank(
    kind: type[Impon], sign: int, n_rows: int, bank_size: int
) -> None:
    rows = points(n_rows)
    sampler = impon(kind, rows, bank_size=bank_size, seed=11, estimator_init="zeros")
    set_weights(sampler, [2.0, -1.0, 0.0], 0.5)
    source = torch.Generator().manual_seed(11)  # zeros draw nothing
    for _ in range(3):
        bank = draw_bank(n_rows, bank_size, source).tolist()
        scores = {
            row: float(2 * rows.inputs[:][row, 0] - rows.inputs[:][row, 1] + 0.5) for row in bank
        }
        expected = sorted(bank, key=lambda row: scores[row], reverse=sign > 0)[:8]
        draw = sampler.draw()
        assert sorted(draw.rows.tolist()) == sorted(expected)
        told = field(draw.scores).tolist()
        assert told == pytest.approx([scores[row] for row in draw.rows.tolist()], abs=1e-5)
        assert draw.weights is None


@BOTH
def test_epochs_are_those_of_a_linear_layer_and_sgd(kind: type[Impon], sign: int) -> None:
    rows, model, lr = image_rows(300), deep_model(), 0.01
    true = torch.rand(300, generator=torch.Generator().manual_seed(8)) * 3
    sampler = impon(kind, rows, batch_size=16, bank_size=60, model=model, estimator_lr=lr, seed=5)
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))
    source = torch.Generator().manual_seed(5)
    bound = 1 / math.sqrt(17)
    for epoch in (1, 2, 3):
        sampler.start_epoch(epoch)
        linear = nn.Linear(17, 1)
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=source)
            linear.bias.uniform_(-bound, bound, generator=source)
        optimizer = torch.optim.SGD(linear.parameters(), lr=lr)
        for _ in range(4):
            bank = draw_bank(300, 60, source)
            context = torch.cat([rows.read(bank).flatten(1), torch.full((60, 1), norm)], dim=1)
            predicted = linear(context)[:, 0]
            best = (sign * predicted).argsort(descending=True)[:16]
            draw = sampler.draw()
            assert draw.rows.tolist() == bank[best].tolist()
            torch.testing.assert_close(field(draw.context), context[best])
            torch.testing.assert_close(field(draw.scores), predicted[best].detach())
            optimizer.zero_grad()
            mse_loss(predicted[best], true[bank[best]]).backward()
            optimizer.step()
            sampler.observe(draw, true[draw.rows])


def test_last_of_the_context_is_the_norm_of_the_trainable_weights() -> None:
    first, frozen = nn.Linear(2, 3), nn.Linear(3, 2)
    frozen.bias.requires_grad_(False).fill_(1e3)
    model = nn.Sequential(first, nn.BatchNorm1d(3), frozen)
    sampler = impon(model=model)

    def norm() -> float:
        trained = [p.detach() for p in model.parameters() if p.requires_grad]
        return math.sqrt(sum(float(p.double().square().sum()) for p in trained))

    result = []
    for factor in (1.0, 3.0, 0.1):
        with torch.no_grad():
            first.weight.mul_(factor)
        context = field(sampler.draw().context)
        assert context.shape == (8, 3)
        assert context[:, -1].tolist() == pytest.approx([norm()] * 8, rel=1e-5)
        result.append(norm())
    assert len(set(result)) == 3
    assert max(result) < 100


def test_norm_alone_cannot_rank() -> None:
    sampler = impon(batch_size=50, estimator_init="zeros")
    set_weights(sampler, [0.0, 0.0, 0.7], 0.1)
    scores = field(sampler.draw().scores)
    assert len(scores.unique()) == 1
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in sampler.model.parameters()))
    assert float(scores[0]) == pytest.approx(0.7 * norm + 0.1, rel=1e-5)


def test_features_are_those_asked_for() -> None:
    rows = points(120, 5)
    own: Callable[[Tensor], Tensor] = lambda inputs: inputs[:, :2] * 10  # noqa: E731
    for features, n_features in ((own, 2), ("pixels", 5), ("pca", 5)):
        draw = impon(rows=rows, features=features).draw()
        assert field(draw.context).shape == (8, n_features + 1)
        if features is own:
            assert torch.equal(field(draw.context)[:, :2], rows.inputs[:][draw.rows, :2] * 10)


@pytest.mark.parametrize("init", ["uniform", "zeros"])
def test_estimator_is_new_in_each_epoch_but_the_first(init: str) -> None:
    sampler = impon(estimator_init=init, estimator_lr=0.1)
    at_first = weights(sampler)
    assert (at_first == [0.0] * 3) is (init == "zeros")
    set_weights(sampler, [1.0, 2.0, 3.0], 4.0)
    sampler.start_epoch(1)
    assert weights(sampler) == [1.0, 2.0, 3.0]
    result = []
    for epoch in (2, 3):
        sampler.observe(sampler.draw(), torch.full((8,), 5.0))
        learnt = weights(sampler)
        sampler.start_epoch(epoch)
        result.append(weights(sampler))
        assert max(map(abs, result[-1])) <= 1 / math.sqrt(3)
        assert learnt != result[-1]
    assert (result == [[0.0] * 3] * 2) is (init == "zeros")
    assert init == "zeros" or (result[0] != result[1] and at_first not in result)


def test_diagnostics_are_of_the_predictions_at_the_draw_and_of_this_epoch() -> None:
    sampler = impon(estimator_init="zeros", estimator_lr=1e-3, reset="never")
    set_weights(sampler, [1.0, 0.0, 0.0])
    sampler.start_epoch(1)
    assert math.isnan(sampler.diagnostics()["rank_correlation"])
    predicted, observed = [], []
    for order in (1, 1, 1, -1):
        draw = sampler.draw()
        scores = field(draw.scores).clone()
        losses = (order * scores).argsort().argsort() / 4 + 1.0
        sampler.observe(draw, losses)
        predicted.append(scores)
        observed.append(losses)
    told = sampler.diagnostics()
    assert told["rank_correlation"] == pytest.approx((1 + 1 + 1 - 1) / 4)
    expected = r2_score(torch.cat(observed).double().numpy(), torch.cat(predicted).double().numpy())
    assert told["r_squared"] == pytest.approx(expected, rel=1e-6)
    assert {"share_seen", "class_balance"} < told.keys()
    sampler.start_epoch(2)
    draw = sampler.draw()
    sampler.observe(draw, -field(draw.scores))
    assert sampler.diagnostics()["rank_correlation"] == pytest.approx(-1)


def test_losses_of_half_and_double_precision_are_learnt_from() -> None:
    result = []
    for dtype in (torch.float32, torch.float64, torch.float16):
        sampler = impon(estimator_lr=0.1)
        sampler.observe(sampler.draw(), torch.full((8,), 2.5, dtype=dtype))
        result.append(weights(sampler))
    assert result[0] == result[1] == result[2] != weights(impon())


def test_foreign_draw_is_refused() -> None:
    draw = impon().draw()
    for foreign in (Draw(draw.rows), Draw(draw.rows, scores=draw.scores)):
        with pytest.raises(ConfigError, match="draw that this batch sampler returned"):
            impon().observe(foreign, torch.ones(8))


@pytest.mark.parametrize(("reset", "kept"), [("never", 1.0), ("decay", 0.5)])
def test_what_was_learnt_can_be_kept(reset: str, kept: float) -> None:
    sampler = impon(estimator_init="zeros", reset=reset)
    set_weights(sampler, [1.0, 2.0, 3.0])
    sampler.start_epoch(2)
    assert weights(sampler) == [kept, 2 * kept, 3 * kept]


@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [("growing", [8, 18, 29, 40, 50, 50]), ("shrinking", [50, 40, 29, 18, 8])],
)
def test_bank_grows_or_shrinks_over_the_run(schedule: str, sizes: list[int]) -> None:
    read: list[int] = []

    def features(inputs: Tensor) -> Tensor:
        read.append(len(inputs))
        return inputs

    sampler = impon(bank_schedule=schedule, total_steps=4, features=features)
    read.clear()
    for _ in sizes:
        sampler.draw()
    assert read == pytest.approx(sizes, abs=1)
    with pytest.raises(ConfigError, match="total_steps"):
        impon(bank_schedule=schedule)


@BOTH
def test_rows_can_be_picked_in_proportion(kind: type[Impon], sign: int) -> None:
    rows = flat_rows(torch.tensor([[1.0], [3.0], [4.0]]))
    sampler = impon(
        kind, rows, batch_size=1, bank_size=3, estimator_init="zeros", pick="proportional"
    )
    set_weights(sampler, [1.0, 0.0])
    picked = torch.cat([sampler.draw().rows for _ in range(1500)]).bincount(minlength=3) / 1500
    expected = [1 / 8, 3 / 8, 4 / 8] if sign > 0 else [4 / 7, 2 / 7, 1 / 7]
    assert picked.tolist() == pytest.approx(expected, abs=0.06)


def test_recursive_least_squares_learns_what_is_linear() -> None:
    rows = points(400)
    sampler = impon(rows=rows, estimator="rls", reset="never", bank_size=400)
    true = 3 + rows.inputs[:][:, 0] - 2 * rows.inputs[:][:, 1]
    for _ in range(60):
        draw = sampler.draw()
        sampler.observe(draw, true[draw.rows])
    best = true.topk(8).indices.tolist()
    assert sorted(sampler.draw().rows.tolist()) == sorted(best)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("bank_size", 7, r"batch_size \(8\).*\(120\).*bank_size=7\."),
        ("bank_size", 0, r"bank_size=0\."),
        ("bank_size", 121, r"\(120\).*bank_size=121\."),
        ("estimator_lr", 0.0, r"estimator_lr=0\.0"),
        ("estimator_lr", -1e-6, "estimator_lr=-1e-06"),
        ("estimator_lr", math.nan, "estimator_lr=nan"),
        ("estimator_lr", math.inf, "estimator_lr=inf"),
        ("estimator_init", "ones", "'uniform', 'zeros'.*'ones'"),
        ("features", "pixel", "Did you mean 'pixels'"),
        ("features", "nothing_like_it", "Unknown features 'nothing_like_it'"),
        ("estimator", "adam", "'sgd', 'rls'.*'adam'"),
        ("bank_schedule", "cyclic", "'growing', 'shrinking'.*'cyclic'"),
        ("reset", "always", "'epoch', 'never', 'decay'.*'always'"),
        ("pick", "bottom", "'top', 'proportional'.*'bottom'"),
        ("forgetting", 0.0, r"forgetting=0\.0"),
        ("forgetting", 1.1, r"forgetting=1\.1"),
        ("ridge", 0.0, r"ridge=0\.0"),
    ],
)
@BOTH
def test_option_out_of_its_range_is_refused(
    kind: type[Impon], sign: int, option: str, value: Any, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        impon(kind, **{option: value})


def test_bank_of_a_batch_or_of_all_rows_is_fine() -> None:
    for bank_size in (8, 120):
        assert len(impon(bank_size=bank_size).draw().rows.unique()) == 8


def test_a_new_epoch_mends_a_diverged_estimator() -> None:
    sampler = impon()
    set_weights(sampler, [math.nan, math.nan, math.nan])
    sampler.start_epoch(2)
    assert all(math.isfinite(weight) for weight in weights(sampler))


def test_features_with_gradients_do_not_hold_the_graph() -> None:
    layer = torch.nn.Linear(2, 2)
    sampler = impon(features=layer)
    draw = sampler.draw()
    sampler.observe(draw, torch.ones(len(draw.rows), requires_grad=True))
    assert draw.context is not None
    assert not draw.context.requires_grad
    assert not any(value.requires_grad for value in sampler.state_dict()["estimator"].values())
