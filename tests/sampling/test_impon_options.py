"""The options of Impon: what each changes, and the ranges that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.impon import Impon, ImponLow
from tests.sampling.courses import flat_rows, impon, points, set_weights, weights

BOTH = pytest.mark.parametrize(("kind", "sign"), [(Impon, 1), (ImponLow, -1)])


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
    true = 3 + rows.inputs[:, 0] - 2 * rows.inputs[:, 1]
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
