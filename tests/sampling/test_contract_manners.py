"""The contract of every batch sampler, continued: its manners and what it tells of itself."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.table import SAMPLERS
from tests.sampling.courses import (
    N_CLASSES,
    N_ROWS,
    Course,
    assert_same,
    assert_well_formed,
    leaves,
    rows_of,
)

every = pytest.mark.parametrize("name", SAMPLERS)


@every
@pytest.mark.parametrize("batch_size", [0, -1, N_ROWS + 1])
def test_batch_size_out_of_range_is_refused(name: str, batch_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"batch_size.*\({N_ROWS}\).*={batch_size}\."):
        Course(name, batch_size=batch_size)


@every
@pytest.mark.parametrize("epoch", [0, -1])
def test_epochs_count_from_one(name: str, epoch: int) -> None:
    with pytest.raises(ConfigError, match=f"={epoch}"):
        Course(name).sampler.start_epoch(epoch)


@every
def test_global_random_numbers_are_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    course = Course(name)
    course.epochs(2, 4)
    course.sampler.load_state_dict(course.sampler.state_dict())
    course.sampler.diagnostics()
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_deep_model_and_rows_are_left_alone(name: str) -> None:
    course = Course(name)
    pristine = Course(name)
    course.epochs(2, 4)
    course.sampler.diagnostics()
    assert_same(dict(course.model.state_dict()), dict(pristine.model.state_dict()))
    modes, kept = (
        [module.training for module in one.model.modules()] for one in (course, pristine)
    )
    assert modes == kept
    assert {True, False} == set(modes)
    assert all(p.requires_grad and p.grad is None for p in course.model.parameters())
    assert torch.equal(course.rows.inputs[:], pristine.rows.inputs[:])
    assert torch.equal(course.rows.labels, pristine.rows.labels)


@every
def test_losses_with_gradients_leave_none_behind(name: str) -> None:
    course = Course(name)
    course.sampler.start_epoch(1)
    draw = course.sampler.draw(course.forward)
    losses, logits = course.losses_of(draw.rows)
    course.sampler.observe(draw, losses.requires_grad_() * 1, logits.requires_grad_() * 1)
    assert_well_formed(course.sampler.draw(course.forward), course)
    for where, value in leaves(course.sampler.state_dict()):
        assert not (isinstance(value, Tensor) and value.requires_grad), where


@every
def test_forward_is_called_only_where_it_is_said_to_be_needed(name: str) -> None:
    course, alone = Course(name), Course(name)
    draws = course.epochs(3, 5)
    alone.sampler.start_epoch(1)
    if course.sampler.needs_forward:
        with pytest.raises(ConfigError, match=r"draw\(forward\)"):
            alone.sampler.draw()
    else:
        assert course.rows_scored == 0
        assert alone.sampler.draw().rows.tolist() == draws[0].rows.tolist()


@every
@given(n_steps=st.lists(st.integers(0, 6), min_size=1, max_size=4), batch_size=st.integers(1, 48))
@settings(max_examples=6)
def test_visits_and_diagnostics_count_the_rows_drawn(
    name: str, n_steps: list[int], batch_size: int
) -> None:
    course = Course(name, batch_size=batch_size)
    n_seen: Counter[int] = Counter()
    for epoch, steps in enumerate(n_steps, start=1):
        batches = rows_of(course.epoch(epoch, steps))
        in_epoch = [row for batch in batches for row in batch]
        n_seen.update(in_epoch)

        visits = course.sampler.visits()
        assert visits.dtype == torch.int32
        assert visits.tolist() == [n_seen[row] for row in range(N_ROWS)]
        assert int(visits.sum()) == batch_size * sum(n_steps[:epoch])

        told = course.sampler.diagnostics()
        assert told["share_seen"] == pytest.approx(len(n_seen) / N_ROWS)
        classes = Counter(row % N_CLASSES for row in in_epoch)
        shares = [count / len(in_epoch) for count in classes.values()]
        entropy = -sum(share * math.log(share) for share in shares)
        assert told["class_balance"] == pytest.approx(entropy / math.log(N_CLASSES), abs=1e-9)


@every
def test_diagnostics_are_plain_finite_numbers_or_nan(name: str) -> None:
    course = Course(name, batch_size=12)
    for epoch in (1, 2):
        course.sampler.start_epoch(epoch)
        course.sampler.diagnostics()  # before the first draw
        keys = set()
        for _ in range(4):
            course.step()
            told = course.sampler.diagnostics()
            keys.add(tuple(told))
            assert all(type(value) is float and not math.isinf(value) for value in told.values())
            assert 0 < told["share_seen"] <= 1
            assert 0 <= told["class_balance"] <= 1
        assert len(keys) == 1


@every
def test_visits_outlast_a_checkpoint(name: str) -> None:
    saved, loaded = Course(name), Course(name)
    saved.epoch(1, 5)
    loaded.epoch(1, 1)  # to be forgotten
    loaded.sampler.load_state_dict(saved.sampler.state_dict())
    assert torch.equal(loaded.sampler.visits(), saved.sampler.visits())
    assert int(loaded.sampler.visits().sum()) == 5 * 8
    told = loaded.sampler.diagnostics()
    assert told["share_seen"] == saved.sampler.diagnostics()["share_seen"]
