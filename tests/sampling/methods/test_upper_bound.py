"""The upper bound: its norm and τ by hand, when scores come into use, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.upper_bound import UpperBound, logit_gradient_norm, variance_ratio
from tests.sampling.courses import (
    Course,
    assert_finite,
    assert_same,
    assert_well_formed,
    deep_model,
    field,
    flat_rows,
    rows_of,
    through_a_file,
)
from tests.sampling.waiting import nothing_waits

# Of labels 0 and 1, the wrong class has 0.1 and 0.3: scores √2 · 0.1 and √2 · 0.3.
ONE_TO_THREE = torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log()
TAU_OF_ONE_TO_THREE = 1.1180340  # g = ¼, ¾; 1/τ = √(1 - 0.125 / 0.625)


class Told:
    """A forward pass that gives each row its logits, and notes the rows it is given."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.calls: list[list[int]] = []

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(rows.tolist())
        return torch.ones(len(rows)), self.logits[rows]


def sampler_of(n_rows: int = 2, batch_size: int = 2, **given: Any) -> UpperBound:
    """Row i has label i mod 2."""
    settings: dict[str, Any] = {"batch_size": batch_size, "model": deep_model()}
    return UpperBound(flat_rows(torch.zeros(n_rows, 1)), **(settings | given))


def switched_on(n_rows: int = 2, batch_size: int = 2, **given: Any) -> UpperBound:
    sampler = sampler_of(n_rows, batch_size, tau_th=0.5, **given)
    sampler.start_epoch(1)
    return sampler


def tau(sampler: UpperBound) -> float:
    return sampler.diagnostics()["tau"]


def tell(sampler: UpperBound, logits: Tensor | None) -> None:
    sampler.observe(Draw(torch.tensor([0, 1])), torch.ones(2), logits)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 3.0], TAU_OF_ONE_TO_THREE),
        ([0.2, 0.6], TAU_OF_ONE_TO_THREE),
        ([1.0, 3.0, math.nan], TAU_OF_ONE_TO_THREE),
        ([math.inf, 1.0, 3.0], TAU_OF_ONE_TO_THREE),
        ([5.0, 0.0, 0.0, 0.0], 2.0),
        ([0.7, 0.7, 0.7], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        ([math.nan, math.nan], 1.0),
        ([2.0], 1.0),
    ],
)
def test_variance_ratio_is_that_worked_by_hand(scores: list[float], expected: float) -> None:
    assert float(variance_ratio(torch.tensor(scores))) == pytest.approx(expected, abs=1e-6)


