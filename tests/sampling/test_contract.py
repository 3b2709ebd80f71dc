"""The contract of every batch sampler in the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.table import SAMPLERS, option_types
from tests.sampling.courses import (
    DEVICES,
    N_CLASSES,
    N_ROWS,
    Course,
    assert_finite,
    assert_same,
    assert_well_formed,
    rows_of,
    through_a_file,
)
from tests.sampling.waiting import nothing_waits

every = pytest.mark.parametrize("name", SAMPLERS)
on_each_device = pytest.mark.parametrize("device", DEVICES)
some = settings(max_examples=6)
SEEDS = st.integers(0, 2**31 - 1)
MANY_ROWS = 26_000
"""More than 128 banks, above which a bank is not the beginning of a permutation."""


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """Rows, and rows of a batch, for which every default option is in its range."""
    n_rows = draw(st.integers(200, 500) | st.just(MANY_ROWS))
    return n_rows, draw(st.integers(1, min(n_rows // 5, 60)))


@every
@on_each_device
@given(size=sizes(), seed=SEEDS, n_steps=st.integers(1, 4))
@some
def test_draw_is_well_formed(
    name: str, device: str, size: tuple[int, int], seed: int, n_steps: int
) -> None:
    course = Course(name, *size, seed=seed, device=device)
    for draw in course.epochs(2, n_steps):
        assert_well_formed(draw, course)


@every
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7])
def test_tiny_data_work_or_are_refused_for_an_option(name: str, n_rows: int) -> None:
    known = option_types(name)
    fitting = {"bank_size": n_rows, "fraction": 1.0}
    options: dict[str, Any] = {key: value for key, value in fitting.items() if key in known}
    for batch_size in {1, n_rows}:
        try:
            course = Course(name, n_rows=n_rows, batch_size=batch_size, **options)
        except ConfigError as error:
            assert any(option in str(error) for option in known)  # noqa: PT017
        else:
            for draw in course.epochs(2, 3):
                assert_well_formed(draw, course)


@every
@given(size=sizes(), seed=SEEDS, n_steps=st.integers(1, 4))
@some
def test_same_seed_draws_the_same(
    name: str, size: tuple[int, int], seed: int, n_steps: int
) -> None:
    first, second = (Course(name, *size, seed=seed).epochs(3, n_steps) for _ in range(2))
    assert rows_of(first) == rows_of(second)


@every
def test_other_seeds_and_epochs_draw_other_rows(name: str) -> None:
    result = [rows_of(Course(name, seed=seed).epoch(1, 6)) for seed in range(4)]
    course = Course(name, seed=9)
    result += [rows_of(course.epoch(epoch, 6)) for epoch in (1, 2, 3)]
    assert all(one not in result[:at] for at, one in enumerate(result))


@every
@on_each_device
@given(
    size=sizes(),
    seed=SEEDS,
    n_steps=st.integers(1, 4),
    n_epochs=st.integers(0, 3),
    n_more=st.none() | st.integers(0, 4),
)
@some
def test_loaded_sampler_goes_on_as_the_saved_one(
    name: str,
    device: str,
    size: tuple[int, int],
    seed: int,
    n_steps: int,
    n_epochs: int,
    n_more: int | None,
) -> None:
    saved, loaded = (Course(name, *size, seed=seed, device=device) for _ in range(2))
    saved.epochs(n_epochs, n_steps)
    if n_more is not None:  # in the middle of an epoch
        saved.epoch(n_epochs + 1, n_more)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict(), device))
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())

    following, told = [], []
    for course in (saved, loaded):
        draws = []
        if n_more is not None:
            draws += [course.step() for _ in range(n_steps)]
        told.append(torch.tensor(list(course.sampler.diagnostics().values())))
        following.append(draws + course.epochs(2, n_steps, first=n_epochs + 2))
    for one, other in zip(*following, strict=True):
        assert_same(vars(one), vars(other))
    torch.testing.assert_close(told[0], told[1], rtol=0, atol=0, equal_nan=True)
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())
    assert torch.equal(saved.sampler.visits(), loaded.sampler.visits())


@every
def test_saving_changes_nothing_and_the_state_stays_as_saved(name: str) -> None:
    course, left_alone = Course(name), Course(name)
    course.epoch(1, 3)
    left_alone.epoch(1, 3)
    state = course.sampler.state_dict()
    kept = through_a_file(state)
    course.sampler.diagnostics()
    following = rows_of([course.step() for _ in range(3)] + course.epoch(2, 4))
    assert following == rows_of([left_alone.step() for _ in range(3)] + left_alone.epoch(2, 4))
    assert_same(state, kept)
    # Nor does what is loaded lead back into the state.
    left_alone.sampler.load_state_dict(state)
    left_alone.epoch(2, 3)
    assert_same(state, kept)


@every
def test_state_of_other_data_is_refused(name: str) -> None:
    course, twin = Course(name), Course(name)
    with pytest.raises(ConfigError, match=r"\b241 rows\b.*\b240\b"):
        course.sampler.load_state_dict(Course(name, n_rows=241).sampler.state_dict())
    assert rows_of(course.epoch(1, 3)) == rows_of(twin.epoch(1, 3))


@every
@pytest.mark.parametrize(
    ("losses", "logits"),
    [
        ((9,), None),
        ((7,), (8, N_CLASSES)),
        ((8, 1), None),
        ((1,), None),
        ((), None),
        ((8,), (9, N_CLASSES)),
        ((8,), (7, N_CLASSES)),
        ((8,), ()),
    ],
)
def test_losses_or_logits_of_another_length_are_refused(
    name: str, losses: tuple[int, ...], logits: tuple[int, ...] | None
) -> None:
    course = Course(name)
    course.sampler.start_epoch(1)
    draw = course.sampler.draw(course.forward)
    before = through_a_file(course.sampler.state_dict())
    given = None if logits is None else torch.ones(logits)
    with pytest.raises(ConfigError) as caught:
        course.sampler.observe(draw, torch.ones(losses), given)
    wrong = losses if losses != (8,) else logits
    assert "(8,)" in str(caught.value)
    assert f"shape {wrong}" in str(caught.value)
    assert_same(course.sampler.state_dict(), before)


def some_bad(values: Tensor) -> Tensor:
    values = values.clone()
    for at, bad in enumerate((math.nan, math.inf, -math.inf)):
        values[at] = bad
    return values


BAD: dict[str, Callable[[Tensor], Tensor]] = {
    "some rows": some_bad,
    "all rows nan": lambda values: torch.full_like(values, math.nan),
    "all rows infinite": lambda values: torch.full_like(values, math.inf),
}


@every
@pytest.mark.parametrize("kind", BAD)
def test_losses_that_are_not_finite_are_never_learnt_from(name: str, kind: str) -> None:
    course = Course(name)
    course.epoch(1, 2)
    for _ in range(3):
        draw = course.sampler.draw(course.forward)
        losses, logits = course.losses_of(draw.rows)
        course.sampler.observe(draw, BAD[kind](losses), BAD[kind](logits))
        assert_finite(course.sampler.state_dict())
        assert_well_formed(course.step(), course)
    assert not any(map(math.isinf, course.sampler.diagnostics().values()))
    for draw in course.epochs(2, 3, first=2):
        assert_well_formed(draw, course)
    assert_finite(course.sampler.state_dict())


@every
@pytest.mark.parametrize("n_rows", [N_ROWS, MANY_ROWS])
def test_no_step_would_wait_for_a_gpu(name: str, n_rows: int) -> None:
    course = Course(name, n_rows=n_rows)
    for epoch in (1, 2):
        course.sampler.start_epoch(epoch)
        with nothing_waits():
            steps = [course.step() for _ in range(3)]
        for draw in steps:
            assert_well_formed(draw, course)


@every
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("n_rows", [N_ROWS, MANY_ROWS])
def test_no_step_waits_for_the_gpu(name: str, n_rows: int) -> None:
    course = Course(name, n_rows=n_rows, device="cuda")
    course.epoch(1, 2)  # libraries load at their first use
    course.sampler.start_epoch(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps = [course.step() for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for draw in steps:
        assert_well_formed(draw, course)
