"""One training run: what it yields, what it charges, and what it may read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from impon_hpo.errors import ConfigError, NonFiniteLossError
from impon_hpo.sampling.base import Draw, Forward
from impon_hpo.sampling.methods.uniform import Uniform
from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits, load_splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.settings import training_config
from tests.training.runs import (
    BATCH,
    CPU,
    SECONDS,
    assert_same_state,
    config,
    results_in_threads,
    results_of,
)


class Scoring(Uniform):
    """Trains on the half with the higher loss of twice as many rows."""

    needs_forward = True

    def _draw(self, forward: Forward | None) -> Draw:
        assert forward is not None
        rows = torch.randperm(len(self.rows), generator=self.generator)[: 2 * self.batch_size]
        losses, _ = forward(rows)
        return Draw(rows[losses.topk(self.batch_size).indices])


def test_epochs_are_yielded_from_one_to_the_last(tiny_splits: Splits) -> None:
    assert [one["epoch"] for one in results_of(tiny_splits)] == [1, 2, 3]


def test_nothing_is_trained_before_it_is_asked_for(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = TrainingRun.train_epoch

    def counting(run: TrainingRun, between_steps: Callable[[], None]) -> EpochResult:
        trained.append(run.epoch + 1)
        return real(run, between_steps)

    monkeypatch.setattr(TrainingRun, "train_epoch", counting)
    epochs = train_epochs(config(), tiny_splits)
    assert trained == []
    next(epochs)
    assert trained == [1]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_same_seed_same_numbers_bit_for_bit(sampler: str, tiny_splits: Splits) -> None:
    torch.manual_seed(1)
    first = results_of(tiny_splits, sampler=sampler)
    torch.manual_seed(2)  # the global generator has no say
    assert results_of(tiny_splits, sampler=sampler) == first


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_other_seed_other_numbers(sampler: str, tiny_splits: Splits) -> None:
    first, second = (results_of(tiny_splits, sampler=sampler, seed=seed) for seed in (0, 1))
    assert all(
        one["train_loss"] != other["train_loss"] for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("augment", ["auto", "rand+mixup+tests.training.augmenting:shifted"])
def test_global_random_state_is_left_alone(augment: str, tiny_splits: Splits) -> None:
    before = torch.get_rng_state()
    results_of(tiny_splits, epochs=1, augment=augment)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_the_digits() -> None:
    learning = training_config(
        {"dataset": "digits", "width": 8, "epochs": 3, "batch_size": 32, "lr": 0.05}
    )
    results = list(train_epochs(learning, load_splits(learning, CPU)))
    losses = [result.train_loss for result in results]
    assert losses[2] < losses[1] < losses[0]
    assert losses[2] < 0.5 * losses[0]
    assert results[-1].val_accuracy > 0.8  # chance is 0.1
    assert results[-1].val_loss < 1.0  # log 10 = 2.3 knows nothing


@pytest.mark.parametrize(
    ("fraction", "batch_size", "steps"),
    [(1.0, 32, 10), (0.3, 32, 3), (0.5, 32, 5), (0.01, 32, 1), (1.0, 48, 6), (1.0, 320, 1)],
)
def test_epoch_has_the_share_of_whole_batches_that_was_asked_for(
    fraction: float, batch_size: int, steps: int, tiny_splits: Splits
) -> None:
    result = results_of(tiny_splits, epoch_fraction=fraction, batch_size=batch_size, epochs=1)[0]
    n_validation = len(tiny_splits.validation)
    assert result["rows_trained"] == steps * batch_size
    assert result["rows_scored"] == 0
    assert result["rows_validated"] == n_validation == 162
    assert result["cost"] == 3 * steps * batch_size + n_validation


def test_share_seen_grows_to_all_rows(tiny_splits: Splits) -> None:
    whole = results_of(tiny_splits, epoch_fraction=1.0, epochs=1)
    part = results_of(tiny_splits)
    assert whole[0]["share_seen"] == 1.0
    assert part[0]["share_seen"] == pytest.approx(0.3)
    assert 0.3 < part[1]["share_seen"] < part[2]["share_seen"] <= 0.9
    assert "share_seen" not in part[0]["diagnostics"]


def test_diagnostics_are_finite_numbers_by_name(tiny_splits: Splits) -> None:
    for sampler in SAMPLERS:
        for result in results_of(tiny_splits, sampler=sampler):
            assert "class_balance" in result["diagnostics"]
            assert all(math.isfinite(value) for value in result["diagnostics"].values())


def test_seconds_are_measured(tiny_splits: Splits) -> None:
    result = next(train_epochs(config(), tiny_splits))
    assert all(0 < getattr(result, name) < 60 for name in SECONDS)


def test_scoring_is_charged(tiny_splits: Splits) -> None:
    for result in results_of(tiny_splits, sampler=f"{__name__}:Scoring"):
        assert result["rows_trained"] == 3 * BATCH
        assert result["rows_scored"] == 3 * 2 * BATCH
        assert result["cost"] == 3 * 3 * BATCH + 3 * 2 * BATCH + 162


class Untouchable:
    """A split that cannot be read."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test split was asked for {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was counted")


