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

log = logging.getLogger("impon_hpo")

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""Those of torchvision.datasets.ImageFolder."""

AT_A_TIME = 16
"""Images that a thread decodes before it gets more: handing out each one costs time."""

SMALL = 100 * 100
"""Below this number of pixels an image is decoded so fast that several threads would mostly wait
for Python's lock: one is faster."""


def class_folders(root: Path) -> tuple[str, ...]:
    """Return the names of the folders in `root`, sorted: one for each class.

    Raises:
        DataError: There is none.
    """
    names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
    if not names:
        raise DataError(
            f"'{root}' must have one folder of images for each class, but it has no folder."
        )
    return names


def read_classes(
    root: Path, names: tuple[str, ...], image_size: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Return all images (n, H, W, 3) uint8 below `root`, their labels (n,), and their files' names
    relative to `root`.

    Images become RGB. They are decoded once, and then read from the user's cache folder.

    Args:
        root: Has a folder for each class; one that is missing is a class without images.
        names: The classes, in the order of their labels.
        image_size: Side in pixels. The shorter side is resized to it, and the centre is kept.
            None: as they are, and then all images must have the same size.

    Raises:
        DataError: A folder has no image, an image cannot be read, or sizes differ.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        images = _images_below(root / name)
        if not images and (root / name).is_dir():
            raise DataError(
                f"Class folder '{root / name}' has no image ({', '.join(sorted(EXTENSIONS))})."
            )
        files += images
        labels += [label] * len(images)
    before = len(str(root / "x")) - 1
    relative = tuple(file[before:] for file in files)
    cached = _cache_path(root, files, relative, image_size)
    if cached.is_file():
        pixels = np.load(cached, mmap_mode="r")
    else:
        pixels = _decode(files, image_size)
        _write(cached, pixels)
    return pixels, np.asarray(labels, dtype=np.int64), relative


def _images_below(folder: Path) -> list[str]:
    """Return the paths of all images in a folder, in order; as text, which is fast for many."""
    paths = [
        os.path.join(inside, name)  # noqa: PTH118
        for inside, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
    ]
    return sorted(paths, key=lambda path: path.split(os.sep))  # noqa: PTH206


def _cache_path(
    root: Path, files: Iterable[str], relative: Iterable[str], image_size: int | None
) -> Path:
    """Return the cache of some files; its name is a hash of all that decides its content."""
    digest = hashlib.sha256(f"v1 {root.resolve()} {image_size}".encode())
    for file, name in zip(files, relative, strict=True):
        stat = os.stat(file)  # noqa: PTH116
        digest.update(f"\n{name} {stat.st_size} {stat.st_mtime_ns}".encode())
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
    with Image.open(file) as image:  # reads only its header
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
        # BOX averages over areas when it shrinks. It would only repeat pixels when it enlarges.
        method = Image.Resampling.BOX if side >= image_size else Image.Resampling.BICUBIC
        image = image.resize(
            (image_size, image_size), method, box=(left, top, left + side, top + side)
        )
    return np.asarray(image)


def _write(path: Path, images: NDArray[np.uint8]) -> None:
    """Write the cache. If that fails, the next run only takes longer."""
    try:
        with replacing(path) as file:
            np.save(file, images)
    except OSError as error:
        log.warning("Decoded images are not cached: %s", error)
