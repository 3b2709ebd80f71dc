"""Wrong labels: flipped ones are found, clean data are left alone, and a stopped run goes on."""

from __future__ import annotations

import doctest
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from impon_hpo.files import csv_text
from impon_hpo.sampling.reference import Reference
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits, load_splits
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning import wrong_labels
from impon_hpo.tuning.wrong_labels import confident_share, judge, watch
from tests.settings import training_config

CPU = torch.device("cpu")


def told(loss: list[float], probabilities: list[list[float]]) -> Reference:
    return Reference(torch.tensor(loss), torch.tensor(probabilities))


def test_rows_are_ranked_by_probability_then_by_loss_and_the_likely_class_is_another() -> None:
    labels = torch.arange(30) % 3
    right = [[0.9 if c == at % 3 else 0.05 for c in range(3)] for at in range(30)]
    wrong = [[0.1, 0.0, 0.9], [0.05, 0.95, 0.0]]
    reference = told([0.1 + at / 1000 for at in range(30)] + [2.3, 3.0], right + wrong)
    judgement = judge(reference, torch.cat([labels, torch.tensor([0, 0])]))
    assert judgement.tells
    assert judgement.order[:2].tolist() == [31, 30]
    assert judgement.likely[30:].tolist() == [2, 1]
    assert (judgement.likely[:30] != labels).all()
    assert judgement.share == pytest.approx(2 / 32, abs=0.005)
    assert 0 < judgement.error < 0.1


def test_confident_learning_counts_rows_that_are_as_sure_of_another_class_as_its_own_rows() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.3, 0.7], [0.25, 0.75]])
    labels = torch.tensor([0, 1, 1, 0, 1])
    # Rows of class 0 are sure of it by 0.6 on average, rows of class 1 by 0.62: row 1 is surer of
    # class 0, and row 3 of class 1.
    assert confident_share(probabilities, labels) == pytest.approx(2 / 5)


def test_a_class_without_rows_is_no_confident_guess() -> None:
    probabilities = torch.tensor([[0.2, 0.1, 0.7], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1]])
    assert confident_share(probabilities, torch.tensor([0, 1, 1])) == 0


def test_a_hard_row_that_the_net_gives_its_own_label_is_not_called_wrong() -> None:
    many = [[0.9, 0.06, 0.04]] * 20
    hard = [[0.4, 0.3, 0.3], [0.3, 0.4, 0.3]]
    reference = told([0.1 + at / 1000 for at in range(20)] + [2.0, 2.0], many + hard)
    judgement = judge(reference, torch.zeros(22, dtype=torch.int64))
    assert judgement.probability[20] == 0
    assert judgement.probability[21] > 0.9


def test_the_example_runs() -> None:
    assert doctest.testmod(wrong_labels).failed == 0


def test_two_peaks_of_which_the_net_finds_the_upper_one_right_tell_nothing() -> None:
    loss = torch.cat([torch.linspace(0.1, 0.2, 50), torch.linspace(0.6, 0.68, 50)])
    probabilities = torch.stack([(-loss).exp(), 1 - (-loss).exp()], dim=1)
    judgement = judge(Reference(loss, probabilities), torch.zeros(100, dtype=torch.int64))
    assert judgement.separation > 2
    assert judgement.share < judgement.error
    assert not judgement.tells


def test_classes_of_which_most_rows_look_wrong_are_told_of() -> None:
    given = ["cat"] * 10 + ["dog"] * 4
    assert wrong_labels._unlearnt(["cat"] * 5 + ["dog"] * 2, given) == set()
    assert wrong_labels._unlearnt(["cat", *["dog"] * 3], given) == {"dog"}


def test_one_peak_tells_nothing() -> None:
    loss = 1.5 + 0.4 * torch.randn(500, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    probabilities = torch.stack([(-loss).exp(), 1 - (-loss).exp()], dim=1)
    assert not judge(Reference(loss, probabilities), torch.zeros(500, dtype=torch.int64)).tells


def digits(**settings: Any) -> TrainingConfig:
    return training_config(
        {"width": 8, "epochs": 9, "batch_size": 64, "lr": 0.05, "eval_weights": "ema"} | settings
    )


def flipped(splits: Splits) -> dict[str, int]:
    """Return wrong labels for a fifth of the training and validation rows, by name."""
    names = splits.train.names + splits.validation.names
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    random = torch.Generator().manual_seed(7)
    rows = torch.randperm(len(labels), generator=random)[: len(labels) // 5]
    new = (labels[rows] + torch.randint(1, 10, (len(rows),), generator=random)) % 10
    return {names[row]: label for row, label in zip(rows.tolist(), new.tolist(), strict=True)}


def test_flipped_digits_are_found_among_training_and_validation_rows() -> None:
    clean = load_splits(digits(), CPU)
    wrong = flipped(clean)
    rows = [{"file": name, "label": label} for name, label in wrong.items()]
    Path("flips.csv").write_text(csv_text(rows))
    config = digits(relabel="flips.csv")
    splits = load_splits(config, CPU)
    reference = watch(config, splits, Path("runs"))
    names = splits.train.names + splits.validation.names
    assert len(reference) == len(names)
    judgement = judge(reference, torch.cat([splits.train.labels, splits.validation.labels]))
    assert judgement.tells
    assert judgement.share == pytest.approx(0.2, abs=2 * judgement.error)
    first = [names[row] for row in judgement.order[: len(wrong)].tolist()]
    assert sum(name in wrong for name in first) > 0.9 * len(wrong)
    of_validation = set(clean.validation.names)
    found = {name for name in first if name in wrong and name in of_validation}
    assert len(found) > 0.8 * len(wrong.keys() & of_validation)
    truth = dict(zip(clean.train.names, clean.train.labels.tolist(), strict=True))
    likely = dict(zip(names, judgement.likely.tolist(), strict=True))
    right = [likely[name] == truth[name] for name in first if name in wrong and name in truth]
    assert sum(right) > 0.8 * len(right)


def test_a_run_that_was_stopped_in_the_middle_of_an_epoch_ends_with_the_same_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = digits(subset=320, width=4, epochs=3, batch_size=32)
    splits = load_splits(config, CPU)
    whole = watch(config, splits, Path("whole"))
    step, steps = TrainingRun.step, []

    def stopped(self: TrainingRun, *batch: Any) -> Any:
        steps.append(self.epoch)
        if len(steps) == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            watch(config, splits, Path("parts"))
        parts = watch(config, splits, Path("parts"))
    assert len(steps) == 30
    assert torch.equal(parts.loss, whole.loss)
    assert torch.equal(parts.probabilities, whole.probabilities)
    watch(config, splits, Path("parts"))
    assert len(steps) == 30, "what is finished is not trained again"
    changed = config.model_copy(update={"lr": 0.1, "epochs": 1})
    watch(changed, splits, Path("parts"))
    assert len(list(Path("parts").iterdir())) == 1, "of other settings nothing is left"
