"""Runs with random layers: equal, resumed to the bit, in threads, and nothing outside notices."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.own_randomness import OwnRandomness
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.training.runs import CPU, config, numbers, results_in_threads, results_of
from tests.training.test_training_run_resume import assert_resumes

DROPPING = "tests.training.nets:dropping"
IN_PYTHON = "tests.training.nets:DrawsInPython"
RANDOM = [DROPPING, "tests.training.nets:drop_path", "tests.training.nets:AlwaysDrops", IN_PYTHON]


@given(seed=st.integers(0, 2**31 - 1))
def test_a_fourth_seed_leaves_the_other_three_as_they_were(seed: int) -> None:
    three, four = (np.random.SeedSequence(seed).generate_state(n).tolist() for n in (3, 4))
    assert four[:3] == three


def test_what_is_drawn_inside_goes_on_and_outside_nothing_changes() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    own = OwnRandomness(7, CPU)
    found = [torch.rand(2)]
    with own:
        first = torch.rand(3)
    found.append(torch.rand(2))
    with own:
        second = torch.rand(3)
    assert torch.equal(torch.cat(found), expected)
    drawn = torch.rand(6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat([first, second]), drawn)


def test_nested_in_itself_it_goes_on_drawing() -> None:
    own, drawn = OwnRandomness(7, CPU), []
    with own:
        drawn.append(torch.rand(2))
        with own:
            drawn.append(torch.rand(2))
        drawn.append(torch.rand(2))
    expected = torch.rand(6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat(drawn), expected)


def test_an_error_inside_gives_the_state_back() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), OwnRandomness(7, CPU):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    with OwnRandomness(8, CPU):  # and the lock
        pass


def test_state_goes_on_in_another_object() -> None:
    first, second = OwnRandomness(7, CPU), OwnRandomness(8, CPU)
    assert first.state_dict() is None
    with first:
        torch.rand(3)
    second.load_state_dict(first.state_dict())
    with first:
        expected = torch.rand(3)
    with second:
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("model", RANDOM)
def test_two_runs_are_equal_whatever_the_global_state(tiny_splits: Splits, model: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = results_of(tiny_splits, model=model)
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    assert results_of(tiny_splits, model=model) == first
    assert results_of(tiny_splits, model=model, seed=1) != first


def test_a_run_leaves_the_global_state_alone(tiny_splits: Splits) -> None:
    before = torch.get_rng_state()
    numpy, python = np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    for model in (DROPPING, IN_PYTHON):
        results_of(tiny_splits, model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy  # type: ignore[index]
    assert random.getstate() == python


@pytest.mark.parametrize("model", RANDOM)
@pytest.mark.parametrize("weights", ["last", "ema"])
def test_a_run_interrupted_in_the_middle_of_an_epoch_goes_on(
    tiny_splits: Splits, tmp_path: Path, model: str, weights: str
) -> None:
    given_settings = config(model=model, eval_weights=weights, sampler="impon")
    assert_resumes(given_settings, tiny_splits, tmp_path)


def test_a_checkpoint_of_before_is_read(tiny_splits: Splits, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt")
    run = TrainingRun(config(model=DROPPING), tiny_splits)
    run.train_epoch()
    state = run.state_dict()
    del state["randomness"]
    checkpoint.save(state)
    assert len(list(train_epochs(config(model=DROPPING), tiny_splits, checkpoint))) == 2


def test_runs_in_two_threads_are_each_as_if_alone(tiny_splits: Splits) -> None:
    seeds = (0, 1)
    alone = [results_of(tiny_splits, model=DROPPING, seed=seed) for seed in seeds]
    together = results_in_threads(tiny_splits, seeds, model=DROPPING)
    assert [together[seed] for seed in seeds] == alone


def test_two_threads_that_draw_in_turn_do_not_disturb_each_other() -> None:
    owns = [OwnRandomness(seed, CPU) for seed in (1, 2)]
    drawn: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    ready = threading.Barrier(2)

    def draw(at: int) -> None:
        ready.wait()
        for _ in range(200):
            with owns[at]:
                drawn[at] += [torch.rand(1), torch.rand(1)]

    threads = [threading.Thread(target=draw, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, seed in enumerate((1, 2)):
        one_by_one = torch.Generator().manual_seed(seed)
        expected = torch.cat([torch.rand(1, generator=one_by_one) for _ in range(400)])
        assert torch.equal(torch.cat(drawn[at]), expected)


def test_a_model_that_draws_nothing_does_not_pay(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(config(), tiny_splits)
    assert run.training_step.draws == (False, False)

    def entered(self: OwnRandomness) -> None:
        raise AssertionError("exchanged the state for nothing")

    monkeypatch.setattr(OwnRandomness, "__enter__", entered)
    run.train_epoch()
    assert run.state_dict()["randomness"] is None


@pytest.mark.parametrize("model", RANDOM)
def test_a_model_that_draws_is_noticed(tiny_splits: Splits, model: str) -> None:
    assert TrainingRun(config(model=model), tiny_splits).training_step.draws.at_random


def test_layers_that_may_draw_later_are_known_by_their_class(tiny_splits: Splits) -> None:
    given_settings = config(model=DROPPING, model_options={"share": 0.0})
    assert TrainingRun(given_settings, tiny_splits).training_step.draws.at_random


def test_a_reference_by_crossfit_is_the_same_beside_dropout(tiny_splits: Splits) -> None:
    from impon_hpo.training.crossfit import crossfit

    options = {"epochs": 1, "batch_size": 32, "width": 4}
    references = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        reference, _ = crossfit(
            config(model=DROPPING, reference="crossfit", reference_options=options), tiny_splits
        )
        references.append(reference)
    assert torch.equal(references[0].loss, references[1].loss)


def test_numbers_of_the_run_are_those_of_its_own_state(tiny_splits: Splits) -> None:
    run = TrainingRun(config(model=DROPPING), tiny_splits)
    other = TrainingRun(config(model=DROPPING), tiny_splits)
    with other.randomness:
        torch.rand(1)
    assert numbers([run.train_epoch()]) != numbers([other.train_epoch()])
