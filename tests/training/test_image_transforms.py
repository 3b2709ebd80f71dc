"""Transforms called for each image: each row drawn on its own, from the run's own numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from impon_hpo.errors import ConfigError
from impon_hpo.training.image_transforms import ImageTransforms

USERS = "tests.training.augmenting:"
NAMES = ["resized-crop", "trivial", "rand", "erase", f"{USERS}shifted"]


def images_of(n: int, height: int = 16, width: int = 16, channels: int = 3) -> Tensor:
    """n times the same image (H, W, C) uint8 of random pixels."""
    generator = torch.Generator().manual_seed(7)
    one = torch.randint(0, 200, (height, width, channels), generator=generator)
    return one.to(torch.uint8).expand(n, -1, -1, -1).clone()


def transforms(*names: str, seed: int = 0, images: Tensor | None = None, **options: Any) -> Any:
    given = {name.replace("_", "-"): value for name, value in options.items()}
    image = (images_of(1) if images is None else images)[0]
    return ImageTransforms(names, given, image, seed)


def distinct(images: Tensor) -> int:
    return len({image.numpy().tobytes() for image in images})


@pytest.mark.parametrize("name", NAMES)
def test_each_row_is_changed_on_its_own(name: str) -> None:
    images = images_of(64)
    changed = transforms(name)(images)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert distinct(changed) >= 8  # of 13 that `shifted` has; one, were a batch drawn at once
    assert torch.equal(images, images_of(64))


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_is_changed_anew_and_the_same_for_a_seed(name: str) -> None:
    images = images_of(16)
    first, second, other = (transforms(name, seed=seed) for seed in (1, 1, 2))
    batches = [first(images), first(images)]
    assert not torch.equal(*batches)
    assert all(torch.equal(batch, second(images)) for batch in batches)
    assert not torch.equal(batches[0], other(images))


@pytest.mark.parametrize("name", NAMES)
def test_global_random_numbers_are_left_alone(name: str) -> None:
    def after(use: bool) -> list[Any]:
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if use:
            transforms(name)(images_of(4))
        return [torch.rand(2).tolist(), np.random.rand(), random.random()]

    assert after(True) == after(False)


def test_goes_on_from_its_state() -> None:
    first, second = transforms(*NAMES, seed=1), transforms(*NAMES, seed=2)
    images = images_of(8)
    first(images)
    second.randomness.load_state_dict(first.randomness.state_dict())
    assert torch.equal(first(images), second(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_grey_and_coloured_images_that_are_not_square(name: str, channels: int) -> None:
    images = images_of(40, 12, 18, channels)
    assert transforms(name, images=images)(images).shape == images.shape


@pytest.mark.parametrize("name", ["resized-crop", "erase", f"{USERS}shifted"])
def test_any_number_of_channels_where_no_colour_is_changed(name: str) -> None:
    images = images_of(8, channels=13)
    assert distinct(transforms(name, images=images)(images)) > 1


@pytest.mark.parametrize("name", ["trivial", "rand"])
def test_many_channels_are_refused_where_colours_are_changed(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' needs images with 1 or 3 channels.* 13\."):
        transforms(name, images=images_of(1, channels=13))


def test_they_are_called_in_the_order_of_their_names() -> None:
    erase = {"p": 1.0, "scale": [0.5, 0.5], "ratio": [1.0, 1.0], "value": 255}
    added = f"{USERS}in_place"
    images = images_of(20)
    before = transforms("erase", added, erase=erase)(images)
    after = transforms(added, "erase", erase=erase)(images)
    assert not (before == 255).any()  # a byte goes round to 0
    assert ((after == 255).all(3).sum((1, 2)) >= 100).all()


def test_options_are_torchvisions() -> None:
    images = images_of(12)
    found = transforms("rand", rand={"num_ops": 1, "magnitude": 30}, seed=4)(images)
    torch.manual_seed(4)
    library = v2.RandAugment(num_ops=1, magnitude=30)
    expected = torch.stack([library(image.permute(2, 0, 1)).permute(1, 2, 0) for image in images])
    assert torch.equal(found, expected)


def test_erasing_happens_as_often_as_asked() -> None:
    images = images_of(400)
    erased = transforms("erase", erase={"p": 0.25, "value": 255})(images)
    changed = int((erased != images).flatten(1).any(1).sum())
    assert 60 < changed < 140  # 100 ± 4.6 deviations of 8.7


def test_a_resized_crop_of_almost_nothing_is_refused_with_what_fits() -> None:
    images = images_of(4, 8, 8)
    with pytest.raises(ConfigError, match=r"2\.3 × 2\.3 pixels out of 8 × 8.*= \[0\.25, 1\.0\]"):
        transforms("resized-crop", images=images)
    cropped = transforms("resized-crop", images=images, resized_crop={"scale": [0.25, 1.0]})
    assert distinct(cropped(images)) > 1


def test_nothing_asked_is_nothing_done() -> None:
    images = images_of(2)
    nothing = transforms("crop", "flip", "mixup")
    assert nothing(images) is images
    assert nothing.randomness is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("as_floats", r"returned a tensor \(3, 16, 16\) float32 on cpu\.$"),
        ("channels_last", r"\(3, 16, 16\) uint8 on cpu, but it returned a tensor \(16, 16, 3\)"),
        ("one_channel", r"returned a tensor \(1, 16, 16\) uint8"),
        ("as_array", r"returned ndarray\.$"),
        ("failing", r"\(C, H, W\) = \(3, 16, 16\) uint8 and raised KeyError: 'which'"),
        ("NOT_A_FUNCTION", r"must be a function \(image\) -> image, but it is int"),
        ("missing", "has no 'missing'"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_when_the_run_is_made(
    name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        transforms(f"{USERS}{name}")


def test_a_function_cannot_change_the_data() -> None:
    images = images_of(3)
    changed = transforms(f"{USERS}in_place", images=images)
    assert torch.equal(images, images_of(3))
    assert torch.equal(changed(images.clone()), images + 1)
