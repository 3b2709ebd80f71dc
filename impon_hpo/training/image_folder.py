"""The pictures of a folder: decoded once into one uint8 array in a file."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from impon_hpo.console import talk
from impon_hpo.errors import DataError
from impon_hpo.files import readable_name
from impon_hpo.training.decoding import decode
from impon_hpo.training.picture_files import PictureFiles
from impon_hpo.training.pixel_store import Filling, Notes, kept_array

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

    They are decoded once, into a file in the user's cache folder that all processes map into
    memory. A picture counts as changed if its name, size, inode, time of change or time of its
    inode's change are others.

    Args:
        files: The files.
        image_size: Side in pixels. The shorter side is resized to it, and the centre is kept.
            None: as they are, and then all must have the same size.
        skip_broken: Whether files that cannot be read are left out, with a warning.

    Raises:
        DataError: A file cannot be read, sizes differ, or there is no room for the pixels.
    """
    decoding = _Decoding(files, image_size, skip_broken)
    pixels, notes = kept_array(
        _key(files, image_size), decoding.shape, np.uint8, decoding.fill, "the pictures"
    )
    broken = {int(row): reason for row, reason in notes["broken"].items()}
    if not broken:
        return pixels, files.labels, files.names
    if not skip_broken:
        raise _unusable(broken, skip=True)
    listed = "\n  ".join(list(broken.values())[:SHOWN])
    log.warning(
        "%d of %d pictures cannot be read and are left out:\n  %s%s",
        len(broken),
        len(files.names),
        listed,
        f"\n  and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "",
    )
    kept = _without(broken, len(files.names))
    return pixels, files.labels[kept], tuple(files.names[row] for row in kept.tolist())


def _key(files: PictureFiles, image_size: int | None) -> str:
    """Return a hash of all that decides the pixels of some files."""
    digest = hashlib.sha256(os.fsencode(f"v3 {Path(files.folder).resolve()} {image_size}"))
    for name in files.names:
        try:
            stat = os.stat(os.path.join(files.folder, name))  # noqa: PTH116, PTH118
        except OSError:  # decoding says what is wrong with it
            look = "unreadable"
        else:
            look = f"{stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        digest.update(os.fsencode(f"\0{name}\0{look}"))
    return digest.hexdigest()[:32]


class _Decoding:
    """Decodes files, several at a time."""

    def __init__(self, files: PictureFiles, image_size: int | None, skip_broken: bool) -> None:
        self._files, self._image_size, self._skip = files, image_size, skip_broken
        self._broken: dict[int, str] = {}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of all pictures if they are as the first that can be read."""
        for row in range(len(self._files.names)):
            first = self._decoded(row)
            if first is not None:
                return len(self._files.names), *first.shape
            if not self._skip:
                break
        raise _unusable(self._broken, skip=not self._skip)

    def fill(self, filling: Filling) -> Notes:
        """Decode all files, and note those that are broken with the reason."""
        misfits: dict[int, str] = {}
        _, height, width, _ = filling.shape

        def place(start: int) -> None:
            for row in range(start, min(start + AT_A_TIME, filling.shape[0])):
                image = self._decoded(row)
                if image is None:
                    continue
                if image.shape[:2] == (height, width):
                    filling.put(row, image[None])
                else:
                    misfits[row] = (
                        f"{readable_name(self._path(row))}: {image.shape[1]}x{image.shape[0]} "
                        f"pixels, but the first has {width}x{height}; set image_size"
                    )

        starts = range(0, filling.shape[0], AT_A_TIME)
        good = next(row for row in range(filling.shape[0]) if row not in self._broken)
        n_threads = 1 if _n_pixels(self._path(good)) < SMALL else os.cpu_count()
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in track(
                pool.map(place, starts),
                total=len(starts),
                description="decoding images once",
                console=talk,
            ):
                if len(misfits) + (0 if self._skip else len(self._broken)) > 4:
                    pool.shutdown(cancel_futures=True)
                    break
        problems = misfits if self._skip else misfits | self._broken
        if problems:
            raise _unusable(problems, skip=bool(self._broken) and not self._skip)
        filling.keep(_without(self._broken, filling.shape[0]))
        return {"broken": dict(sorted(self._broken.items()))}

    def _path(self, row: int) -> str:
        return os.path.join(self._files.folder, self._files.names[row])  # noqa: PTH118

    def _decoded(self, row: int) -> NDArray[np.uint8] | None:
        try:
            return decode(self._path(row), self._image_size)
        except DataError as error:
            self._broken[row] = str(error)
            return None


def _without(broken: Collection[int], n: int) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(n), list(broken))


def _unusable(problems: dict[int, str], *, skip: bool) -> DataError:
    listed = "\n  ".join(problems[at] for at in sorted(problems)[:5])
    what_to_do = "\nMend or remove what is broken, or set skip_broken = true." if skip else ""
    return DataError(f"At least {len(problems)} image(s) cannot be used:\n  {listed}{what_to_do}")


def _n_pixels(file: str) -> int:
    with Image.open(file) as image:  # reads only its header
        return image.width * image.height
