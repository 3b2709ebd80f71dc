"""The splits: who is in which, in what proportion, by which seed; resizing and normalisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.images import Images
from impon_hpo.training.splits import Split, Splits, load_splits, split_data
from tests.settings import training_config

CPU = torch.device("cpu")
property_settings = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def config(**given: Any) -> TrainingConfig:
    return training_config({"batch_size": 2} | given)


def numbered(labels: NDArray[np.int64], offset: int = 0) -> NDArray[np.uint8]:
    """Return images (n, 4, 4, 1) that carry their own number in the first two pixels."""
    numbers = np.arange(len(labels)) + offset
    images = np.zeros((len(labels), 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = numbers % 256, numbers // 256
    return images


def numbers_of(split: Split) -> list[int]:
    pixels = split.images[:].long()
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]).tolist()


def balanced(count: int, n_classes: int = 5) -> ImageData:
    labels = np.arange(count, dtype=np.int64) % n_classes
    return ImageData(numbered(labels), labels)


def with_test(count: int, n_test: int) -> ImageData:
    labels = np.arange(count, dtype=np.int64) % 5
    test_labels = np.arange(n_test, dtype=np.int64) % 5
    return ImageData(numbered(labels), labels, numbered(test_labels, 10_000), test_labels)


def split(data: ImageData, **given: Any) -> Splits:
    return split_data(data, config(**given), CPU)


def all_three(splits: Splits) -> list[list[int]]:
    return [numbers_of(part) for part in (splits.train, splits.validation, splits.test)]


@property_settings
@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    seed=st.integers(0, 2**31 - 1),
    share=st.floats(0.05, 0.4),
)
def test_splits_are_disjoint_and_cover_all_rows(counts: list[int], seed: int, share: float) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    # Three more of each so that something is left to train on.
    labels = np.concatenate([labels, np.repeat(np.arange(len(counts)), 3)])
    data = ImageData(numbered(labels), labels)
    splits = split(data, seed=seed, validation_size=share)
    train, validation, test = all_three(splits)
    assert sorted(train + validation + test) == list(range(len(labels)))
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels.tolist() == labels[numbers_of(part)].tolist()
        assert part.labels.dtype == torch.int64
        assert part.images[:].dtype == torch.uint8


def test_shares_are_a_tenth_for_test_and_a_tenth_of_the_rest_for_validation() -> None:
    splits = split(balanced(1000))
    assert (len(splits.test), len(splits.validation), len(splits.train)) == (100, 90, 810)


@pytest.mark.parametrize(("size", "expected"), [(0.1, 90), (0.5, 450), (7, 7), (5, 5), (500, 500)])
def test_validation_size_is_rows_or_a_share(size: int | float, expected: int) -> None:
    splits = split(balanced(1000), validation_size=size)
    assert (len(splits.validation), len(splits.train)) == (expected, 900 - expected)


def test_share_of_validation_gives_each_class_a_row_at_least() -> None:
    splits = split(balanced(100), validation_size=0.001)
    assert sorted(splits.validation.labels.tolist()) == [0, 1, 2, 3, 4]


@property_settings
@given(seed=st.integers(0, 2**31 - 1), rounds=st.integers(6, 60))
def test_equal_classes_stay_equal_where_sizes_divide(seed: int, rounds: int) -> None:
    data = balanced(5 * rounds)
    n_test = max(5, round(0.1 * 5 * rounds))
    splits = split(data, seed=seed, validation_size=10, subset=5)
    whole_rounds = n_test % 5 == 0
    for part in (splits.train, splits.validation, splits.test):
        counts = torch.bincount(part.labels, minlength=5)
        assert int(counts.max() - counts.min()) <= (0 if whole_rounds else 2)


@property_settings
@given(
    counts=st.lists(st.integers(20, 200), min_size=2, max_size=4),
    seed=st.integers(0, 2**31 - 1),
    n_validation=st.integers(4, 30),
)
def test_every_split_of_unequal_classes_is_in_proportion(
    counts: list[int], seed: int, n_validation: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    data = ImageData(numbered(labels), labels, numbered(labels[::10]), labels[::10])
    splits = split(data, seed=seed, validation_size=n_validation)
    # A prefix of the order holds of each class its proportion to half a row, and half a row for
    # each class by which the prefix itself is longer or shorter; and a row for each class that
    # would have none of validation.
    n_rare = sum(size * n_validation < len(labels) for size in counts)
    for part in (splits.validation, splits.train):
        held = np.bincount(part.labels.numpy(), minlength=len(counts))
        for count, size in zip(held, counts, strict=True):
            share = size / len(labels)
            assert abs(count - share * len(part)) <= 0.5 + share * len(counts) / 2 + n_rare + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_digits_are_split_in_proportion_to_a_row(seed: int) -> None:
    given_config = training_config({"dataset": "digits", "seed": seed})
    splits = load_splits(given_config, CPU)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1455, 162, 180]
    whole = sum(torch.bincount(part.labels, minlength=10) for part in parts)
    assert isinstance(whole, torch.Tensor)
    for part in (splits.test, splits.validation):
        held = torch.bincount(part.labels, minlength=10)
        assert float((held - whole * len(part) / 1797).abs().max()) < 1.5
    first = torch.bincount(splits.test.labels, minlength=10)
    assert float((first - whole * 180 / 1797).abs().max()) <= 1


def test_same_seed_same_split() -> None:
    assert all_three(split(balanced(200), seed=3)) == all_three(split(balanced(200), seed=3))


def test_other_seed_other_split() -> None:
    first, second = all_three(split(balanced(200), seed=3)), all_three(split(balanced(200), seed=4))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_global_random_state_is_neither_read_nor_changed() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]
    first = all_three(split(balanced(200)))
    after = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]
    assert torch.equal(before[0], after[0])
    np.testing.assert_equal(before[1], after[1])
    np.random.seed(1)
    torch.manual_seed(1)
    assert all_three(split(balanced(200))) == first


@property_settings
@given(subset=st.integers(5, 400), seed=st.integers(0, 1000))
def test_subset_is_exact_and_leaves_validation_and_test_as_they_are(subset: int, seed: int) -> None:
    data = balanced(600)
    whole, part = split(data, seed=seed), split(data, seed=seed, subset=subset)
    assert len(part.train) == subset
    assert numbers_of(part.validation) == numbers_of(whole.validation)
    assert numbers_of(part.test) == numbers_of(whole.test)
    assert set(numbers_of(part.train)) <= set(numbers_of(whole.train))


def test_smaller_subset_lies_within_the_larger() -> None:
    data = balanced(600)
    smaller, larger = split(data, subset=50), split(data, subset=200)
    assert set(numbers_of(smaller.train)) < set(numbers_of(larger.train))


def test_subset_has_the_classes_in_proportion() -> None:
    splits = split(balanced(600), subset=100, validation_size=50)
    assert torch.bincount(splits.validation.labels).tolist() == [10] * 5
    assert torch.bincount(splits.train.labels).tolist() == [20] * 5


def test_test_split_of_the_data_set_is_kept_untouched() -> None:
    for seed in (0, 1):
        splits = split(with_test(100, 17), seed=seed, subset=30)
        assert numbers_of(splits.test) == list(range(10_000, 10_017))
        assert splits.test.labels.tolist() == [at % 5 for at in range(17)]


def test_all_other_rows_of_a_data_set_with_test_split_train_or_validate() -> None:
    splits = split(with_test(100, 17))
    assert len(splits.validation) == 10
    assert sorted(numbers_of(splits.train) + numbers_of(splits.validation)) == list(range(100))


@pytest.mark.parametrize(
    ("given_settings", "numbers"),
    [
        ({"validation_size": 90}, ("90 rows", "validation_size = 90", "leaves 0")),
        ({"validation_size": 500}, ("90 rows", "validation_size = 500", "leaves 0")),
        ({"batch_size": 82}, ("90 rows", "leaves 81", r"batch_size (82)")),
        ({"subset": 82}, ("leaves 81", "subset (82)")),
        ({"subset": 20, "batch_size": 32}, ("subset (20)", "batch_size (32)")),
    ],
)
def test_too_few_rows_are_refused_with_the_numbers(
    given_settings: dict[str, Any], numbers: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as caught:
        split(balanced(100), **given_settings)
    assert all(number in str(caught.value) for number in numbers)
    assert "'digits'" in str(caught.value)


def test_just_enough_rows_will_do() -> None:
    assert len(split(balanced(100), batch_size=81, subset=81).train) == 81


def test_shrinking_averages_over_areas() -> None:
    images = np.zeros((9, 8, 12, 1), dtype=np.uint8)
    images[:, :2, :3, 0] = [[1, 2, 3], [4, 5, 9]]  # mean 4
    images[:, 6:, 9:, 0] = [[250, 255, 250], [255, 250, 252]]  # mean 252
    images[:, :2, 3:6, 0] = [[0, 0, 0], [0, 0, 4]]  # mean 0.67, rounds to 1
    labels = np.arange(9, dtype=np.int64) % 3
    resized = split(ImageData(images, labels), image_size=4).train.images[:]
    expected = torch.zeros(4, 4, dtype=torch.uint8)
    expected[0, 0], expected[3, 3], expected[0, 1] = 4, 252, 1
    assert resized.shape[1:] == (4, 4, 1)
    assert resized.is_contiguous()
    assert all(torch.equal(image[..., 0], expected) for image in resized)


def test_shrinking_by_no_whole_factor_averages_over_overlapping_areas() -> None:
    row = np.array([10, 20, 30, 40, 50, 60], dtype=np.uint8)
    images = np.broadcast_to(row[None, None, :, None], (9, 6, 6, 1)).copy()
    labels = np.arange(9, dtype=np.int64) % 3
    resized = split(ImageData(images, labels), image_size=4).train.images[:]
    # Columns 0-1, 1-2, 3-4, 4-5.
    assert resized[0, 0, :, 0].tolist() == [15, 25, 45, 55]


def test_enlarging_keeps_a_constant_image_and_stays_in_bytes() -> None:
    images = np.full((9, 4, 4, 3), 200, dtype=np.uint8)
    images[1:, :2] = 0
    images[1:, 2:] = 255  # a bicubic filter overshoots at an edge
    labels = np.arange(9, dtype=np.int64) % 3
    splits = split(ImageData(images, labels), image_size=8)
    every = torch.cat([splits.train.images[:], splits.validation.images[:], splits.test.images[:]])
    assert every.shape == (9, 8, 8, 3)
    constant = [image for image in every if int(image[0, 0, 0]) == 200]
    assert len(constant) == 1
    assert int(constant[0].min()) == int(constant[0].max()) == 200
    others = [image for image in every if int(image[0, 0, 0]) != 200]
    assert all(int(image[:3].max()) < 60 and int(image[5:].min()) > 195 for image in others)


def test_test_images_are_resized_too() -> None:
    labels = np.arange(10, dtype=np.int64) % 2
    images = np.zeros((10, 8, 8, 3), dtype=np.uint8)
    test_images = np.zeros((4, 12, 10, 3), dtype=np.uint8)
    data = ImageData(images, labels, test_images, labels[:4])
    assert split(data, image_size=6).test.images.shape == (4, 6, 6, 3)


def test_images_of_the_right_size_are_not_changed() -> None:
    splits = split(balanced(100), image_size=4)
    assert sorted(row for rows in all_three(splits) for row in rows) == list(range(100))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_training_rows_have_mean_zero_and_deviation_one(channels: int) -> None:
    generator = np.random.default_rng(0)
    scale = np.array([20, 90, 250])[:channels]
    images = (generator.random((200, 6, 5, channels)) * scale).astype(np.uint8)
    labels = np.arange(200, dtype=np.int64) % 4
    splits = split(ImageData(images, labels))
    pixels = splits.train.images[:].double()
    assert torch.allclose(splits.mean.double(), pixels.mean((0, 1, 2)), rtol=1e-6)
    assert torch.allclose(splits.std.double(), pixels.std((0, 1, 2), correction=0), rtol=1e-4)
    normalised = splits.normalise(splits.train.images[:])
    assert normalised.dtype == torch.float32
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-4
    assert (normalised.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_normalisation_knows_only_the_training_rows() -> None:
    splits = split(balanced(200))
    other = dataclasses.replace(
        splits,
        validation=Split(
            Images.of_tensor(splits.validation.images[:] + 9), splits.validation.labels
        ),
        test=Split(Images.of_tensor(splits.test.images[:] + 9), splits.test.labels),
    )
    assert torch.equal(other.mean, splits.mean)
    assert torch.equal(other.std, splits.std)


def test_normalised_images_have_channels_first_in_shape_and_last_in_memory() -> None:
    images = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    part = Split(Images.of_tensor(images), torch.tensor([0, 1]))
    splits = Splits(part, part, part, ("a", "b"), "none")
    normalised = splits.normalise(images)
    assert normalised.shape == (2, 3, 4, 5)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    # Channel c of image i holds 60 i + 3 k + c for k in 0 … 19: mean 30 + 28.5 + c over both,
    # variance 30² + 9 (20² - 1) / 12.
    deviation = (900 + 9 * 399 / 12) ** 0.5
    assert float(normalised[1, 2, 3, 4]) == pytest.approx((119 - 60.5) / deviation, rel=1e-6)


def test_constant_images_are_not_divided_by_zero() -> None:
    images = torch.full((4, 4, 4, 3), 77, dtype=torch.uint8)
    part = Split(Images.of_tensor(images), torch.tensor([0, 1, 0, 1]))
    splits = Splits(part, part, part, ("a", "b"), "none")
    assert splits.std.tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(splits.normalise(images), torch.zeros(4, 3, 4, 4))


@pytest.mark.parametrize("asked", ["auto", "none", "crop+flip", "trivial"])
def test_what_suits_the_data_set_is_kept_whatever_is_asked(asked: str) -> None:
    labels = np.arange(50, dtype=np.int64) % 5
    data = ImageData(numbered(labels), labels, augment="crop")
    assert split(data, augment=asked).augment == "crop"


def test_batch_sampler_reads_the_training_rows_normalised() -> None:
    splits = split(balanced(100))
    rows = splits.rows()
    picked = torch.tensor([3, 1])
    assert len(rows) == len(splits.train)
    assert rows.n_classes == splits.n_classes == 5
    assert torch.equal(rows.labels, splits.train.labels)
    assert torch.equal(rows.read(picked), splits.normalise(splits.train.images[picked]))


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown data set 'digit'\. Did you mean 'digits'"):
        load_splits(config(dataset="digit"), CPU)


def test_images_of_another_size_are_normalised_alike(tiny_splits: Splits) -> None:
    images = tiny_splits.test.images[:3][:, :5, :6]
    expected = ((images.float() - tiny_splits.mean) / tiny_splits.std).permute(0, 3, 1, 2)
    assert torch.equal(tiny_splits.normalise(images), expected)


def unequal(*counts: int) -> ImageData:
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageData(numbered(labels), labels)


@property_settings
@given(
    rare=st.lists(st.integers(3, 6), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    validation_size=st.one_of(st.integers(6, 60), st.floats(0.02, 0.5)),
    subset=st.one_of(st.none(), st.integers(6, 100)),
)
def test_each_class_is_in_every_split(
    rare: list[int], seed: int, validation_size: int | float, subset: int | None
) -> None:
    data = unequal(300, *rare)
    splits = split(data, seed=seed, validation_size=validation_size, subset=subset)
    for part in (splits.train, splits.validation, splits.test):
        assert (torch.bincount(part.labels, minlength=data.n_classes) >= 1).all()
    assert subset is None or len(splits.train) == subset
    rows = [row for numbers in all_three(splits) for row in numbers]
    assert len(rows) == len(set(rows))


def test_ten_rows_of_a_class_are_in_every_split() -> None:
    for seed in range(20):
        splits = split(unequal(1000, 10), seed=seed, subset=50)
        assert len(splits.train) == 50
        assert all(1 in part.labels for part in (splits.train, splits.validation, splits.test))


@pytest.mark.parametrize(
    ("given_settings", "numbers"),
    [
        ({"validation_size": 4}, "validation_size = 4 and subset = None give 4 rows of validation"),
        ({"subset": 4}, "subset = 4 give 9 rows of validation and 4 to train on"),
    ],
)
def test_fewer_rows_than_classes_are_refused_with_the_numbers(
    given_settings: dict[str, Any], numbers: str
) -> None:
    with pytest.raises(DataError, match="a row of each of the 5 classes") as caught:
        split(balanced(100), **given_settings)
    assert numbers in str(caught.value)
    assert str(caught.value).endswith("Each must be at least 5.")


def with_validation(count: int, n_validation: int, *, test: bool = False) -> ImageData:
    labels = np.arange(count, dtype=np.int64) % 5
    own = np.arange(n_validation, dtype=np.int64) % 5
    return ImageData(
        numbered(labels),
        labels,
        test_images=numbered(own, 20_000) if test else None,
        test_labels=own if test else None,
        validation_images=numbered(own, 10_000),
        validation_labels=own,
    )


def test_validation_images_of_the_data_set_are_validation_and_no_row_is_set_aside(
    said: list[str],
) -> None:
    for seed in (0, 1):
        splits = split(with_validation(100, 17), seed=seed, validation_size=50)
        assert numbers_of(splits.validation) == list(range(10_000, 10_017))
        assert splits.validation.labels.tolist() == [at % 5 for at in range(17)]
        assert splits.validation.names == tuple(f"validation/{at}" for at in range(17))
        assert (len(splits.train), len(splits.test)) == (90, 10)
        assert sorted(numbers_of(splits.train) + numbers_of(splits.test)) == list(range(100))
    told = "validation: 17 images that the data set has for it; validation_size does not apply"
    assert said == [told, told]


def test_a_data_set_may_have_all_splits_of_its_own() -> None:
    splits = split(with_validation(100, 7, test=True))
    assert numbers_of(splits.train) == list(range(100))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [100, 7, 7]
    assert len(split(with_validation(100, 7, test=True), subset=20).train) == 20


def test_validation_images_are_resized_too() -> None:
    assert split(with_validation(100, 17), image_size=6).validation.images.shape == (17, 6, 6, 1)


def test_too_few_rows_beside_validation_images_are_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"has 90 rows for training\. .*batch_size \(91\)"):
        split(with_validation(100, 17), batch_size=91)
