"""Tests of the worlds: the share that is wrong, the clean hidden test split, and missing data."""

from __future__ import annotations

import doctest
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import impon_hpo.training.data as data_module
import worlds
from impon_hpo.errors import DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.data import load_digits
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.splits import load_splits
from impon_hpo.tuning.study_file import read_study_file
from tests.command import run
from tests.conftest import STUDIES
from tests.training.test_data import IDX_FILES, idx, noise
from worlds import World, truth

HOME = STUDIES / "wrong-labels"


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


def test_exactly_the_share_of_fashion_mnist_is_wrong_and_its_own_test_split_is_hidden(
    tmp_path: Path,
) -> None:
    labels, test_labels = (np.arange(n, dtype=np.uint8) % 10 for n in (200, 10))
    images, test_images = noise(200, 28, 28), noise(10, 28, 28, seed=1)
    for name, array in zip(IDX_FILES, (images, labels, test_images, test_labels), strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    data = load(worlds.fashion_mnist_40, tmp_path)
    np.testing.assert_array_equal(data.images[..., 0], images)
    assert int((data.labels != labels).sum()) == 80
    assert data.test_images is not None
    np.testing.assert_array_equal(data.test_images[..., 0], test_images)
    np.testing.assert_array_equal(data.test_labels, test_labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truth_is_in_the_order_of_the_splits_and_both_splits_are_wrong_alike(seed: int) -> None:
    config = TrainingConfig(dataset="worlds:digits_40", batch_size=32, subset=1000, seed=seed)
    splits = load_splits(config, torch.device("cpu"))
    whole = load_digits(root=Path(), download=False, image_size=None)
    label_of = {
        image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)
    }
    for split, labels in zip((splits.train, splits.validation), truth(config), strict=True):
        known = [label_of[image.tobytes()] for image in split.images[:].numpy()]
        assert labels.tolist() == known
        assert float((labels != split.labels).double().mean()) == pytest.approx(0.4, abs=0.1)


def test_truth_of_what_is_no_world_is_refused() -> None:
    with pytest.raises(DataError, match="must name a world, as 'worlds:digits_20', not 'digits'"):
        truth(TrainingConfig(dataset="digits"))


def image_files(folder: Path, per_class: int = 15) -> dict[bytes, str]:
    """Write images of CIFAR-10's classes, each unique; return the name of each by its pixels."""
    names = {}
    for label, name in enumerate(worlds.CIFAR10):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((4, 4, 3), [label, number, 0], dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:04}.png")
            names[pixels.tobytes()] = f"train/{name}/{number:04}.png"
    return names


@pytest.mark.parametrize(
    ("world", "wrong"), [(worlds.cifar10_0, 0), (worlds.cifar10_20, 24), (worlds.cifar10_40, 48)]
)
def test_exactly_the_share_of_cifar10_is_wrong_and_a_clean_fifth_is_hidden(
    world: World, wrong: int
) -> None:
    names = image_files(Path("data/train"))
    data = load(world)
    classes = [worlds.CIFAR10.index(names[image.tobytes()].split("/")[1]) for image in data.images]
    assert len(classes) == 120
    assert int((data.labels != classes).sum()) == wrong
    assert data.test_images is not None
    assert data.test_labels is not None
    assert np.bincount(data.test_labels).tolist() == [3] * 10
    assert [image[0, 0, 0] for image in data.test_images] == data.test_labels.tolist()
    assert not rows_of(data.images) & rows_of(data.test_images)


@pytest.mark.parametrize(
    "place", ["data/cifar10n-labels.csv", "data/cifar10n-labels.csv.xz", "n.csv"]
)
def test_labels_of_cifar10n_are_those_of_the_images_of_that_name(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = image_files(Path("data/train"))
    random = np.random.default_rng(5)
    said = {name: str(random.choice(worlds.CIFAR10)) for name in sorted(names.values())}
    after = dict(zip(worlds.CIFAR10, (*worlds.CIFAR10[1:], "airplane"), strict=True))
    lines = [f"{name},{label},{label},{after[label]}" for name, label in said.items()]
    text = "\n".join(["file,aggregate,random1,worst", *random.permutation(lines)])
    if place.endswith(".xz"):
        Path(place).write_bytes(lzma.compress(text.encode()))
    else:
        Path(place).write_text(text)
    if place == "n.csv":
        monkeypatch.setenv("CIFAR10N_LABELS", place)
    data = load(worlds.cifar10n_random1)
    given = [worlds.CIFAR10[label] for label in data.labels]
    assert given == [said[names[image.tobytes()]] for image in data.images]
    worst = load(worlds.cifar10n_worst).labels
    assert worst.tolist() == [(label + 1) % 10 for label in data.labels]
    assert data.test_images is not None
    assert data.test_labels is not None
    assert [image[0, 0, 0] for image in data.test_images] == data.test_labels.tolist()
    config = TrainingConfig(dataset="worlds:cifar10n_random1", data_dir="data", batch_size=8)
    splits = load_splits(config, torch.device("cpu"))
    assert truth(config)[0].tolist() == splits.train.images[:][:, 0, 0, 0].tolist()


def test_missing_labels_of_cifar10n_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    image_files(Path("data/train"))
    with pytest.raises(DataError, match=r"no file 'data/cifar10n-labels.csv.xz'. Set CIFAR10N_LAB"):
        load(worlds.cifar10n_worst)
    monkeypatch.setenv("CIFAR10N_LABELS", "elsewhere.csv")
    with pytest.raises(DataError, match=r"no file 'elsewhere.csv'"):
        load(worlds.cifar10n_worst)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.csv", b"file,worst\ntrain/cat/0000.png,cat\n", "must have a column 'random1'"),
        ("n.csv", b"file,random1\ntrain/cat/0000.png,cat\n", "has None for 'train/airplane/0"),
        ("n.csv", b"file,random1\ntrain/airplane/0000.png,lion", "has 'lion' for 'train/airplane/"),
        ("n.csv.xz", b"no archive", "cannot be read"),
        ("n.csv", b"file,random1\n\xff", "cannot be read"),
    ],
)
def test_broken_labels_of_cifar10n_are_refused(
    name: str, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_files(Path("data/train"), per_class=5)
    Path(name).write_bytes(content)
    monkeypatch.setenv("CIFAR10N_LABELS", name)
    # All but one of each class are visible, whichever those are.
    keep = np.arange(10 * 5)
    monkeypatch.setattr(worlds, "_visible_and_hidden", lambda labels: (keep, keep[::5]))
    with pytest.raises(DataError, match=message):
        load(worlds.cifar10n_random1)


def test_missing_images_are_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    for world in (worlds.cifar10_20, worlds.cifar10n_worst, worlds.fashion_mnist_20):
        with pytest.raises(DataError, match="--set data_dir="):
            load(world)
    image_files(Path("data"))
    (Path("data") / "frog").rename("data/toad")
    with pytest.raises(DataError, match=r"each class of CIFAR-10 \(airplane, .* has .*toad"):
        load(worlds.cifar10_20)


@pytest.mark.parametrize("folder", sorted(HOME.glob("*/study.toml")), ids=lambda f: f.parent.name)
def test_study_has_the_world_that_its_folder_names_and_all_are_alike(folder: Path) -> None:
    study = read_study_file(str(folder))
    name = study.run.dataset.removeprefix("worlds:")
    assert name.replace("_", "-") == study.name
    assert isinstance(getattr(worlds, name), World)
    twin = read_study_file(str(HOME / "cifar10-0"))
    theirs = {"dataset", "subset", "validation_size", "image_size", "seed"}
    assert study.run.model_dump(exclude=theirs) == twin.run.model_dump(exclude=theirs)
    assert list(study.arms) == ["trusted", "uniform"]
    assert study.protocol.endpoint == "in-hand"
    assert study.protocol.claim == "trusted"


def test_every_world_has_a_study() -> None:
    names = [name for name, world in vars(worlds).items() if isinstance(world, World)]
    studies = {folder.parent.name for folder in HOME.glob("*/study.toml")}
    assert studies == {name.replace("_", "-") for name in names}


@pytest.mark.parametrize("documented", [World, truth], ids=lambda thing: thing.__name__)
def test_example_in_the_docstring_runs(documented: object) -> None:
    example = doctest.DocTestFinder(recurse=False).find(documented, "example", module=worlds)[0]
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.attempted
    assert result.failed == 0, "".join(report)


def test_world_in_the_folder_above_its_study_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    study = HOME / "digits-20"
    small = ("epochs=2", "width=4", "subset=200")
    settings = [word for setting in small for word in ("--set", setting)]
    assert run("train", study, "--arm", "uniform", *settings) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["test_accuracy"] <= 1
