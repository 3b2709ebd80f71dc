"""Augmentation: each image becomes one of its own crops and mirror images, all equally often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.training.augmentation import Augmentation
from impon_hpo.training.image_data import Augment

SIZES = [(8, 8), (4, 4), (16, 12), (8, 24)]


def augmentation(images: Tensor, augment: Augment, seed: int) -> Augmentation:
    _, height, width, _ = images.shape
    return Augmentation(height, width, augment.split("+"), seed, images.device)


def distinct(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Return random images, none of whose crops look alike."""
    generator = torch.Generator().manual_seed(height * width)
    shape = (count, height, width, channels)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)


def padding_of(height: int) -> int:
    return max(1, height // 8)


def possible(image: Tensor, augment: str) -> dict[bytes, tuple[int, int, bool]]:
    """Return every outcome for an image, worked out with numpy, with its offsets and flip."""
    pixels = image.numpy()
    height, width = pixels.shape[:2]
    by = padding_of(height) if "crop" in augment else 0
    padded = np.pad(pixels, ((by, by), (by, by), (0, 0)))
    found = {}
    for flip in (False, True) if "flip" in augment else (False,):
        for down in range(2 * by + 1):
            for across in range(2 * by + 1):
                crop = padded[down : down + height, across : across + width]
                found[(crop[:, ::-1] if flip else crop).tobytes()] = (down, across, flip)
    return found


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.sampled_from(SIZES),
    augment=st.sampled_from(["none", "crop", "flip", "crop+flip"]),
    channels=st.sampled_from([1, 3]),
    rows=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_image_becomes_one_of_its_own_crops_and_flips(
    size: tuple[int, int], augment: Augment, channels: int, rows: list[int], seed: int
) -> None:
    images = distinct(5, *size, channels)
    result = augmentation(images, augment, seed)(images[rows])
    assert result.shape == (len(rows), *size, channels)
    assert result.dtype == torch.uint8
    for row, image in zip(rows, result, strict=True):
        assert image.numpy().tobytes() in possible(images[row], augment)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("augment", ["crop", "flip", "crop+flip"])
def test_all_offsets_and_both_flips_occur_equally_often(
    size: tuple[int, int], augment: Augment
) -> None:
    images = distinct(1, *size)
    outcomes = possible(images[0], augment)
    n_outcomes = (2 * padding_of(size[0]) + 1) ** (2 if "crop" in augment else 0) * (
        2 if "flip" in augment else 1
    )
    assert len(outcomes) == n_outcomes  # no two look alike
    each = 100
    rows = torch.zeros(each * n_outcomes, dtype=torch.int64)
    seen = Counter(
        outcomes[image.numpy().tobytes()]
        for image in augmentation(images, augment, 7)(images[rows])
    )
    assert set(seen) == set(outcomes.values())
    # The count of one outcome has a standard deviation below 10; five of them are never seen.
    assert all(abs(count - each) < 50 for count in seen.values())


def test_images_of_a_batch_are_changed_independently() -> None:
    images = distinct(2, 8, 8)
    outcomes = [possible(image, "crop+flip") for image in images]
    augmented = augmentation(images, "crop+flip", 0)
    pairs: Counter[tuple[bool, bool]] = Counter()
    same = 0
    for _ in range(400):
        first, second = augmented(images)
        one, other = (
            outcomes[at][image.numpy().tobytes()] for at, image in enumerate((first, second))
        )
        pairs[one[2], other[2]] += 1
        same += one == other
    assert all(60 < count < 140 for count in pairs.values())  # 100 ± 4.6 deviations of 8.7
    assert len(pairs) == 4
    assert 3 < same < 50  # 400 / 18 = 22


def test_image_is_changed_anew_at_every_reading() -> None:
    images = distinct(1, 8, 8)
    augmented = augmentation(images, "crop+flip", 0)
    read = {augmented(images).numpy().tobytes() for _ in range(50)}
    assert len(read) > 10


def test_none_returns_the_images_unchanged() -> None:
    images = distinct(5, 8, 8)
    rows = torch.tensor([4, 0, 0, 2])
    assert torch.equal(augmentation(images, "none", 0)(images[rows]), images[rows])


def test_none_draws_no_random_number() -> None:
    images = distinct(2, 8, 8)
    augmented = augmentation(images, "none", 5)
    before = augmented.generator.get_state()
    augmented(images)
    assert torch.equal(augmented.generator.get_state(), before)


def test_same_seed_same_result() -> None:
    images, rows = distinct(3, 8, 8), torch.tensor([0, 1, 2, 0])
    first, second = (augmentation(images, "crop+flip", 11) for _ in range(2))
    for _ in range(3):
        assert torch.equal(first(images[rows]), second(images[rows]))


def test_other_seed_other_result() -> None:
    images, rows = distinct(3, 8, 8), torch.arange(3).repeat(10)
    first, second = (augmentation(images, "crop+flip", seed) for seed in (1, 2))
    assert not torch.equal(first(images[rows]), second(images[rows]))


def test_saved_generator_continues_where_it_was() -> None:
    images, rows = distinct(3, 8, 8), torch.arange(3).repeat(10)
    first = augmentation(images, "crop+flip", 1)
    first(images[rows])
    state = first.generator.get_state()
    expected = first(images[rows])
    second = augmentation(images, "crop+flip", 99)
    second.generator.set_state(state)
    assert torch.equal(second(images[rows]), expected)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    images = distinct(3, 8, 8)
    augmentation(images, "crop+flip", 1)(images)
    assert torch.equal(torch.get_rng_state(), before)


def test_given_images_are_not_changed() -> None:
    images = distinct(3, 8, 8)
    before = images.clone()
    augmentation(images, "crop+flip", 1)(images[:2])
    assert torch.equal(images, before)


@pytest.mark.parametrize(("height", "expected"), [(4, 1), (8, 1), (15, 1), (16, 2), (32, 4)])
def test_padding_is_an_eighth_of_the_side(height: int, expected: int) -> None:
    assert augmentation(distinct(1, height, height), "crop", 0).padding == expected
