"""The pictures of a folder: decoded once into one cached uint8 array."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from impon_hpo.console import talk
from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError
from impon_hpo.files import readable_bytes, readable_name, replacing
from impon_hpo.training.decoding import decode
from impon_hpo.training.picture_files import PictureFiles

log = logging.getLogger("impon_hpo")

AT_A_TIME = 16
"""Images that a thread decodes before it gets more: handing out each one costs time."""

SMALL = 100 * 100
"""Below this number of pixels an image is decoded so fast that several threads would mostly wait
for Python's lock: one is faster."""


SHOWN = 20
"""Broken pictures that a warning lists."""


def read_pictures(
    files: PictureFiles, image_size: int | None, *, skip_broken: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Return the pictures (n, H, W, 3) uint8 of some files, their labels (n,) int64 and the names
    (n,) of the files.

    They are decoded once, and then read from the user's cache folder. A file counts as changed if
    its name, size, inode, time of change or time of its inode's change are others.

    Args:
        files: The files.
        image_size: Side in pixels. The shorter side is resized to it, and the centre is kept.
            None: as they are, and then all must have the same size.
        skip_broken: Whether files that cannot be read are left out, with a warning.

    Raises:
        DataError: A file cannot be read, sizes differ, or memory is too small.
    """
    paths = [os.path.join(files.folder, name) for name in files.names]  # noqa: PTH118
    cached = _cache_path(files, paths, image_size)
    if cached.is_file():
        return np.load(cached, mmap_mode="r"), files.labels, files.names
    pixels, broken = _decode(paths, image_size, skip_broken)
    if not broken:
        _write(cached, pixels)
        return pixels, files.labels, files.names
    listed = "\n  ".join(list(broken.values())[:SHOWN])
    log.warning(
        "%d of %d pictures cannot be read and are left out:\n  %s%s",
        len(broken),
        len(paths),
        listed,
        f"\n  and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "",
    )
    kept = np.setdiff1d(np.arange(len(paths)), list(broken))
    return pixels[kept], files.labels[kept], tuple(files.names[row] for row in kept.tolist())


def _cache_path(files: PictureFiles, paths: Sequence[str], image_size: int | None) -> Path:
    """Return the cache of some files; its name is a hash of all that decides its content."""
    digest = hashlib.sha256(os.fsencode(f"v2 {Path(files.folder).resolve()} {image_size}"))
    for path, name in zip(paths, files.names, strict=True):
        try:
            stat = os.stat(path)  # noqa: PTH116
        except OSError:  # decoding says what is wrong with it
            look = "unreadable"
        else:
            look = f"{stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        digest.update(os.fsencode(f"\0{name}\0{look}"))
    return cache_folder() / "folders" / f"{digest.hexdigest()[:32]}.npy"


def _decode(
    paths: Sequence[str], image_size: int | None, skip_broken: bool
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Return the pixels (n, H, W, 3) of all files, and for each broken one its row and why; its
    pixels mean nothing."""
    broken: dict[int, str] = {}
    misfits: dict[int, str] = {}

    def decoded(at: int) -> NDArray[np.uint8] | None:
        try:
            return decode(paths[at], image_size)
        except DataError as error:
            broken[at] = str(error)
            return None

    first = None
    for begin in range(len(paths)):
        first = decoded(begin)
        if first is not None or not skip_broken:
            break
    if first is None:
        raise _unusable(broken, skip=not skip_broken)
    _check_memory(len(paths), first)
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)

    def place(at: int) -> None:
        image = decoded(at)
        if image is None:
            return
        if image.shape != first.shape:
            misfits[at] = (
                f"{readable_name(paths[at])}: {image.shape[1]}x{image.shape[0]} pixels, but the "
                f"first has {first.shape[1]}x{first.shape[0]}; set image_size"
            )
        else:
            images[at] = image

    def place_some(start: int) -> None:
        for at in range(start, min(start + AT_A_TIME, len(paths))):
            place(at)

    begins = range(0, len(paths), AT_A_TIME)
    n_threads = 1 if _n_pixels(paths[begin]) < SMALL else os.cpu_count()
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in track(
            pool.map(place_some, begins),
            total=len(begins),
            description="decoding images once",
            console=talk,
        ):
            if len(misfits) + (0 if skip_broken else len(broken)) > 4:
                pool.shutdown(cancel_futures=True)
                break
    problems = misfits if skip_broken else misfits | broken
    if problems:
        raise _unusable(problems, skip=bool(broken) and not skip_broken)
    return images, dict(sorted(broken.items()))


def _unusable(problems: dict[int, str], *, skip: bool) -> DataError:
    listed = "\n  ".join(problems[at] for at in sorted(problems)[:5])
    what_to_do = "\nMend or remove what is broken, or set skip_broken = true." if skip else ""
    return DataError(f"At least {len(problems)} image(s) cannot be used:\n  {listed}{what_to_do}")


def _check_memory(count: int, first: NDArray[np.uint8]) -> None:
    needed = count * first.nbytes
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{count:,} images of {first.shape[1]}x{first.shape[0]} pixels, as the first has, take "
            f"{readable_bytes(needed)}, but this machine has {readable_bytes(there)} of memory. "
            "Set image_size to a smaller side."
        )


def _n_pixels(file: str) -> int:
    with Image.open(file) as image:  # reads only its header
        return image.width * image.height


def _write(path: Path, images: NDArray[np.uint8]) -> None:
    """Write the cache. If that fails, the next run only takes longer."""
    try:
        with replacing(path) as file:
            np.save(file, images)
    except OSError as error:
        log.warning("Decoded images are not cached: %s", error)
