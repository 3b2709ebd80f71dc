"""The training step on a GPU that is not there: forward on fake tensors, all of it on `meta`."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import impon_hpo.training.splits as splits_module
from impon_hpo.sampling.captured import call
from impon_hpo.sampling.reference import Reference
from impon_hpo.training.augmentation import Augmentation
from impon_hpo.training.images import Images
from impon_hpo.training.optimization import AveragedWeights
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.training_run import TrainingRun
from tests.sampling.fake_gpu import GPU, FakeDevice
from tests.training.runs import BATCH, config

META, CPU = torch.device("meta"), torch.device("cpu")


def made_run(splits: Splits, **given: Any) -> TrainingRun:
    """A run on data of its own, with normalisation worked out, which reads all images once."""
    train, validation = (
        Split(Images(split.images.pixels, split.images.rows, CPU, split.images[:]), split.labels)
        for split in (splits.train, splits.validation)
    )
    splits = copy.deepcopy(dataclasses.replace(splits, train=train, validation=validation))
    run = TrainingRun(config(**given), splits)
    run.training_step.predict(splits.train.images[:2])
    return run


def batch_on(fake: FakeDevice, splits: Splits, n: int = BATCH) -> tuple[Tensor, Tensor]:
    images, labels = splits.train.batch(torch.zeros(n, dtype=torch.int64))
    return fake.tensor(images), fake.tensor(labels)


def rows_on(fake: FakeDevice, n: int = BATCH) -> Tensor:
    return fake.tensor(torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("augment", ["none", "crop", "flip", "crop+flip"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_forward_scoring_and_losses(tiny_splits: Splits, augment: str, smoothing: float) -> None:
    step = made_run(tiny_splits, label_smoothing=smoothing).training_step
    step.augmentation = Augmentation(8, 8, augment.split("+"), 0, CPU)
    fake = FakeDevice()
    fake.move(step)
    batch, bank = batch_on(fake, tiny_splits), batch_on(fake, tiny_splits, 7)
    with fake.running(), torch.no_grad():
        losses, logits, mean = next(step.train(*batch, None))
        scores, scored = step.score(*bank)
    for found, shape in ((losses, (BATCH,)), (logits, (BATCH, 10)), (mean, ())):
        assert (found.device, tuple(found.shape)) == (GPU, shape)
    assert (scores.device, tuple(scored.shape)) == (GPU, (7, 10))


@pytest.mark.parametrize("augment", ["mixup", "cutmix", "crop+flip+mixup+cutmix"])
def test_mixing_waits_for_nothing(tiny_splits: Splits, augment: str) -> None:
    step = made_run(tiny_splits, augment=augment).training_step
    fake = FakeDevice()
    fake.move(step)
    batch = batch_on(fake, tiny_splits)
    with fake.running(), torch.no_grad():
        losses, logits, mean = next(step.train(*batch, None))
    for found, shape in ((losses, (BATCH,)), (logits, (BATCH, 10)), (mean, ())):
        assert (found.device, tuple(found.shape)) == (GPU, shape)


OWN: dict[str, dict[str, Any]] = {
    "auxiliary heads": {
        "model": "tests.training.nets:with_auxiliary",
        "model_options": {"answer": "two-named"},
    },
    "frozen": {"model": "tests.training.nets:Body", "train_layers": "head"},
    "dropout": {"model": "tests.training.nets:dropping"},
    "class weights": {"class_weights": "balanced"},
    "rate of the head": {"lr_head": 0.3},
}


@pytest.mark.parametrize("name", sorted(OWN))
def test_step_of_a_users_model_waits_for_nothing(tiny_splits: Splits, name: str) -> None:
    step = made_run(tiny_splits, autocast=False, **OWN[name]).training_step
    step.begin_training()
    fake = FakeDevice()
    fake.move(step)
    batch = batch_on(fake, tiny_splits)
    with fake.running(), torch.no_grad():
        losses, logits, _ = next(step.train(*batch, None))
    assert (losses.device, tuple(logits.shape)) == (GPU, (BATCH, 10))


@pytest.mark.parametrize("name", sorted(OWN))
def test_whole_step_of_a_users_model(tiny_splits: Splits, name: str) -> None:
    step = made_run(tiny_splits, autocast=False, **OWN[name]).training_step
    step.begin_training()
    fake = FakeDevice(META)
    fake.move(step)
    step.device = torch.device("cpu")  # autocast, which is off, knows no meta
    for group in step.optimizer.param_groups:  # nor do fused optimisers
        group["fused"] = False
    batch = batch_on(fake, tiny_splits)
    with fake.running():
        losses, _, _ = call(step.train, [*batch, None], lambda: None)
    assert losses.device == META


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("augment", ["auto", "auto+mixup+cutmix"])
def test_whole_step(tiny_splits: Splits, optimizer: str, weighted: bool, augment: str) -> None:
    step = made_run(tiny_splits, optimizer=optimizer, augment=augment).training_step
    fake = FakeDevice(META)
    fake.move(step)
    step.device = torch.device("cpu")  # autocast, which is off, knows no meta
    for group in step.optimizer.param_groups:  # nor do fused optimisers
        group["fused"] = False
    weights = fake.tensor(torch.ones(BATCH)) if weighted else None
    batch = batch_on(fake, tiny_splits)
    with fake.running():
        for _ in range(2):
            losses, _, _ = call(step.train, [*batch, weights], lambda: None)
    assert losses.device == META
    state = step.optimizer.state[next(iter(step.model.parameters()))]
    moments = [value for value in state.values() if isinstance(value, Tensor) and value.dim()]
    assert {value.device for value in moments} == {META}


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "macro-f1", "loss"])
@pytest.mark.parametrize("weights", ["last", "ema"])
def test_evaluation_waits_for_nothing(
    tiny_splits: Splits, metric: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "PASS_ROWS", 50)
    run = made_run(tiny_splits, metric=metric, eval_weights="ema")
    fake = FakeDevice()
    fake.move(run)
    with fake.running():
        judged = run.judged(run.splits.validation, weights)
    assert (judged.device, tuple(judged.shape), judged.dtype) == (GPU, (2,), torch.float64)


def test_averaging_and_memory(tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "__post_init__", lambda self: None)  # waits, once a study
    averaged = AveragedWeights(made_run(tiny_splits).model, 0.9)
    memory = RowMemory(tiny_splits.train.labels.clone(), 10)
    fake = FakeDevice()
    fake.move(averaged)
    fake.move(memory)
    with fake.running():
        averaged.update()
        memory.add(rows_on(fake), fake.tensor(torch.zeros(BATCH, 10)))
        memory.end_epoch()
        reference = memory.reference()
    assert reference.loss.device == GPU
    assert reference.probabilities.device == GPU


def test_a_device_forgotten_in_the_step_would_be_found(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmented = Augmentation.__call__
    monkeypatch.setattr(
        Augmentation, "__call__", lambda self, images: augmented(self, torch.ones(images.shape))
    )
    step = made_run(tiny_splits).training_step
    fake = FakeDevice()
    fake.move(step)
    batch = batch_on(fake, tiny_splits)
    with pytest.raises(Exception, match=r"host|device"), fake.running(), torch.no_grad():
        next(step.train(*batch, None))


def test_a_wait_in_the_step_would_be_found(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = made_run(tiny_splits).training_step
    losses_of = step.row_losses

    def waiting(logits: Tensor, labels: Tensor) -> Tensor:
        losses = losses_of(logits, labels)
        assert losses.max().item() >= 0
        return losses

    monkeypatch.setattr(step, "row_losses", waiting)
    fake = FakeDevice()
    fake.move(step)
    batch = batch_on(fake, tiny_splits)
    with pytest.raises(Exception, match=r"item|local_scalar"), fake.running(), torch.no_grad():
        next(step.train(*batch, None))
