"""A folder of images, one folder a class: decoded once into one cached uint8 array."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from impon_hpo.console import talk
from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError
from impon_hpo.files import replacing
from impon_hpo.training.image_data import ImageData

log = logging.getLogger("impon_hpo")

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""Those of torchvision.datasets.ImageFolder."""

AT_A_TIME = 16
"""Images that a thread decodes before it is given more: handing out each costs time."""

SMALL = 100 * 100
"""Pixels of an image below which one thread is faster than several: decoding it takes so short a
time that they mostly wait for Python's lock."""


def load_folder(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """Read a folder of images in the layout of `torchvision.datasets.ImageFolder`.

    `root/train/<class>/…` and, where there is one, `root/test/<class>/…`; without `train/`, the
    classes lie in `root` itself. Images become RGB. With an `image_size`, the shorter side is
    resized to it and the centre kept; without one all images must be of one size.

    Raises:
        DataError: The folder is missing or empty, an image cannot be read, sizes differ, or a class
            of `test/` is not in `train/`.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder '{root}'. Give it with --set data_dir=…")
    train_root = root / "train" if (root / "train").is_dir() else root
    names = _class_names(train_root)
    images, labels = _read_classes(train_root, names, image_size)
    if not (root / "test").is_dir() or train_root == root:
        return ImageData(images, labels, class_names=names, augment="crop+flip")
    strangers = set(_class_names(root / "test")) - set(names)
    if strangers:
        raise DataError(
            f"'{root / 'test'}' has classes that '{train_root}' has not: {sorted(strangers)}."
        )
    test_images, test_labels = _read_classes(root / "test", names, image_size)
    return ImageData(images, labels, test_images, test_labels, names, augment="crop+flip")


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
    if not names:
        raise DataError(
            f"'{root}' must hold one folder of images per class, but holds no folder at all."
        )
    return names


def _read_classes(
    root: Path, names: tuple[str, ...], image_size: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = _images_below(root / name)
        if not found and (root / name).is_dir():
            raise DataError(
                f"Class folder '{root / name}' holds no image ({', '.join(sorted(EXTENSIONS))})."
            )
        files += found
        labels += [label] * len(found)
    cached = _cache_path(root, files, image_size)
    if cached.is_file():
        return np.load(cached, mmap_mode="r"), np.asarray(labels, dtype=np.int64)
    images = _decode(files, image_size)
    _write(cached, images)
    return images, np.asarray(labels, dtype=np.int64)


def _images_below(folder: Path) -> list[str]:
    """Return the paths of all images in a folder, in order; as text, which is fast for many."""
    found = [
        os.path.join(inside, name)  # noqa: PTH118
        for inside, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
    ]
    return sorted(found, key=lambda path: path.split(os.sep))  # noqa: PTH206


def _cache_path(root: Path, files: Iterable[str], image_size: int | None) -> Path:
    """Name the cache after everything that decides its content: files, sizes, times, size."""
    before = len(str(root / "x")) - 1
    digest = hashlib.sha256(f"v1 {root.resolve()} {image_size}".encode())
    for file in files:
        stat = os.stat(file)  # noqa: PTH116
        digest.update(f"\n{file[before:]} {stat.st_size} {stat.st_mtime_ns}".encode())
    return cache_folder() / "folders" / f"{digest.hexdigest()[:32]}.npy"


def _decode(files: list[str], image_size: int | None) -> NDArray[np.uint8]:
    first = _decode_one(files[0], image_size)
    if isinstance(first, str):
        raise DataError(f"1 image cannot be used:\n  {first}")
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    problems: list[str] = []

    def place(at: int) -> None:
        image = _decode_one(files[at], image_size)
        if isinstance(image, str):
            problems.append(image)
        elif image.shape != first.shape:
            problems.append(
                f"{files[at]}: {image.shape[1]}x{image.shape[0]} pixels, but the first has "
                f"{first.shape[1]}x{first.shape[0]}; set image_size"
            )
        else:
            images[at] = image

    def place_some(begin: int) -> None:
        for at in range(begin, min(begin + AT_A_TIME, len(files))):
            place(at)

    begins = range(0, len(files), AT_A_TIME)
    n_threads = 1 if _n_pixels(files[0]) < SMALL else os.cpu_count()
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in track(
            pool.map(place_some, begins),
            total=len(begins),
            description="decoding images once",
            console=talk,
        ):
            if len(problems) > 4:
                pool.shutdown(cancel_futures=True)
                break
    if problems:
        listed = "\n  ".join(sorted(problems)[:5])
        raise DataError(f"At least {len(problems)} image(s) cannot be used:\n  {listed}")
    return images


def _n_pixels(file: str) -> int:
    with Image.open(file) as image:  # reads its head only
        return image.width * image.height


def _decode_one(file: str, image_size: int | None) -> NDArray[np.uint8] | str:
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{file}: {error}"
    if image_size is not None and image.size != (image_size, image_size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # BOX averages over areas when it shrinks; when it enlarges, it would only repeat pixels.
        how = Image.Resampling.BOX if side >= image_size else Image.Resampling.BICUBIC
        image = image.resize(
            (image_size, image_size), how, box=(left, top, left + side, top + side)
        )
    return np.asarray(image)


def _write(path: Path, images: NDArray[np.uint8]) -> None:
    """Write the cache whole or not at all; a cache that cannot be written costs only time."""
    try:
        with replacing(path) as file:
            np.save(file, images)
    except OSError as error:
        log.warning("Decoded images are not cached: %s", error)