@pytest.mark.parametrize("sampler", [*sorted(SAMPLERS), f"{__name__}:Scoring"])
def test_training_never_reads_the_test_split(sampler: str, tiny_splits: Splits) -> None:
    secret: Any = Untouchable()
    guarded = dataclasses.replace(tiny_splits, test=secret)
    assert results_of(guarded, sampler=sampler) == results_of(tiny_splits, sampler=sampler)


@pytest.mark.parametrize("sampler", ["uniform", f"{__name__}:Scoring"])
def test_loss_that_is_no_number_ends_the_run_with_its_cost(
    sampler: str, tiny_splits: Splits
) -> None:
    epochs = train_epochs(config(lr=1e30, sampler=sampler), tiny_splits)
    with pytest.raises(
        NonFiniteLossError, match=r"training loss of epoch 1 is (nan|inf)"
    ) as caught:
        next(epochs)
    assert caught.value.cost == 3 * 3 * BATCH + (0 if sampler == "uniform" else 3 * 2 * BATCH)


@pytest.mark.parametrize("poor", [float("nan"), float("inf")])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_run_whose_validation_loss_is_the_metric_and_not_finite_ends(
    tiny_splits: Splits, metric: str, poor: float
) -> None:
    run = TrainingRun(config(metric=metric), tiny_splits)
    torch.nn.init.constant_(run.model.get_parameter("fc.bias"), poor)
    run.train_rows = lambda *given: (1.0, 0)  # type: ignore[method-assign]
    if metric == "accuracy":
        assert not math.isfinite(run.train_epoch().val_loss)
        return
    with pytest.raises(NonFiniteLossError, match=r"validation loss of epoch 1 is nan") as caught:
        run.train_epoch()
    assert caught.value.cost == 3 * 3 * BATCH + len(tiny_splits.validation)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_batch_sampler_changes_neither_initial_weights_nor_crops(
    sampler: str, tiny_splits: Splits
) -> None:
    one, other = (TrainingRun(config(sampler=name), tiny_splits) for name in ("uniform", sampler))
    assert_same_state(one.model.state_dict(), other.model.state_dict())
    images = tiny_splits.train.images[:50]
    assert torch.equal(
        one.training_step.augmentation(images), other.training_step.augmentation(images)
    )


EVERYTHING = "auto+trivial+rand+erase+mixup+cutmix+tests.training.augmenting:shifted"


def test_runs_in_two_threads_have_the_numbers_that_they_have_alone(tiny_splits: Splits) -> None:
    expected = {seed: results_of(tiny_splits, augment=EVERYTHING, seed=seed) for seed in (0, 1)}
    assert results_in_threads(tiny_splits, [0, 1], augment=EVERYTHING) == expected


def test_what_changes_images_has_a_seed_of_its_own(tiny_splits: Splits) -> None:
    plain = TrainingRun(config(augment="crop"), tiny_splits)
    run = TrainingRun(config(augment=f"crop+{EVERYTHING}"), tiny_splits)
    assert_same_state(plain.model.state_dict(), run.model.state_dict())
    assert_same_state(plain.sampler.state_dict(), run.sampler.state_dict())
    images = tiny_splits.train.images[:50]
    crops = [one.training_step.augmentation for one in (plain, run)]
    assert torch.equal(crops[0](images), crops[1](images))
    run.training_step.transforms(images)
    assert torch.equal(crops[0](images), crops[1](images))


def test_evaluation_and_scoring_change_no_image(tiny_splits: Splits) -> None:
    runs = [
        TrainingRun(config(augment=augment), tiny_splits) for augment in ("none", f"{EVERYTHING}")
    ]
    batch = tiny_splits.train.batch(torch.arange(BATCH))
    scores = [run.training_step.score(*batch) for run in runs]
    assert all(torch.equal(one, other) for one, other in zip(*scores, strict=True))
    validated = [run.evaluate(tiny_splits.validation) for run in runs]
    assert validated[0] == validated[1]


def test_mixed_images_are_not_remembered_as_those_of_a_row(tiny_splits: Splits) -> None:
    memory = RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)
    with pytest.raises(ConfigError, match="what a run remembers of its rows would be of mixed"):
        TrainingRun(config(augment="crop+mixup"), tiny_splits, memory)


def test_weights_crops_and_order_have_seeds_of_their_own(tiny_splits: Splits) -> None:
    run = TrainingRun(config(), tiny_splits)
    seeds = {
        run.training_step.augmentation.generator.initial_seed(),
        run.sampler.generator.initial_seed(),
    }
    assert len(seeds) == 2
    assert 0 not in seeds


def test_batch_sampler_that_does_not_fit_the_data_is_refused(tiny_splits: Splits) -> None:
    too_large = config(sampler="impon", sampler_options={"bank_size": 321})
    with pytest.raises(ConfigError, match=r"number of training rows \(320\).* bank_size=321"):
        next(train_epochs(too_large, tiny_splits))