def test_variance_ratio_is_that_of_the_formula_of_the_paper() -> None:
    scores = torch.rand(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = scores / scores.sum()
    inverse = torch.sqrt(1 - (g - 1 / 60).square().sum() / g.square().sum())
    assert float(variance_ratio(scores)) == pytest.approx(float(1 / inverse), rel=1e-9)


def test_tau_follows_the_batches_of_training() -> None:
    sampler = sampler_of()
    assert tau(sampler) == 1
    tell(sampler, ONE_TO_THREE)
    assert tau(sampler) == pytest.approx(0.9 + 0.1 * TAU_OF_ONE_TO_THREE)
    tell(sampler, torch.zeros(2, 2))  # scores alike
    assert tau(sampler) == pytest.approx(0.81 + 0.09 * TAU_OF_ONE_TO_THREE + 0.1)


def test_momentum_says_what_tau_keeps() -> None:
    for momentum, expected in ((0.0, TAU_OF_ONE_TO_THREE), (0.5, 1.0590170), (1.0, 1.0)):
        sampler = sampler_of(tau_momentum=momentum)
        tell(sampler, ONE_TO_THREE)
        assert tau(sampler) == pytest.approx(expected, abs=1e-6)


def test_tau_stays_where_there_is_nothing_to_learn() -> None:
    sampler = sampler_of()
    tell(sampler, ONE_TO_THREE)
    before = tau(sampler)
    tell(sampler, None)
    tell(sampler, torch.full((2, 2), math.nan))
    tell(sampler, torch.full((2, 2), math.inf))
    assert tau(sampler) == before
    assert_finite(sampler.state_dict())


def test_scores_come_into_use_at_the_epoch_after_tau_passed_its_threshold() -> None:
    forward = Told(ONE_TO_THREE)
    for tau_th, expected in ((1.01, 1.0), (1.02, 0.0)):
        sampler = sampler_of(tau_th=tau_th)
        sampler.start_epoch(1)
        tell(sampler, ONE_TO_THREE)  # τ = 1.0118
        assert sampler.draw(forward).weights is None
        assert sampler.diagnostics()["importance_on"] == 0
        assert forward.calls == []
        sampler.start_epoch(2)
        assert sampler.diagnostics()["importance_on"] == expected
    assert sampler.draw(forward).weights is None
    assert forward.calls == []


def test_scores_go_out_of_use_when_tau_falls() -> None:
    sampler = sampler_of(tau_th=1.01, tau_momentum=0.0)
    tell(sampler, ONE_TO_THREE)
    sampler.start_epoch(1)
    assert sampler.draw(Told(torch.zeros(2, 2))).weights is not None
    assert tau(sampler) == pytest.approx(1)
    sampler.start_epoch(2)
    assert sampler.draw(Told(torch.zeros(2, 2))).weights is None
    assert sampler.diagnostics()["importance_on"] == 0


@pytest.mark.parametrize(("presample", "expected"), [(None, 2.0), (12, 2.0), (24, 3.0), (4, 4 / 3)])
def test_threshold_is_by_default_that_of_the_paper(presample: int | None, expected: float) -> None:
    assert sampler_of(20, 4, presample=presample).tau_th == pytest.approx(expected)


def test_batches_are_those_of_shuffled_epochs_until_scores_are_used() -> None:
    sampler = sampler_of(12, 4)
    forward = Told(torch.zeros(12, 2))
    for _ in range(2):
        draws = [sampler.draw(forward) for _ in range(3)]
        assert sorted(row for batch in rows_of(draws) for row in batch) == list(range(12))
    assert forward.calls == []


def test_weights_are_those_worked_by_hand() -> None:
    sampler = switched_on(presample=5)
    forward = Told(ONE_TO_THREE)
    seen = set()
    for _ in range(50):
        draw = sampler.draw(forward)
        n_low, n_high = forward.calls[-1].count(0), forward.calls[-1].count(1)
        assert n_low + n_high == 5
        # Scores 1 and 3, so row 0 has g = 1 / total and the weight total / 5.
        total = n_low + 3 * n_high
        expected = [total / 5 if row == 0 else total / 15 for row in draw.rows.tolist()]
        assert field(draw.weights).tolist() == pytest.approx(expected, rel=1e-5)
        seen.update(draw.rows.tolist())
    assert seen == {0, 1}


def share_of_row_one(sampler: UpperBound) -> tuple[float, float]:
    """Return the share of row 1 among the rows drawn, and the mean of all weights."""
    forward = Told(ONE_TO_THREE)
    draws = [sampler.draw(forward) for _ in range(300)]
    rows = torch.cat([draw.rows for draw in draws]).double()
    weights = torch.cat([field(draw.weights) for draw in draws])
    return float(rows.mean()), float(weights.mean())


def test_rows_are_drawn_in_proportion_to_their_scores() -> None:
    share, weight = share_of_row_one(switched_on(presample=500, batch_size=2, n_rows=2))
    assert share == pytest.approx(0.75, abs=0.06)
    assert weight == pytest.approx(1, abs=0.1)


def test_placebo_draws_all_rows_alike_with_the_weights_of_its_choice() -> None:
    sampler = switched_on(presample=500)
    sampler.blind = True
    share, weight = share_of_row_one(sampler)
    assert share == pytest.approx(0.5, abs=0.07)
    assert weight == pytest.approx(1, abs=0.1)
    assert tau(sampler) == pytest.approx(TAU_OF_ONE_TO_THREE, abs=0.02)


def test_presample_is_uniform_with_replacement() -> None:
    sampler = switched_on(4, 2, presample=1000)
    forward = Told(torch.zeros(4, 2))
    sampler.draw(forward)
    counts = torch.tensor(forward.calls[0]).bincount(minlength=4)
    assert (counts / 1000).tolist() == pytest.approx([0.25] * 4, abs=0.06)


def test_presample_is_three_batches_by_default() -> None:
    course = Course("upper-bound", batch_size=5, tau_th=0.5)
    course.epoch(1, 2)
    assert course.rows_scored == 2 * 15


def test_tau_follows_the_presample_alone_while_scores_are_used() -> None:
    sampler = switched_on(1, 1, presample=4, tau_momentum=0.5)
    draw = sampler.draw(Told(torch.tensor([[0.0, 1.0]])))  # one row, so τ' = 1
    assert tau(sampler) == 1
    sampler.observe(draw, torch.ones(1), torch.tensor([[3.0, 1.0]]))
    assert tau(sampler) == 1
    sampler = switched_on(presample=1000, tau_momentum=0.0)
    sampler.draw(Told(ONE_TO_THREE))
    assert tau(sampler) == pytest.approx(TAU_OF_ONE_TO_THREE, abs=0.03)
    kept = tau(sampler)
    tell(sampler, torch.zeros(2, 2))
    assert tau(sampler) == kept


def test_rows_are_equally_likely_where_no_score_tells_them_apart() -> None:
    sure = torch.tensor([[200.0, 0.0], [0.0, 200.0]])  # p = onehot, so all scores are 0
    for logits in (sure, torch.full((2, 2), math.nan), torch.zeros(2, 2)):
        sampler = switched_on(batch_size=8, n_rows=8, presample=8)
        draws = [sampler.draw(Told(logits.repeat(4, 1))) for _ in range(500)]
        picked = torch.cat([draw.rows for draw in draws])
        assert (picked.bincount(minlength=8) / 4000).tolist() == pytest.approx(
            [1 / 8] * 8, abs=0.03
        )
        assert all(field(draw.weights).tolist() == pytest.approx([1.0] * 8) for draw in draws)
        assert tau(sampler) == pytest.approx(1)


def test_rows_whose_score_is_not_finite_are_not_drawn() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.nan, 0.0], [0.0, 0.0], [math.inf, 0.0]])
    sampler = switched_on(4, 4, presample=40)
    draws = [sampler.draw(Told(logits)) for _ in range(20)]
    assert {row for draw in draws for row in draw.rows.tolist()} == {0, 2}
    assert tau(sampler) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presample": 3}, r"presample must be at least batch_size \(4\).*presample=3"),
        ({"tau_th": 0.0}, r"tau_th must be positive.*tau_th=0"),
        ({"tau_th": math.inf}, r"tau_th must be .*finite.*tau_th=inf"),
        ({"tau_momentum": -0.1}, r"tau_momentum must be between 0 and 1.*tau_momentum=-0\.1"),
        ({"tau_momentum": 1.1}, r"tau_momentum must be between 0 and 1.*tau_momentum=1\.1"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler_of(10, 4, **options)


def test_presample_of_a_batch_or_of_more_than_all_rows_works() -> None:
    for presample in (8, 500):
        course = Course("upper-bound", n_rows=20, tau_th=0.5, presample=presample)
        for draw in course.epochs(2, 3):
            assert_well_formed(draw, course)


@pytest.mark.parametrize("tau_th", [0.5, 1.0005, 2.0])
def test_loaded_sampler_goes_on_in_the_middle_of_an_epoch(tau_th: float) -> None:
    saved, loaded = (Course("upper-bound", tau_th=tau_th) for _ in range(2))
    saved.epochs(2, 4)
    saved.epoch(3, 2)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    assert (saved.rows_scored > 0) is (tau_th < 2)
    for _ in range(3):
        assert_same(vars(saved.step()), vars(loaded.step()))
    for one, other in zip(saved.epochs(2, 3, first=4), loaded.epochs(2, 3, first=4), strict=True):
        assert_same(vars(one), vars(other))
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())


