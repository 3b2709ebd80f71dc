"""Cross-fitting: who judges whom, what it tells, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.training import crossfit as crossfit_module
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.crossfit import crossfit, crossfit_settings
from impon_hpo.training.reference import KeptReference
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits, load_splits
from tests.training.runs import CPU, config


def quiet(line: str) -> None:
    assert line


def made(splits: Splits, **options: Any) -> KeptReference:
    usual = {"epochs": 2, "width": 4, "batch_size": 32}
    return crossfit(config(reference_options=usual | options), splits, say=quiet)


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


def test_it_is_the_same_every_time(tiny_splits: Splits) -> None:
    torch.manual_seed(1)
    first = made(tiny_splits)
    torch.manual_seed(2)
    second = made(tiny_splits)
    assert torch.equal(first.reference.loss, second.reference.loss)
    assert torch.equal(first.reference.probabilities, second.reference.probabilities)


def test_it_knows_the_digits_better_than_chance() -> None:
    whole = config(subset=None, reference_options={"epochs": 4, "width": 8, "batch_size": 32})
    splits = load_splits(whole, CPU)
    reference = crossfit(whole, splits, say=quiet).reference
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
    kept = made(tiny_splits)
    # Two folds of 160 rows, five batches of 32 each, two epochs; every row judged twice. The model
    # is as wide as the study's, so a pass costs the same.
    assert kept.cost == 3 * (2 * 2 * 5 * 32) + 2 * 320
    narrow = made(tiny_splits, width=2)
    assert 0.2 < narrow.cost / kept.cost < 0.4  # about a quarter


def test_smaller_images_cost_less(tiny_splits: Splits) -> None:
    assert made(tiny_splits, image_size=4).cost < made(tiny_splits).cost


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
