"""Groups: nobody is in two splits, sizes and classes are as wanted as far as groups allow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.drawn_rows import stratified_order
from impon_hpo.training.groups import groups_of, parted_by_group
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.splits import Split, Splits, load_splits, split_data
from tests.settings import training_config

CPU = torch.device("cpu")
Rows = NDArray[np.int64]


def patients(n_groups: int, size: int = 4, *, n_classes: int = 2, **more: Any) -> ImageData:
    """Return images named p0_0.png, p0_1.png, …; all images of a patient have one class."""
    names = tuple(f"p{group}_{at}.png" for group in range(n_groups) for at in range(size))
    labels = np.repeat(np.arange(n_groups) % n_classes, size)
    images = np.zeros((len(names), 4, 4, 1), dtype=np.uint8)
    return ImageData(images, labels, names=names, **more)


def split(data: ImageData, groups: str = "re:(p[0-9]+)_", **more: Any) -> Splits:
    return split_data(data, training_config({"batch_size": 2, "groups": groups} | more), CPU)


def patients_of(part: Split) -> set[str]:
    return {name.split("_")[0] for name in part.names}


def write(text: str, name: str = "patient.csv") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=8, max_size=40),
    n_classes=st.integers(2, 3),
    mixed=st.booleans(),
    share=st.floats(0.02, 0.7),
    left=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_groups_stay_together_and_sizes_miss_by_half_a_group_at_most(
    sizes: list[int], n_classes: int, mixed: bool, share: float, left: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    labels = rng.integers(0, n_classes, len(groups)) if mixed else groups // 7 % n_classes
    held = [{*groups[labels == label].tolist()} for label in range(n_classes)]
    assume(all(len(of_class) > left + n_classes for of_class in held))
    order = stratified_order(labels, seed)
    n_first = max(1, round(share * len(order)))
    names = [f"class {label}" for label in range(n_classes)]

    def drawn() -> tuple[Rows, Rows]:
        return parted_by_group(order, labels, groups, n_first, left=left, class_names=names)

    first, others = drawn()
    assert sorted([*first, *others]) == list(range(len(labels)))
    assert not {*groups[first]} & {*groups[others]}
    for of_class in held:
        assert len(of_class & {*groups[first].tolist()}) >= 1
        assert len(of_class & {*groups[others].tolist()}) >= left
    # Each class keeps a group here and some there, which may be the largest ones.
    forced = n_classes * max(sizes)
    if forced <= n_first <= len(order) - left * forced:
        assert abs(len(first) - n_first) <= max(sizes) / 2
    for part, again in zip((first, others), drawn(), strict=True):
        assert part.tolist() == again.tolist()


def test_splits_of_a_data_set_have_no_patient_in_common_and_cover_all_images() -> None:
    splits = split(patients(40), validation_size=0.2, seed=3)
    parts = splits.train, splits.validation, splits.test
    train, validation, test = map(patients_of, parts)
    assert not train & validation | train & test | validation & test
    assert sorted(name for part in parts for name in part.names) == sorted(patients(40).names)
    assert [len(part) for part in parts] == [116, 28, 16]  # of 28.8 and 16
    for part in parts:
        assert part.labels.bincount().diff().abs() <= 4  # a patient


def test_another_seed_draws_other_patients_and_the_same_seed_the_same() -> None:
    first, same, other = (
        patients_of(split(patients(40), seed=seed).validation) for seed in (1, 1, 2)
    )
    assert first == same != other


def test_large_groups_are_drawn_as_often_as_small_ones() -> None:
    sizes = np.array([1] * 40 + [4] * 40)
    groups = np.repeat(np.arange(80), sizes)
    labels = np.arange(80)[groups] % 2
    times = np.zeros(80)
    for seed in range(200):
        order = stratified_order(labels, seed)
        first, _ = parted_by_group(order, labels, groups, 50, left=1, class_names=("a", "b"))
        times[np.unique(groups[first])] += 1
    assert 0.8 < times[40:].mean() / times[:40].mean() < 1.25


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_in_proportion_though_groups_are_of_several_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 300)
    groups = np.repeat(np.arange(300), sizes)
    labels = rng.choice(3, 300, p=[0.7, 0.25, 0.05])[groups]
    order = stratified_order(labels, seed)
    first, _ = parted_by_group(order, labels, groups, 300, left=1, class_names=("a", "b", "c"))
    wanted = np.bincount(labels) * 300 / len(labels)
    assert np.abs(np.bincount(labels[first]) - wanted).max() <= 6  # half of the largest group


def test_without_groups_nothing_changes_and_alone_every_image_is_drawn_exactly() -> None:
    data = patients(40)
    plain = split_data(data, training_config({"batch_size": 2}), CPU)
    assert plain.train.groups is None
    assert "groups" not in plain.fingerprint
    one = write("file,group\np0_0.png,a\np0_1.png,a\n")
    splits = split(data, one, validation_size=17)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [127, 17, 16]


def test_what_came_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    named = "re:p([1-9][0-9]?)_"  # p0 is in none
    split(patients(30, 6), named, validation_size=20)
    assert caplog.messages[0] == (
        "groups: 174 of 180 images are in 29 groups; each of the other 6 is a group of its own"
    )
    assert caplog.messages[1].startswith("test: 18 images of ")
    caplog.clear()
    split(patients(30, 6), validation_size=20)
    assert "validation: 18 images of 3 groups; 20 were wanted" in caplog.messages


def test_subset_leaves_out_images_of_training_only() -> None:
    whole, cut = (split(patients(40), subset=subset) for subset in (None, 50))
    assert len(cut.train) == 50
    assert {*cut.train.names} < {*whole.train.names}
    assert cut.validation.names == whole.validation.names


def test_a_file_of_groups_reads_as_one_of_labels(tmp_path: Path) -> None:
    data = patients(20)
    lines = [f"{name},{int(name[1:].split('_')[0]) // 2}" for name in data.names]
    splits = split(data, write("\ufefffile,group\r\n" + "\r\n".join(lines) + "\r\n"))
    parts = splits.train, splits.validation, splits.test
    couples = [{int(patient[1:]) // 2 for patient in patients_of(part)} for part in parts]
    assert not couples[0] & couples[1] | couples[0] & couples[2] | couples[1] & couples[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "file,group\nq.png,1\n",
            r"'patient.csv', line 2, has the image 'q.png', which is not one",
        ),
        (
            "file,group\np0_0.png,1\np0_0.png,2\n",
            r"line 3, puts 'p0_0.png' into the group '2', but",
        ),
        ("file,patient\np0_0.png,1\n", r"must have the columns file and group, .* 'file,patient'"),
        ("file,group\np0_0.png,\n", r"must find a group in the names of images, but it finds none"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        split(patients(20), write(text))


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        ("re:(p[0-9]+_", r"something wrong at character 4: missing \), unterminated subpattern"),
        ("re:p[0-9]+_", r"one part in parentheses, which finds the group in a name, but it has 0"),
        ("re:(p)([0-9]+)_", r"but it has 2. Parentheses that only hold together are written"),
        ("nowhere.csv", r"must be a CSV file, .* beside study.toml, or begin with 're:', but it"),
    ],
)
def test_a_bad_pattern_or_path_is_refused_with_the_settings(groups: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TrainingConfig(groups=groups)


def test_a_pattern_that_matches_no_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none in 80 names, such as 'p0_0.png' and 'p19_3.png'"):
        split(patients(20), "re:patient([0-9]+)")


def test_pattern_and_content_of_a_file_are_in_the_identity() -> None:
    plain = TrainingConfig().identity()
    assert "groups" not in plain
    here = TrainingConfig(groups=write("file,group\n5,3\n")).identity()
    there = TrainingConfig(groups=write("file,group\n5,3\n", "other.csv")).identity()
    changed = TrainingConfig(groups=write("file,group\n5,4\n")).identity()
    pattern, other = (TrainingConfig(groups=f"re:(p{end})").identity() for end in ("", "?"))
    assert here == there
    texts = {str(identity) for identity in (plain, here, changed, pattern, other)}
    assert len(texts) == 5


def test_too_few_groups_of_a_class_are_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"class '0' has 4 images in 1 group\(s\), which cannot"):
        split(patients(2), validation_size=2)
    with pytest.raises(DataError, match=r"'0' has 8 images in 2 group\(s\), .* into 3 splits"):
        split(patients(4), validation_size=2)
    with pytest.raises(
        DataError, match=r"leaves 8 to train on\. That must be .* batch_size \(10\)"
    ):
        split(patients(6), validation_size=2, batch_size=10)


def test_groups_that_the_data_set_has_in_two_splits_are_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images, labels = np.zeros((3, 4, 4, 1), dtype=np.uint8), np.array([0, 1, 1])
    data = patients(
        20,
        validation_images=images,
        validation_labels=labels,
        validation_names=("val/p3_9.png", "val/p77_0.png", "val/p77_1.png"),
        test_images=images,
        test_labels=labels,
        test_names=tuple(f"test/p{group}_9.png" for group in (1, 2, 77)),
    )
    splits = split(data)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [80, 3, 3]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "The data set has 1 of its 3 validation images in groups that its training images are in, "
        "too, so that they are easier than new ones: 'p3'",
        "The data set has 2 of its 3 test images in groups that its training images are in, too, "
        "so that they are easier than new ones: 'p1', 'p2'",
    ]


def test_test_pictures_of_a_folder_have_names_that_a_pattern_reads() -> None:
    for number in range(24):
        part = ("train", "train", "test")[number % 3]
        place = Path("pets", part, ("cat", "dog")[number % 2], f"p{number}_0.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(place)
    given = {"dataset": "folder", "data_dir": "pets", "batch_size": 2, "validation_size": 4}
    splits = load_splits(training_config(given | {"groups": "re:/(p[0-9]+)_"}), CPU)
    assert splits.test.names[0] == "test/cat/p14_0.png"
    data = patients(20, test_images=np.zeros((2, 4, 4, 1), np.uint8), test_labels=np.array([0, 1]))
    numbers = groups_of(data, TrainingConfig(groups="re:(p[0-9]+)_"))
    assert numbers is not None
    assert len(numbers) == 82
    assert numbers[80] != numbers[81]