def test_no_step_would_wait_for_a_gpu_while_scores_are_used() -> None:
    course = Course("upper-bound", tau_th=0.5)
    course.sampler.start_epoch(1)
    with nothing_waits():
        draws = [course.step() for _ in range(3)]
    for draw in draws:
        assert_well_formed(draw, course)
    assert course.rows_scored == 3 * 24


def test_norms_are_those_worked_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]] * 2).log()
    # The differences are (-0.5, 0.3, 0.2) and (0.5, 0.3, -0.8).
    result = logit_gradient_norm(logits, torch.tensor([0, 2]))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx([math.sqrt(0.38), math.sqrt(0.98)])


def test_norms_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 7, generator=generator)
    labels = torch.randint(7, (50,), generator=generator)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(leaf, labels, reduction="sum"), leaf)
    torch.testing.assert_close(logit_gradient_norm(logits, labels), gradient.norm(dim=1))


def test_rows_learnt_almost_perfectly_keep_their_differences() -> None:
    logits = torch.tensor([[20.0, 0.0], [22.0, 0.0]])
    result = logit_gradient_norm(logits, torch.tensor([0, 0]))
    # √2 / (1 + e²⁰) and √2 / (1 + e²²); 1 - p itself is 0 in float32
    assert result.tolist() == pytest.approx([2.914911e-9, 3.944903e-10], rel=1e-4)


def test_norms_of_half_precision_are_computed_in_float32() -> None:
    logits = torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16)
    # √2 / (1 + e²)
    result = logit_gradient_norm(logits, torch.tensor([0]))
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(0.1685789, rel=1e-5)


def test_norms_without_meaning_are_nan() -> None:
    logits = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1.0, 1.0]])
    result = logit_gradient_norm(logits, torch.tensor([1, 1, 1]))
    assert result.isnan().tolist() == [True, True, False]
