"""AutoAssist: the assistant's steps by hand, which rows are kept, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.autoassist import AutoAssist
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import (
    Course,
    assert_same,
    deep_model,
    field,
    rows_of,
    through_a_file,
)

LN3 = math.log(3)


def sampler_of(
    inputs: list[list[float]],
    labels: list[int],
    w: list[float] | None = None,
    u: list[float] | None = None,
    **given: Any,
) -> AutoAssist:
    """An assistant of two classes whose weights are set, 0 unless told otherwise."""
    rows = Rows(torch.tensor(inputs), torch.tensor(labels), 2)
    settings: dict[str, Any] = {"batch_size": 2, "model": deep_model()}
    sampler = AutoAssist(rows, **(settings | given))
    n_features = len(inputs[0])
    weights = {"w": torch.zeros(n_features), "u": torch.zeros(2)}
    for key, given_weights in (("w", w), ("u", u)):
        if given_weights is not None:
            weights[key] = torch.tensor(given_weights, dtype=torch.float32)
    sampler.load_state_dict(sampler.state_dict() | weights)
    return sampler


def tell(sampler: AutoAssist, rows: list[int], losses: list[float]) -> None:
    picked = torch.tensor(rows)
    context = sampler.rows.read(picked).flatten(1)
    draw = Draw(picked, scores=torch.full((len(rows),), 0.5), context=context)
    sampler.observe(draw, torch.tensor(losses))


def weights_of(sampler: AutoAssist) -> list[float]:
    state = sampler.state_dict()
    return [*state["w"].tolist(), *state["u"].tolist()]


def sums_of(sampler: AutoAssist) -> list[float]:
    return [*sampler.state_dict()["sums"].tolist()]


@pytest.mark.parametrize(
    ("inputs", "labels", "w", "u", "decay", "expected"),
    [
        # p = ½, ½; targets 0, 1; errors ½, -½.
        ([[1, 0], [0, 2]], [0, 1], [0, 0], [0, 0], 0.0, [-0.25, 0.5, -0.25, 0.25]),
        # The same errors; Σ g x = (1.5, -1.5); class 1 is not there and stays.
        ([[1, -1], [-2, 2]], [0, 0], [1, 1], [0, 5], 0.1, [0.2, 1.7, 0.0, 5.0]),
        # p = ¾, ¾; errors ¾, -¼; class 0 is there twice, so it decays twice.
        ([[2, 0], [0, 4]], [0, 0], [0, 0], [LN3, 5], 0.1, [-0.75, 0.5, 0.9 * LN3 - 0.25, 5.0]),
    ],
)
def test_steps_are_those_worked_by_hand(
    inputs: list[list[float]],
    labels: list[int],
    w: list[float],
    u: list[float],
    decay: float,
    expected: list[float],
) -> None:
    given = [[float(value) for value in row] for row in inputs]
    sampler = sampler_of(given, labels, w, u, estimator_lr=1.0, weight_decay=decay)
    tell(sampler, [0, 1], [1.0, 3.0])  # the mean is 2
    assert weights_of(sampler) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("loss", "target"), [(2.70, 0), (2.73, 1)])
def test_target_is_a_loss_above_the_moving_mean(loss: float, target: int) -> None:
    sampler = sampler_of([[0.0]] * 2, [0, 1])
    tell(sampler, [0, 1], [1.0, 1.0])
    assert sums_of(sampler) == pytest.approx([0.5, 0.5])
    before = weights_of(sampler)
    tell(sampler, [0, 1], [loss, 8 - loss])
    # 2.375 / 0.875 is a mean of 2.714.
    assert sums_of(sampler) == pytest.approx([2.375, 0.875])
    assert (weights_of(sampler)[1] > before[1]) is (target == 1)
    assert weights_of(sampler)[2] > before[2]


def test_losses_that_are_not_finite_do_not_count() -> None:
    sampler = sampler_of([[1.0], [1.0], [1.0]], [0, 1, 0], batch_size=3, weight_decay=0.1)
    twin = sampler_of([[1.0], [1.0], [1.0]], [0, 1, 0], batch_size=3, weight_decay=0.1)
    tell(sampler, [0, 1, 2], [1.0, 3.0, math.nan])
    tell(twin, [0, 1], [1.0, 3.0])
    assert weights_of(sampler) == pytest.approx(weights_of(twin), abs=1e-9)
    before = weights_of(sampler), sums_of(sampler)
    tell(sampler, [0, 1, 2], [math.inf, math.nan, -math.inf])
    assert (weights_of(sampler), sums_of(sampler)) == before


def share_of_first(sampler: AutoAssist, n_draws: int = 4000) -> float:
    return sum(int(sampler.draw().rows[0] == 0) for _ in range(n_draws)) / n_draws


@pytest.mark.parametrize(
    ("base", "p", "expected"),
    [
        # Row 0 is always kept; row 1 is the batch where it comes first (½) and is kept (base).
        (0.3, (1.0, 0.0), 0.85),
        (0.0, (1.0, 0.0), 1.0),
        (1.0, (1.0, 0.0), 0.5),
        # First and kept ½ (0.6 + 0.8 · 0.6); both rejected 0.32, then the closer: row 0 with ¾.
        (0.0, (0.6, 0.2), 0.78),
        # Base 0.5 makes these 0.8 and 0.6: ½ (0.8 + 0.4 · 0.8) + 0.08 · ¾.
        (0.5, (0.6, 0.2), 0.62),
        (0.3, (0.4, 0.4), 0.5),
    ],
)
def test_rows_are_kept_as_often_as_worked_by_hand(
    base: float, p: tuple[float, float], expected: float
) -> None:
    u = [
        30.0 * (2 * value - 1) if value in (0, 1) else math.log(value / (1 - value)) for value in p
    ]
    sampler = sampler_of([[0.0]] * 2, [0, 1], u=u, base=base, batch_size=1, bank_size=2)
    assert share_of_first(sampler) == pytest.approx(expected, abs=0.04)
    sampler.blind = True
    assert share_of_first(sampler) == pytest.approx(0.5, abs=0.04)


def test_scores_are_the_probabilities_of_the_rows_picked() -> None:
    inputs = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    sampler = sampler_of(inputs, [0, 0, 1, 1], w=[LN3, 0.0], u=[0.0, LN3], batch_size=4)
    sampler.blind = True  # which only the choice sees
    draw = sampler.draw()
    expected = [[0.75, 0.5, 0.9, 0.75][row] for row in draw.rows.tolist()]
    assert field(draw.scores).tolist() == pytest.approx(expected)
    assert field(draw.context).tolist() == [inputs[row] for row in draw.rows.tolist()]
    assert draw.weights is None


def test_rows_that_are_all_kept_come_in_the_order_of_the_epoch() -> None:
    course = Course("autoassist", base=1.0, batch_size=8)
    course.sampler.start_epoch(1)
    order: Tensor = course.sampler.state_dict()["stream"]["order"]
    for start in (0, 16, 32):  # of a bank of 16 the first 8
        assert course.step().rows.tolist() == order[start : start + 8].tolist()


def test_bank_of_a_batch_sees_every_row_once() -> None:
    course = Course("autoassist", n_rows=48, bank_size=8)
    drawn = [row for batch in rows_of(course.epoch(1, 6)) for row in batch]
    assert sorted(drawn) == list(range(48))


def test_default_bank_is_two_batches_or_all_rows() -> None:
    rows: list[list[float]] = [[0.0]] * 10
    assert sampler_of(rows, [0, 1] * 5, batch_size=3).bank_size == 6
    assert sampler_of(rows, [0, 1] * 5, batch_size=7).bank_size == 10


def test_initial_weights_are_small_and_of_the_seed() -> None:
    rows = Rows(torch.zeros(4, 4000), torch.arange(4) % 2, 2)
    found = [
        AutoAssist(rows, batch_size=2, model=deep_model(), seed=seed).state_dict()["w"]
        for seed in (1, 1, 2)
    ]
    assert float(found[0].std()) == pytest.approx(0.001, rel=0.1)
    assert float(found[0].mean()) == pytest.approx(0, abs=1e-4)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_assistant_learns_which_class_is_hard() -> None:
    rows = [[0.0]] * 100
    sampler = sampler_of(rows, [0, 1] * 50, batch_size=10, bank_size=40, estimator_lr=5.0, base=0.1)
    sampler.start_epoch(1)
    for _ in range(60):
        draw = sampler.draw()
        sampler.observe(draw, 1.0 + sampler.rows.labels[draw.rows])
    assert sampler.diagnostics()["rank_correlation"] > 0.8
    assert "r_squared" not in sampler.diagnostics()
    hard = [float(sampler.rows.labels[sampler.draw().rows].float().mean()) for _ in range(50)]
    assert sum(hard) / 50 > 0.7
    sampler.start_epoch(2)
    assert math.isnan(sampler.diagnostics()["rank_correlation"])


def test_foreign_draw_is_refused() -> None:
    sampler = sampler_of([[0.0]] * 2, [0, 1])
    with pytest.raises(ConfigError, match="draw that this batch sampler returned"):
        sampler.observe(Draw(torch.tensor([0, 1])), torch.ones(2))


def test_loaded_sampler_goes_on_as_the_saved_one() -> None:
    given: dict[str, Any] = {"bank_size": 20, "base": 0.1, "estimator_lr": 1.0, "momentum": 0.5}
    saved, loaded = Course("autoassist", **given), Course("autoassist", **given)
    saved.epoch(1, 5)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    following = [rows_of([course.step() for _ in range(12)]) for course in (saved, loaded)]
    assert following[0] == following[1]
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("base", -0.1, r"base=-0\.1"),
        ("base", 1.1, r"base=1\.1"),
        ("bank_size", 1, r"batch_size \(2\).*bank_size=1\."),
        ("bank_size", 3, r"training rows \(2\).*bank_size=3\."),
        ("estimator_lr", 0.0, r"estimator_lr=0\.0"),
        ("estimator_lr", math.inf, "estimator_lr=inf"),
        ("weight_decay", -0.1, r"weight_decay=-0\.1"),
        ("weight_decay", 1.1, r"weight_decay=1\.1"),
        ("momentum", 1.0, r"below 1, but got momentum=1\.0"),
        ("momentum", -0.1, r"momentum=-0\.1"),
        ("momentum", math.nan, "momentum=nan"),
    ],
)
def test_option_out_of_its_range_is_refused(option: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sampler_of([[0.0]] * 2, [0, 1], **{option: value})
