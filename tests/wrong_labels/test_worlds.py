"""Tests of the worlds: the share that is wrong, the clean hidden test split, and missing data."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import worlds
from impon_hpo.errors import DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.data import ImageData, load_digits
from impon_hpo.training.splits import load_splits
from tests.command import run
from tests.conftest import STUDIES
from worlds import World, truth


def load(world: World, root: Path = Path("data")) -> ImageData:
    return world(root=root, download=False, image_size=None)


def rows_of(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize(
    ("world", "wrong"), [(worlds.digits_0, 0), (worlds.digits_20, 287), (worlds.digits_40, 575)]
)
def test_exactly_the_share_of_digits_is_wrong(world: World, wrong: int) -> None:
    data, clean = load(world), load(worlds.digits_0)
    assert len(data.labels) == 1437
    assert int((data.labels != clean.labels).sum()) == wrong
    np.testing.assert_array_equal(data.images, clean.images)


def test_hidden_test_split_of_digits_is_clean_stratified_and_in_no_other_split() -> None:
    whole = load_digits(root=Path(), download=False, image_size=None)
    label_of = {
        image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)
    }
    data = load(worlds.digits_40)
    assert data.test_images is not None
    assert data.test_labels is not None
    assert [label_of[image.tobytes()] for image in data.test_images] == data.test_labels.tolist()
    assert not rows_of(data.images) & rows_of(data.test_images)
    assert len(data.images) + len(data.test_images) == len(whole.images)
    counts = np.bincount(data.test_labels) / np.bincount(whole.labels)
    assert np.all(np.abs(counts - 0.2) < 0.01)


def test_wrong_labels_are_the_same_each_time_and_grow_with_the_share() -> None:
    first, again = load(worlds.digits_20), load(worlds.digits_20)
    np.testing.assert_array_equal(first.labels, again.labels)
    clean, more = load(worlds.digits_0).labels, load(worlds.digits_40).labels
    wrong = first.labels != clean
    np.testing.assert_array_equal(more[wrong], first.labels[wrong])


def test_each_other_class_is_equally_likely() -> None:
    clean, given = load(worlds.digits_0).labels, load(worlds.digits_40).labels
    ahead = np.bincount((given - clean) % 10, minlength=10)[1:]
    assert ahead.sum() == 575
    # 63.9 are expected of each; the 1 in 10,000 quantile of chi-squared with 8 degrees is 31.8.
    assert ((ahead - 575 / 9) ** 2 / (575 / 9)).sum() < 31.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truth_is_in_the_order_of_the_splits_and_both_splits_are_wrong_alike(seed: int) -> None:
    config = TrainingConfig(dataset="worlds:digits_40", batch_size=32, subset=1000, seed=seed)
    splits = load_splits(config, torch.device("cpu"))
    whole = load_digits(root=Path(), download=False, image_size=None)
    label_of = {
        image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)
    }
    for split, labels in zip((splits.train, splits.validation), truth(config), strict=True):
        known = [label_of[image.tobytes()] for image in split.images.numpy()]
        assert labels.tolist() == known
        assert float((labels != split.labels).double().mean()) == pytest.approx(0.4, abs=0.1)


def test_truth_of_what_is_no_world_is_refused() -> None:
    with pytest.raises(DataError, match="must name a world, as 'worlds:digits_20', not 'digits'"):
        truth(TrainingConfig(dataset="digits"))


@pytest.mark.parametrize("documented", [World, truth], ids=lambda thing: thing.__name__)
def test_example_in_the_docstring_runs(documented: object) -> None:
    example = doctest.DocTestFinder(recurse=False).find(documented, "example", module=worlds)[0]
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.attempted
    assert result.failed == 0, "".join(report)


def test_world_in_the_folder_above_its_study_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    study = STUDIES / "wrong-labels" / "digits-20"
    small = ("epochs=1", "width=4", "subset=200")
    settings = [word for setting in small for word in ("--set", setting)]
    assert run("train", study, "--arm", "uniform", *settings) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["test_accuracy"] <= 1
