"""A small folder of pictures, and what is looked at when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder

from impon_hpo.training.data import load_folder
from impon_hpo.training.image_data import ImageData


def load(root: Path, image_size: int | None = None) -> ImageData:
    return load_folder(root=root, download=False, image_size=image_size)


def draw(path: Path, *, seed: int = 0, size: tuple[int, int] = (6, 5)) -> NDArray[np.uint8]:
    """Write a random RGB image of a (width, height) and return its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def draw_class(folder: Path, count: int, *, seed: int = 0) -> list[NDArray[np.uint8]]:
    return [draw(folder / f"{at}.png", seed=100 * seed + at) for at in range(count)]


def pets(folder: Path) -> Path:
    """Make a folder `pets` with `train/` (cat 3, dog 4) and `test/` (cat 1, dog 2)."""
    root = folder / "pets"
    draw_class(root / "train" / "dog", 4, seed=1)
    draw_class(root / "train" / "cat", 3, seed=2)
    draw_class(root / "test" / "dog", 2, seed=3)
    draw_class(root / "test" / "cat", 1, seed=4)
    return root


def add_validation(root: Path) -> Path:
    """Add `val/` (cat 2, dog 1) to the folder."""
    draw_class(root / "val" / "cat", 2, seed=5)
    draw_class(root / "val" / "dog", 1, seed=6)
    return root


@contextmanager
def opened() -> Iterator[list[str]]:
    """Note the name of every image file that is opened."""
    names: list[str] = []
    real = Image.open

    def noting(file: Path, *args: Any, **kwargs: Any) -> Image.Image:
        names.append(Path(file).name)
        return real(file, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", noting)
        yield names


def assert_equals_torchvision(
    images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path
) -> None:
    reference = ImageFolder(str(folder))
    assert labels.tolist() == reference.targets
    assert len(images) == len(reference)
    for image, (expected, _) in zip(images, reference, strict=True):
        assert np.array_equal(image, np.asarray(expected))
