"""Tests of the world with a long tail: sizes of its classes, and what is hidden."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rare_classes
from impon_hpo.errors import DataError
from impon_hpo.training.image_data import ImageData
from tests.conftest import STUDIES

HOME = STUDIES / "long-tail"


def image_files(names: tuple[str, ...], per_class: int) -> None:
    for label, name in enumerate(names):
        folder = Path("data/train", name)
        folder.mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((4, 4, 3), [label, number % 256, number // 256], dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04}.png")


def load() -> ImageData:
    data: Any = rare_classes.cifar10(root=Path("data"), download=False, image_size=None)
    assert isinstance(data, ImageData)
    return data


def test_classes_get_rarer_by_a_factor_and_the_hidden_test_split_is_balanced() -> None:
    image_files(rare_classes.CIFAR10, per_class=250)
    data = load()
    assert np.bincount(data.labels).tolist() == [200, 129, 84, 54, 35, 23, 15, 10, 6, 4]
    assert data.test_images is not None
    assert data.test_labels is not None
    assert np.bincount(data.test_labels).tolist() == [50] * 10
    assert data.images[:, 0, 0, 0].tolist() == data.labels.tolist()
    assert data.test_images[:, 0, 0, 0].tolist() == data.test_labels.tolist()
    visible, hidden = ({image.tobytes() for image in x} for x in (data.images, data.test_images))
    assert not visible & hidden
    np.testing.assert_array_equal(data.images, load().images)


def test_missing_or_other_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"no folder 'data'. Give it with --set data_dir="):
        load()
    image_files(("cat", "dog"), per_class=3)
    with pytest.raises(DataError, match=r"each class of CIFAR-10 \(airplane, .* has cat, dog"):
        load()


def test_example_in_the_docstring_runs() -> None:
    example = doctest.DocTestFinder(recurse=False).find(
        rare_classes.cifar10, "cifar10", module=rare_classes
    )[0]
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.attempted
    assert result.failed == 0, "".join(report)


@pytest.mark.slow
def test_study_finds_the_module_beside_it() -> None:
    image_files(rare_classes.CIFAR10, per_class=125)
    small = ["epochs=2", "width=4", "subset=150", "validation_size=40", "batch_size=32"]
    command = [sys.executable, "-m", "impon_hpo", "train", str(HOME), "--arm", "uniform"]
    for setting in ["data_dir=data", *small]:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["test_accuracy"] <= 1
