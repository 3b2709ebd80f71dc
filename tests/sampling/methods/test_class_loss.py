"""Class loss: moving statistics of each class by hand, choice in proportion, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.class_loss import ClassLoss
from tests.sampling.courses import (
    Course,
    assert_finite,
    assert_same,
    deep_model,
    field,
    flat_rows,
    rows_of,
    through_a_file,
)


def sampler_of(n_rows: int = 3, n_classes: int = 3, **given: Any) -> ClassLoss:
    """Row i is of class i mod `n_classes`; by default one row a class, all in the bank."""
    settings: dict[str, Any] = {"batch_size": 1, "bank_size": n_rows, "model": deep_model()}
    return ClassLoss(flat_rows(torch.zeros(n_rows, 1), n_classes), **(settings | given))


def tell(sampler: ClassLoss, rows: list[int], losses: list[float]) -> None:
    sampler.observe(Draw(torch.tensor(rows)), torch.tensor(losses))


def statistics(sampler: ClassLoss) -> tuple[list[float], list[float]]:
    mean, score = sampler.class_statistics()
    return mean.tolist(), score.tolist()


def shares(sampler: ClassLoss, n_draws: int = 4000) -> list[float]:
    picked = torch.cat([sampler.draw().rows for _ in range(n_draws)])
    return (picked.bincount(minlength=3) / n_draws).tolist()


def test_means_and_spreads_are_those_worked_by_hand() -> None:
    sampler = sampler_of(6, 2, batch_size=3, alpha=0.5)
    # Class 0 sees 1, then 3: weights ⅓ and ⅔, mean 7/3, variance 8/9. Class 1 sees 2 alone.
    tell(sampler, [0, 2, 1], [1.0, 3.0, 2.0])
    mean, score = statistics(sampler)
    assert mean == pytest.approx([2.3333333, 2.0])
    assert score == pytest.approx([3.2761424, 2.0])
    # Then class 0 sees 2: weights 1/7, 2/7, 4/7, mean 15/7, variance 20/49; class 1 nothing.
    tell(sampler, [1, 4, 3], [math.nan, 2.0, math.inf])
    mean, score = statistics(sampler)
    assert mean == pytest.approx([2.1428571, 2.0])
    assert score == pytest.approx([2.7817340, 2.0])


def test_one_batch_counts_as_its_rows_one_after_the_other() -> None:
    at_once, in_turn = (sampler_of(6, 2, batch_size=size, alpha=0.7) for size in (4, 1))
    rows, losses = [5, 0, 3, 1], [0.3, 2.0, 1.1, 0.8]
    tell(at_once, rows, losses)
    for row, loss in zip(rows, losses, strict=True):
        tell(in_turn, [row], [loss])
    for ours, theirs in zip(statistics(at_once), statistics(in_turn), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_unseen_classes_have_the_highest_score() -> None:
    sampler = sampler_of(alpha=0.0)
    for told in statistics(sampler):
        assert told == pytest.approx([1.0986123] * 3)
    tell(sampler, [1], [0.2])
    tell(sampler, [0], [0.7])
    assert statistics(sampler)[1] == pytest.approx([0.7, 0.2, 0.7])
    tell(sampler, [2], [0.1])
    assert statistics(sampler)[1] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [1 / 8, 3 / 8, 4 / 8]),
        ({"smoothing": 1.0}, [11 / 48, 17 / 48, 20 / 48]),
        ({"pick": "top"}, [0.0, 0.0, 1.0]),
    ],
)
def test_rows_are_picked_by_the_score_of_their_class(
    given: dict[str, Any], expected: list[float]
) -> None:
    sampler = sampler_of(alpha=0.0, **given)
    for row, loss in enumerate([1.0, 3.0, 4.0]):
        tell(sampler, [row], [loss])
    assert shares(sampler) == pytest.approx(expected, abs=0.04)


def test_equal_losses_and_placebos_pick_uniformly() -> None:
    equal, blind = sampler_of(), sampler_of(alpha=0.0, pick="top")
    blind.blind = True
    for row, loss in enumerate([1.0, 3.0, 4.0]):
        tell(equal, [row], [0.5])
        tell(blind, [row], [loss])
    assert shares(equal) == pytest.approx([1 / 3] * 3, abs=0.04)
    assert shares(blind) == pytest.approx([1 / 3] * 3, abs=0.04)


def test_losses_of_zero_and_one_class_still_pick_all_rows() -> None:
    sampler = sampler_of(3, 1)
    assert shares(sampler, 1000) == pytest.approx([1 / 3] * 3, abs=0.08)
    tell(sampler, [0], [0.0])
    assert shares(sampler, 1000) == pytest.approx([1 / 3] * 3, abs=0.08)


def test_bank_of_a_batch_is_the_batch() -> None:
    sampler = sampler_of(20, 3, batch_size=20)
    tell(sampler, list(range(20)), [float(row % 3) for row in range(20)])
    assert sorted(sampler.draw().rows.tolist()) == list(range(20))


def test_predictions_are_the_means_and_their_fit_is_told() -> None:
    sampler = sampler_of(30, 3, batch_size=12, alpha=0.0)
    sampler.start_epoch(1)
    assert math.isnan(sampler.diagnostics()["rank_correlation"])
    for row, loss in enumerate([1.0, 3.0, 2.0]):
        sampler.observe(Draw(torch.tensor([row])), torch.tensor([loss]))
    draw = sampler.draw()
    expected = torch.tensor([1.0, 3.0, 2.0])[draw.rows % 3]
    assert field(draw.scores).tolist() == pytest.approx(expected.tolist())
    sampler.observe(draw, expected**2)
    assert sampler.diagnostics()["rank_correlation"] == pytest.approx(1)
    sampler.start_epoch(2)
    draw = sampler.draw()
    sampler.observe(draw, -field(draw.scores))
    assert sampler.diagnostics()["rank_correlation"] == pytest.approx(-1)


def test_losses_beyond_measure_leave_a_finite_state() -> None:
    sampler = sampler_of()
    tell(sampler, [0], [3e38])
    tell(sampler, [1], [math.nan])
    assert_finite(sampler.state_dict())
    mean, _ = statistics(sampler)
    assert mean == pytest.approx([3e38] * 3)


def test_loaded_sampler_goes_on_as_the_saved_one() -> None:
    given: dict[str, Any] = {"bank_size": 60, "alpha": 0.6, "smoothing": 0.3}
    saved, loaded = Course("class-loss", **given), Course("class-loss", **given)
    saved.epoch(1, 5)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    following = [rows_of([course.step() for _ in range(5)]) for course in (saved, loaded)]
    assert following[0] == following[1]
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("bank_size", 0, r"bank_size=0\."),
        ("bank_size", 4, r"training rows \(3\).*bank_size=4\."),
        ("alpha", 1.0, r"below 1, but got alpha=1\.0"),
        ("alpha", -0.1, r"alpha=-0\.1"),
        ("alpha", math.nan, "alpha=nan"),
        ("smoothing", -0.1, r"smoothing=-0\.1"),
        ("smoothing", math.inf, "smoothing=inf"),
        ("pick", "bottom", "'proportional', 'top'.*'bottom'"),
    ],
)
def test_option_out_of_its_range_is_refused(option: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sampler_of(**{option: value})
