"""The placebo: another sampler's whole path, and picks that know nothing of its scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Draw
from impon_hpo.sampling.impon import Impon
from impon_hpo.sampling.impon_memory import ImponMemory
from impon_hpo.sampling.placebo import Placebo
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.table import make_sampler
from tests.sampling.courses import Course, deep_model, flat_rows, rows_of, set_weights

N, BATCH = 40, 4
SCORES = torch.arange(float(N)).roll(11)
TOP = SCORES.topk(BATCH).indices.tolist()
BOTTOM = (-SCORES).topk(BATCH).indices.tolist()


def predict_scores(sampler: BatchSampler) -> None:
    assert isinstance(sampler, Impon)
    set_weights(sampler, [1.0, 0.0])


def predict_reference(sampler: BatchSampler) -> None:
    assert isinstance(sampler, ImponMemory)
    state = sampler.estimator.state_dict()
    state["weight"][0] = 1.0
    sampler.estimator.load_state_dict(state)


def see_losses(sampler: BatchSampler) -> None:
    sampler.observe(Draw(torch.arange(N)), 2 * SCORES)  # above the reference by the score


def nothing(sampler: BatchSampler) -> None:
    """Its scores come from elsewhere."""


# The options with which each always takes the rows with the highest `SCORES`, of a bank of all.
ALL: dict[str, tuple[dict[str, Any], Callable[[BatchSampler], None]]] = {
    "impon": ({"bank_size": N}, predict_scores),
    "rho-loss": ({"ratio": 0.1}, nothing),
    "proxy-filter": ({"keep": 0.1}, nothing),
    "impon-paced": ({"easiest": 1.0, "then": "reducible", "bank_size": N}, see_losses),
    "impon-memory": (
        {"temperature": math.inf, "explore": 0.0, "bank_size": N},
        predict_reference,
    ),
}


def make(name: str, options: dict[str, Any]) -> BatchSampler:
    reference = Reference(SCORES, torch.full((N, 2), 0.5), SCORES[None])
    rows = replace(flat_rows(SCORES[:, None]), reference=reference)
    return make_sampler(name, rows, options, batch_size=BATCH, model=deep_model(), total_steps=1000)


def placebo(of: str, options: dict[str, Any] | None = None) -> Placebo:
    made = make("placebo", {"of": of} if options is None else {"of": of, "options": options})
    assert isinstance(made, Placebo)
    return made


def visits(sampler: BatchSampler, n_draws: int) -> Tensor:
    def forward(rows: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * SCORES[rows], torch.zeros(len(rows), 2)

    sampler.start_epoch(1)
    for _ in range(n_draws):
        sampler.draw(forward)
    return sampler.visits().double()


@pytest.mark.parametrize("name", ALL)
def test_picks_are_independent_of_the_scores(name: str) -> None:
    options, prepare = ALL[name]
    sampler, blinded = make(name, options), placebo(name, options)
    prepare(sampler)
    prepare(blinded.other)
    seeing = visits(sampler, 20)
    assert seeing[TOP].tolist() == [20] * BATCH
    assert int(seeing.sum()) == 20 * BATCH
    found = visits(blinded, 500)
    # Each of 40 rows in a tenth of 500 batches: 50 ± 6.7, and 4 rows together 200 ± 13.
    assert float(found[TOP].sum()) == pytest.approx(200, abs=52)
    assert float(found[BOTTOM].sum()) == pytest.approx(200, abs=52)
    # About 39 degrees of freedom: 0.1 % lie above 72.
    assert float((found - 50).square().sum() / 50) < 72


@pytest.mark.parametrize(("ratio", "n_sent"), [(0.1, 80), (0.5, 16)])
def test_cost_of_the_other_is_paid(ratio: float, n_sent: int) -> None:
    course = Course("placebo", of="rho-loss", options={"ratio": ratio})
    course.epoch(1, 3)
    assert course.rows_scored == 3 * n_sent


def test_other_learns_what_it_would() -> None:
    course = Course("placebo", of="impon", options={"estimator_lr": 0.01})
    sampler = course.sampler
    assert isinstance(sampler, Placebo)
    assert isinstance(sampler.other, Impon)
    sampler.start_epoch(1)
    draw = sampler.draw()
    assert draw.context is not None
    assert draw.scores is not None
    before = sampler.other.estimator.state_dict()["bias"]
    sampler.observe(draw, draw.scores + 3)
    # Errors of -3: the bias moves by 2 · 0.01 · 3.
    assert float(sampler.other.estimator.state_dict()["bias"] - before) == pytest.approx(0.06)


def test_a_new_epoch_begins_for_the_other_too() -> None:
    sampler = placebo("impon", {"bank_size": N, "estimator_init": "zeros"})
    predict_scores(sampler.other)
    sampler.start_epoch(2)
    assert isinstance(sampler.other, Impon)
    assert sampler.other.estimator.state_dict()["weight"].tolist() == [0.0, 0.0]


def test_placebo_of_what_has_no_scores_is_the_same() -> None:
    plain, blinded = make("uniform", {}), placebo("uniform")
    for epoch in (1, 2):
        plain.start_epoch(epoch)
        blinded.start_epoch(epoch)
        draws = [(plain.draw(), blinded.draw()) for _ in range(12)]
        assert rows_of([one for one, _ in draws]) == rows_of([other for _, other in draws])


def test_impon_is_the_default() -> None:
    course = Course("placebo")
    assert isinstance(course.sampler, Placebo)
    assert isinstance(course.sampler.other, Impon)


def test_options_reach_the_other() -> None:
    sampler = placebo("impon", {"bank_size": 17, "reset": "never"})
    assert isinstance(sampler.other, Impon)
    assert (sampler.other.bank_size, sampler.other.reset) == (17, "never")
    with pytest.raises(ConfigError, match=r"bank_size must be.*bank_size=41\."):
        placebo("impon", {"bank_size": 41})


def test_sampler_of_the_user_can_be_blinded() -> None:
    sampler = placebo("impon_hpo.sampling.impon:ImponLow", {"bank_size": N})
    assert type(sampler.other).__name__ == "ImponLow"
    assert sampler.other.blind


@pytest.mark.parametrize(
    ("of", "options", "complaint"),
    [
        ("nothing", {}, "Unknown batch sampler 'nothing'.*Known: autoassist, .*upper-bound"),
        ("inpon", {}, "Did you mean 'impon'"),
        ("placebo", {}, "of another batch sampler than a placebo.*of='placebo'"),
        ("impon", {"batch_size": 8}, "'impon' has no option 'batch_size'"),
        ("impon", {"bank_sise": 5}, "Did you mean 'bank_size'"),
        ("uniform", {"bank_size": 8}, "It has no options"),
        ("math:pi", {}, "must be a subclass of BatchSampler"),
        ("proxy-filter", {"keep": 0.0}, r"keep=0\.0"),
    ],
)
def test_other_that_cannot_be_made_is_refused(
    of: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        placebo(of, options)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, False),
        ({"of": "uniform"}, False),
        ({"of": "rho-loss"}, True),
        ({"of": "impon-memory", "options": {"explore": 0.5}}, True),
        ({"of": "curriculum"}, True),
        ({"of": "curriculum", "options": {"difficulty": "my_scores:difficulty"}}, False),
    ],
)
def test_reference_is_wanted_where_the_other_wants_it(
    options: dict[str, Any], wanted: bool
) -> None:
    assert Placebo.wants_reference(options) is wanted


@pytest.mark.parametrize(
    ("of", "needs_forward", "repeats_rows"),
    [("uniform", False, False), ("rho-loss", True, False), ("upper-bound", True, True)],
)
def test_needs_and_repeats_are_those_of_the_other(
    of: str, needs_forward: bool, repeats_rows: bool
) -> None:
    sampler = placebo(of)
    assert sampler.needs_forward is needs_forward
    assert sampler.repeats_rows is repeats_rows
    assert not Placebo.needs_forward  # nor does one change what others are
    assert not Placebo.repeats_rows


def test_diagnostics_are_those_of_the_other() -> None:
    sampler = placebo("impon", {"bank_size": N})
    predict_scores(sampler.other)
    sampler.start_epoch(1)
    for _ in range(3):
        draw = sampler.draw()
        sampler.observe(draw, SCORES[draw.rows])
        predict_scores(sampler.other)
    told = sampler.diagnostics()
    # What was predicted of each row is what was seen, though the choice did not know of it.
    assert (told["rank_correlation"], told["r_squared"]) == pytest.approx((1, 1))
    assert told["share_seen"] == int((sampler.visits() > 0).sum()) / N
