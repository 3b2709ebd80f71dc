"""Averaged weights: the average worked by hand, what is evaluated, and how it continues."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.optimization import average_weights
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.training.runs import config, numbers, results_of


def test_average_is_that_worked_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    averaged = average_weights(config(eval_weights="ema", ema_epochs=0.5), model, 4)
    assert averaged is not None
    found = []
    for weight in (1.0, 2.0, 6.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(weight)
        averaged.update()
        found.append(averaged.module.get_parameter("weight").item())
    # n / (n + 1) at first: the plain mean 1, 3/2; then at most exp(-1/2) = 0.6065 is kept.
    kept = math.exp(-0.5)
    third = kept * 1.5 + (1 - kept) * 6
    assert found == pytest.approx([1.0, 1.5, third, kept * third + (1 - kept) * 6])


def test_running_statistics_are_averaged_and_counts_are_kept() -> None:
    model = nn.BatchNorm1d(1)
    averaged = average_weights(config(eval_weights="ema"), model, 100)
    assert averaged is not None
    for mean in (0.0, 4.0):
        model.get_buffer("running_mean").fill_(mean)
        model.get_buffer("num_batches_tracked").fill_(int(mean))
        averaged.update()
    assert averaged.module.get_buffer("running_mean").item() == 2.0
    assert averaged.module.get_buffer("num_batches_tracked").item() == 4


def test_last_weights_need_no_average() -> None:
    assert average_weights(config(), nn.Linear(1, 1), 4) is None


def test_only_what_is_evaluated_changes(tiny_splits: Splits) -> None:
    last, average = results_of(tiny_splits), results_of(tiny_splits, eval_weights="ema")
    for one, other in zip(last, average, strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["val_loss"] != other["val_loss"]


def test_average_is_what_is_evaluated(tiny_splits: Splits) -> None:
    run = TrainingRun(config(eval_weights="ema"), tiny_splits)
    result = run.train_epoch()
    assert run.averaged is not None
    run.model.load_state_dict(run.averaged.module.state_dict())
    run.averaged = None
    assert run.evaluate(tiny_splits.validation) == (result.val_accuracy, result.val_loss)


def test_resumed_run_is_that_without_interruption(tiny_splits: Splits, tmp_path: Path) -> None:
    given = config(eval_weights="ema", schedule="rungs")
    expected = numbers(train_epochs(given, tiny_splits))
    checkpoint = Checkpoint(tmp_path / "c.pt")
    before = numbers(list(islice(train_epochs(given, tiny_splits, checkpoint), 1)))
    assert before + numbers(train_epochs(given, tiny_splits, checkpoint)) == expected
