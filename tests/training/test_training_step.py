"""The training step: how classes are weighed in what is minimised, and not in what is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn.functional import cross_entropy

from impon_hpo.training.images import Images
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.training.training_step import class_weights
from tests.training.runs import config, results_of

LINEAR = "tests.training.runs:linear"
BALANCED = config(class_weights="balanced")


def splits_of(labels: list[int], n_classes: int = 5) -> Splits:
    images = torch.zeros(len(labels), 8, 8, 1, dtype=torch.uint8)
    part = Split(Images.of_tensor(images), torch.tensor(labels))
    return Splits(part, part, part, tuple(map(str, range(n_classes))), "none")


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    found = class_weights(BALANCED, splits_of(labels))
    assert found is not None
    there = np.unique(labels)
    expected = np.zeros(5)
    expected[there] = compute_class_weight("balanced", classes=there, y=np.array(labels))
    assert found.numpy() == pytest.approx(expected, rel=1e-6)
    assert float(found[torch.tensor(labels)].mean()) == pytest.approx(1, rel=1e-5)


def test_without_weights_there_are_none(tiny_splits: Splits) -> None:
    assert class_weights(config(), tiny_splits) is None


@pytest.mark.parametrize("weighted", [False, True])
def test_classes_weigh_in_the_gradient_and_not_in_what_is_told(
    tiny_splits: Splits, weighted: bool
) -> None:
    rare = tiny_splits.train.labels != 3
    rare[(~rare).nonzero()[0, 0]] = True
    train = Split(tiny_splits.train.images.of(rare.nonzero()[:, 0]), tiny_splits.train.labels[rare])
    splits = dataclasses.replace(tiny_splits, train=train, augment="none", reference=None)
    run = TrainingRun(
        config(model=LINEAR, class_weights="balanced", label_smoothing=0.1, autocast=False), splits
    )
    of_class = class_weights(BALANCED, splits)
    assert of_class is not None
    assert float(of_class[3]) > 10
    rows = torch.cat([(train.labels == 3).nonzero()[:, 0], torch.arange(7)])
    images, labels = train.batch(rows)
    weights = torch.linspace(0.5, 2, len(rows)) if weighted else None
    run.training_step.begin_training()
    begun = run.training_step.train(images, labels, weights)
    told, _, _ = next(begun)
    losses = cross_entropy(
        run.model(splits.normalise(images)), labels, reduction="none", label_smoothing=0.1
    )
    torch.testing.assert_close(told, losses.detach())
    scored, _ = run.training_step.score(images, labels)
    torch.testing.assert_close(scored, losses.detach())
    counted = of_class[labels] * losses
    expected = torch.autograd.grad(
        (counted if weights is None else weights * counted).mean(), list(run.model.parameters())
    )
    found: list[Tensor | None] = []
    run.optimizer.register_step_pre_hook(
        lambda *_: found.extend(one.grad for one in run.model.parameters())
    )
    assert next(begun, None) is None
    for grad, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, wanted)


def test_weights_of_classes_of_equal_size_change_little(tiny_splits: Splits) -> None:
    plain, balanced = results_of(tiny_splits), results_of(tiny_splits, class_weights="balanced")
    assert plain != balanced
    assert balanced[-1]["val_loss"] == pytest.approx(plain[-1]["val_loss"], rel=0.2)
