"""Cross-fitting: who judges whom, what it tells, and what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.reference import Reference
from impon_hpo.training import crossfit as crossfit_module
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.crossfit import crossfit, crossfit_settings
from impon_hpo.training.images import Images
from impon_hpo.training.models import build_model, forward_flops
from impon_hpo.training.splits import Split, Splits, load_splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.runs import CPU, config


def made(splits: Splits, **options: Any) -> tuple[Reference, int]:
    usual = {"epochs": 2, "width": 4, "batch_size": 32}
    return crossfit(config(reference_options=usual | options), splits)


def test_no_row_is_judged_by_a_model_that_saw_it(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds: list[tuple[set[bytes], set[bytes]]] = []

    class Noting(TrainingRun):
        def __init__(self, config: TrainingConfig, splits: Splits) -> None:
            super().__init__(config, splits)
            trained, judged = (
                {image.numpy().tobytes() for image in split.images}
                for split in (splits.train, splits.validation)
            )
            folds.append((trained, judged))

    monkeypatch.setattr(crossfit_module, "TrainingRun", Noting)
    made(tiny_splits, folds=3)
    everyone = {image.numpy().tobytes() for image in tiny_splits.train.images}
    assert len(folds) == 3
    for trained, judged in folds:
        assert not trained & judged
        assert trained | judged == everyone
    assert set.union(*(judged for _, judged in folds)) == everyone


@pytest.mark.parametrize("folds", [2, 3])
def test_rows_of_a_group_are_judged_together(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    # Twins of one label; labels alternate, which must not make a fold of each.
    groups = torch.arange(320, device=CPU) // 2
    images = np.arange(320, dtype=np.int16).view(np.uint8).reshape(320, 1, 2, 1)
    train = Split(Images(images.repeat(4, 1).repeat(2, 2)), groups % 2, groups=groups)
    judged: list[list[int]] = []

    class Noting(TrainingRun):
        def __init__(self, config: TrainingConfig, splits: Splits) -> None:
            super().__init__(config, splits)
            pixels = splits.validation.images[:].long()
            judged.append((pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 2, 0]).tolist())
            assert splits.validation.labels.bincount(minlength=2).min() > 30

    monkeypatch.setattr(crossfit_module, "TrainingRun", Noting)
    made(dataclasses.replace(tiny_splits, train=train, class_names=("a", "b")), folds=folds)
    assert sorted(row for fold in judged for row in fold) == list(range(320))
    for fold in judged:
        assert all(row ^ 1 in fold for row in fold)
        assert abs(len(fold) - 320 / folds) <= 2


def test_more_folds_than_groups_are_refused(tiny_splits: Splits) -> None:
    train = dataclasses.replace(tiny_splits.train, groups=torch.arange(320) % 3)
    with pytest.raises(ConfigError, match=r"groups of the training images \(3\), but is 5"):
        made(dataclasses.replace(tiny_splits, train=train), folds=5)


def test_it_is_the_same_every_time(tiny_splits: Splits) -> None:
    torch.manual_seed(1)
    first, _ = made(tiny_splits)
    torch.manual_seed(2)
    second, _ = made(tiny_splits)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.probabilities, second.probabilities)


def test_it_knows_the_digits_better_than_chance() -> None:
    whole = config(subset=None, reference_options={"epochs": 4, "width": 8, "batch_size": 32})
    splits = load_splits(whole, CPU)
    reference, _ = crossfit(whole, splits)
    right = (reference.probabilities.argmax(1) == splits.train.labels).double().mean()
    assert float(right) > 0.5  # chance is 0.1
    torch.testing.assert_close(
        reference.probabilities.sum(1), torch.ones(len(splits.train)), atol=1e-4, rtol=0.0
    )
    assert reference.trajectory is not None
    assert reference.trajectory.shape == (4, len(splits.train))
    assert reference.trajectory[-1].mean() < reference.trajectory[0].mean()
    torch.testing.assert_close(reference.loss, reference.trajectory[2:].mean(0))


def test_cost_is_that_of_the_passes_in_passes_of_the_study_s_model(tiny_splits: Splits) -> None:
    _, cost = made(tiny_splits)
    # Two folds of 160 rows, five batches of 32 each, two epochs; every row judged twice. The model
    # is as wide as the study's, so a pass costs the same.
    assert cost == 3 * (2 * 2 * 5 * 32) + 2 * 320
    _, narrow_cost = made(tiny_splits, width=2)
    assert 0.2 < narrow_cost / cost < 0.4  # about a quarter


def test_smaller_images_cost_less(tiny_splits: Splits) -> None:
    assert made(tiny_splits, image_size=4)[1] < made(tiny_splits)[1]


def test_smaller_images_are_charged_by_what_the_small_model_multiplies(
    tiny_splits: Splits,
) -> None:
    options = {"epochs": 2, "width": 4, "batch_size": 32, "image_size": 4}
    linear = config(model="tests.training.runs:linear", reference_options=options)
    small = forward_flops(build_model(config(width=4), tiny_splits, seed=0), (1, 4, 4))
    passes = 3 * (2 * 2 * 5 * 32) + 2 * 320
    _, cost = crossfit(linear, tiny_splits)
    assert cost == round(passes * small / (2 * 64 * 10))  # a linear layer of 64 × 10


def test_what_the_study_searches_does_not_change_it(tiny_splits: Splits) -> None:
    options = {"epochs": 2, "width": 4, "batch_size": 32}
    other = config(
        lr=0.9,
        optimizer="adam",
        label_smoothing=0.2,
        batch_size=64,
        epochs=7,
        seed=3,
        eval_weights="ema",
        sampler="impon-memory",
        reference_options=options,
    )
    (first, _), (second, _) = made(tiny_splits), crossfit(other, tiny_splits)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.probabilities, second.probabilities)


def test_small_models_that_diverge_leave_plain_numbers(tiny_splits: Splits) -> None:
    reference, _ = made(tiny_splits, lr=1e30)
    assert torch.equal(reference.loss, torch.full((320,), 20.0))
    torch.testing.assert_close(reference.probabilities, torch.full((320, 10), 0.1))


def test_every_model_is_told_of(tiny_splits: Splits, said: list[str]) -> None:
    options = {"epochs": 1, "width": 2, "folds": 3}
    crossfit(config(reference_options=options), tiny_splits)
    assert [line.rpartition(" ")[0] for line in said] == [
        f"reference: model {fold}/3, held-out accuracy" for fold in (1, 2, 3)
    ]
    assert all(0 <= float(line.rpartition(" ")[2]) <= 1 for line in said)


def test_batch_larger_than_the_rows_outside_a_fold_names_the_option(tiny_splits: Splits) -> None:
    with pytest.raises(ConfigError, match=r"reference_options\.batch_size .* \(160\), but is 300"):
        made(tiny_splits, batch_size=300)


def test_width_is_a_quarter_of_the_study_s_unless_told() -> None:
    assert crossfit_settings(config(width=64)).width == 16
    assert crossfit_settings(config(width=8)).width == 4
    assert crossfit_settings(config(reference_options={"width": 5})).width == 5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"fold": 2}, r"'reference_options\.fold'\. Did you mean 'folds'"),
        ({"folds": 1}, r"reference_options\.folds = 1"),
        ({"epochs": 0}, r"reference_options\.epochs = 0"),
        ({"lr": "high"}, r"reference_options\.lr = 'high'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        crossfit_settings(config(reference_options=options))
