"""Wrong labels on real images: noticed from what a first run saw, and left out by later ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from impon_hpo.sampling.methods.impon_trusted import ImponTrusted
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits, load_splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.settings import training_config
from tests.training.runs import CPU, numbers

SETTINGS: dict[str, Any] = {"width": 8, "epochs": 9, "batch_size": 32, "lr": 0.05}


def learnt(config: TrainingConfig, share: float) -> tuple[Splits, torch.Tensor]:
    """Return digits of which a share of the labels is wrong, with what a run learnt of them, and
    which are wrong."""
    splits = load_splits(config, CPU)
    source = torch.Generator().manual_seed(0)
    right = splits.train.labels
    wrong = torch.rand(len(right), generator=source) < share
    others = (right + torch.randint(1, 10, right.shape, generator=source)) % 10
    labels = torch.where(wrong, others, right)
    splits = dataclasses.replace(splits, train=Split(splits.train.images, labels))
    memory = RowMemory(labels, splits.n_classes)
    list(train_epochs(config, splits, memory=memory))
    return dataclasses.replace(splits, reference=memory.reference()), wrong


@pytest.mark.slow
def test_right_labels_train_as_uniform_does() -> None:
    config = training_config(SETTINGS)
    splits, _ = learnt(config, 0.0)
    results = []
    for name in ("uniform", "impon-trusted"):
        run = TrainingRun(config.model_copy(update={"sampler": name}), splits)
        results.append(numbers([run.train_epoch(), run.train_epoch()]))
    told = [one.pop("diagnostics") for one in results[1]]
    assert [one["share_wrong"] for one in told] == [0, 0]
    for one in results[0]:
        one.pop("diagnostics")
    assert results[0] == results[1]


@pytest.mark.slow
def test_wrong_labels_are_noticed_and_left_out() -> None:
    config = training_config(SETTINGS)
    splits, wrong = learnt(config, 0.3)
    run = TrainingRun(config.model_copy(update={"sampler": "impon-trusted"}), splits)
    assert isinstance(run.sampler, ImponTrusted)
    diagnostics = run.train_epoch().diagnostics
    assert diagnostics["share_wrong"] == pytest.approx(0.3, abs=0.08)
    run.train_epoch()
    drawn = run.sampler.visits() > 0
    assert float(wrong[drawn].double().mean()) < 0.05
    assert float(drawn[~wrong].double().mean()) > 0.85
