"""Impon trusted: which rows are left out, when none are, and that the run is then uniform's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler
from impon_hpo.sampling.methods.impon_trusted import ImponTrusted
from impon_hpo.sampling.methods.placebo import Placebo
from impon_hpo.sampling.methods.uniform import Uniform
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import assert_same, deep_model, flat_rows, through_a_file

MODEL = deep_model()
N, N_WRONG = 60, 12


def losses(n: int = N, n_wrong: int = N_WRONG, *, seed: int = 0) -> Tensor:
    """Losses around 0.1, and those of the last rows around 4."""
    spread = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    loss = 0.1 + 0.1 * spread
    loss[n - n_wrong :] = 3.5 + spread[n - n_wrong :]
    return loss


def rows_with(loss: Tensor, labels: Tensor | None = None, trajectory: Tensor | None = None) -> Rows:
    """Rows of two classes, and a reference whose probability of each label is that of its loss."""
    labels = torch.arange(len(loss)) % 2 if labels is None else labels
    right = (-loss).exp()
    probabilities = torch.stack([1 - right, right], dim=1)
    probabilities = torch.where(labels[:, None] == 1, probabilities, probabilities.flip(1))
    reference = Reference(loss, probabilities, trajectory)
    return replace(flat_rows(torch.zeros(len(loss), 1)), labels=labels, reference=reference)


def trusted(loss: Tensor, labels: Tensor | None = None, **given: Any) -> ImponTrusted:
    usual: dict[str, Any] = {"batch_size": 6, "model": MODEL}
    return ImponTrusted(rows_with(loss, labels), **(usual | given))


def visits_of(sampler: BatchSampler, n_epochs: int, n_steps: int) -> Tensor:
    for epoch in range(1, n_epochs + 1):
        sampler.start_epoch(epoch)
        for _ in range(n_steps):
            batch = sampler.draw().rows
            assert len(batch.unique()) == len(batch)
    return sampler.visits()


def test_rows_that_look_wrong_are_never_drawn() -> None:
    sampler = trusted(losses())
    result = visits_of(sampler, 8, 10)
    assert int(result[-N_WRONG:].sum()) == 0
    # An epoch of 60 draws of 48 rows: each once or twice.
    assert int(result[:-N_WRONG].min()) >= 8
    assert int(result[:-N_WRONG].max()) <= 16
    told = sampler.diagnostics()
    assert told["share_wrong"] == pytest.approx(N_WRONG / N, abs=0.01)
    assert told["separation"] > 4
    assert told["share_seen"] == (N - N_WRONG) / N


def test_trusted_rows_are_visited_equally_often() -> None:
    # 1000 epochs of 60 draws of 48 rows: 1250 visits each.
    result = visits_of(trusted(losses()), 1000, 10)[:-N_WRONG].double()
    assert result.mean() == 1250
    # A visit more or less an epoch at a quarter of the epochs: a standard deviation of 13.7.
    assert float((result - 1250).abs().max()) < 5 * 13.7


def as_uniform(loss: Tensor, labels: Tensor | None = None, **options: Any) -> bool:
    """Whether a run draws as that of `uniform` does, with the same generator afterwards."""
    sampler = trusted(loss, labels, **options)
    common: dict[str, Any] = {"batch_size": 6, "model": MODEL}
    plain = Uniform(sampler.rows, **common | {k: options[k] for k in common if k in options})
    same = True
    for epoch in (1, 2, 3):
        if epoch > 1:  # without start_epoch, too
            sampler.start_epoch(epoch)
            plain.start_epoch(epoch)
        for _ in range(17):  # more than an epoch
            same = same and torch.equal(sampler.draw().rows, plain.draw().rows)
    if same:
        assert_same(plain.state_dict()["stream"], sampler.state_dict()["stream"])
        assert torch.equal(plain.generator.get_state(), sampler.generator.get_state())
        assert sampler.diagnostics()["share_wrong"] == 0
    return same


@given(seed=st.integers(0, 10_000), n=st.integers(1000, 1500), batch_size=st.integers(1, 90))
@settings(max_examples=20)
def test_one_peak_draws_as_uniform_to_the_bit(seed: int, n: int, batch_size: int) -> None:
    source = torch.Generator().manual_seed(seed)
    loss = torch.empty(n).exponential_(generator=source)
    assert as_uniform(loss, batch_size=batch_size)


@pytest.mark.parametrize("value", [0.0, 0.7, 20.0])
def test_losses_that_tell_nothing_draw_as_uniform(value: float) -> None:
    assert as_uniform(torch.full((40,), value))


def test_a_hard_class_is_not_a_wrong_one() -> None:
    source = torch.Generator().manual_seed(0)
    labels = (torch.arange(2000) % 8 == 0).long()
    loss = torch.empty(2000).exponential_(generator=source) * torch.where(labels == 1, 8.0, 1.0)
    assert as_uniform(loss, labels)


def test_hard_majority_is_not_taken_for_wrong_labels() -> None:
    assert as_uniform(losses(n_wrong=N - 20))
    assert not as_uniform(losses(n_wrong=20))


def test_rows_that_are_learnt_in_the_end_are_not_wrong() -> None:
    rows = rows_with(losses())
    assert rows.reference is not None
    labels = torch.nn.functional.one_hot(rows.labels, 2).float()
    for of_label, noticed in ((0.3, True), (0.36, False)):  # twice as likely: a third
        probabilities = labels * of_label + (1 - labels) * (1 - of_label)
        reference = replace(rows.reference, probabilities=probabilities)
        sampler = ImponTrusted(replace(rows, reference=reference), batch_size=6, model=MODEL)
        assert (int((visits_of(sampler, 2, 10) == 0).sum()) > 0) is noticed
        assert (sampler.diagnostics()["share_wrong"] > 0) is noticed


def test_separation_decides() -> None:
    measured = trusted(losses()).diagnostics()["separation"]
    assert as_uniform(losses(), separation=measured + 0.01)
    assert not as_uniform(losses(), separation=measured - 0.01)


def test_each_class_loses_the_same_share() -> None:
    labels = (torch.arange(N) % 4 == 0).long()  # 45 rows and 15
    loss = losses()
    loss[labels == 1] += 0.05  # a harder class
    left_out = visits_of(trusted(loss, labels), 6, 10) == 0
    assert Counter(labels[left_out].tolist()) == {0: 9, 1: 3}
    hard = torch.where(labels == 1, 4.0 + torch.arange(N) / N, losses(n_wrong=0))
    left_out = visits_of(trusted(hard, labels), 6, 10) == 0
    assert Counter(labels[left_out].tolist())[1] < 5
    left_out = visits_of(trusted(hard, labels, balance=False), 6, 10) == 0
    assert Counter(labels[left_out].tolist()) == {1: 15}


def test_rows_are_ranked_by_the_later_half_of_the_epochs() -> None:
    early = losses()
    late = torch.where(torch.arange(N) < N_WRONG, 5.0, early)  # at last, the first rows are hard
    trajectory = torch.stack([early, early, late, late])
    rows = rows_with(early, trajectory=trajectory)
    left_out = visits_of(ImponTrusted(rows, batch_size=6, model=MODEL), 4, 10) == 0
    assert left_out.nonzero()[:, 0].tolist() == list(range(N_WRONG))


@given(doubts=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_less_doubt_leaves_out_no_fewer_rows(doubts: tuple[float, float], seed: int) -> None:
    loss = losses(200, 60, seed=seed) + torch.linspace(0, 2, 200)
    n_drawn = [
        int((visits_of(trusted(loss, doubt=doubt, separation=0.1), 1, 33) > 0).sum())
        for doubt in sorted(doubts)
    ]
    assert n_drawn[0] <= n_drawn[1]
    assert n_drawn[0] >= 100


def test_a_batch_is_always_left() -> None:
    sampler = trusted(losses(), batch_size=55)
    result = visits_of(sampler, 3, 2)
    assert int((result > 0).sum()) == 55


def test_it_goes_on_from_a_state_in_the_middle_of_a_second_round() -> None:
    saved, loaded = trusted(losses(), seed=3), trusted(losses(), seed=3)
    saved.start_epoch(1)
    for _ in range(9):
        saved.draw()
    loaded.load_state_dict(through_a_file(saved.state_dict()))
    for epoch in (2, 3):
        for _ in range(4):
            assert torch.equal(saved.draw().rows, loaded.draw().rows)
        saved.start_epoch(epoch)
        loaded.start_epoch(epoch)


def test_placebo_trains_on_as_many_rows_at_random() -> None:
    left_out = torch.zeros(N)
    for seed in range(200):
        sampler = Placebo(
            rows_with(losses()), of="impon-trusted", batch_size=6, model=MODEL, seed=seed
        )
        never = visits_of(sampler.other, 3, 10) == 0
        assert int(never.sum()) == N_WRONG
        left_out += never
    # Each of 60 rows in a fifth of 200 runs: 40 ± 5.7.
    assert float((left_out - 40).abs().max()) < 4.5 * 5.7


def test_placebo_of_one_peak_is_uniform() -> None:
    rows = rows_with(torch.full((N,), 0.5))
    blinded = Placebo(rows, of="impon-trusted", batch_size=6, model=MODEL)
    assert int(visits_of(blinded.other, 1, 10).min()) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"separation": 0.0}, r"separation.*0\.0"),
        ({"doubt": -0.1}, r"doubt must be between 0 and 1, but got doubt=-0\.1"),
        ({"doubt": 1.5}, r"doubt=1\.5"),
    ],
)
def test_option_out_of_its_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        trusted(losses(), **options)


def test_a_reference_is_needed() -> None:
    assert ImponTrusted.wants_reference({})
    with pytest.raises(ConfigError, match="ImponTrusted needs to know"):
        ImponTrusted(flat_rows(torch.zeros(10, 1)), batch_size=2, model=MODEL)
