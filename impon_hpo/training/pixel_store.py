"""Arrays that are kept on disk and mapped into memory, so that all processes share them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError
from impon_hpo.files import free_disk, readable_bytes, replacing

log = logging.getLogger("impon_hpo")

LARGE = 2**26
"""Bytes above which an array lies in a file, which all processes of a machine share, and not in the
memory of each."""

CHUNK = 2**21
"""Bytes of images that are handled at a time in a pass over all; as floats they are four times as
many."""

THUMBNAIL = 8
"""Largest side of a thumbnail in pixels."""

SAMPLED = 16
"""Rows of a kept array whose content is compared before it is trusted."""

SPARE = 2**26
"""Bytes of a disk that are left free."""

Notes = dict[str, Any]


class Filling:
    """An array (n, ...) in a file that is being filled, by several threads if they like.

    Args:
        file: The file, empty.
        shape: Shape of the array.
        dtype: Its dtype.

    Raises:
        OSError: There is no room for it.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
        self._file, self.shape, self.dtype = file, shape, np.dtype(dtype)
        self._row = int(np.prod(shape[1:])) * self.dtype.itemsize
        self.begin = len(self._header(shape[0]))
        # Asked for at once: a disk that fills up later would kill whoever has mapped the file.
        os.posix_fallocate(file.fileno(), 0, self.begin + shape[0] * self._row)

    def put(self, row: int, values: NDArray[Any]) -> None:
        """Write rows (k, ...) from `row` on."""
        content = np.ascontiguousarray(values, dtype=self.dtype)
        os.pwrite(self._file.fileno(), content.data.cast("B"), self.begin + row * self._row)

    def put_all(self, chunks: Iterable[NDArray[Any]]) -> None:
        """Write chunks (k, ...) one behind the other, from the first row on."""
        row = 0
        for chunk in chunks:
            self.put(row, chunk)
            row += len(chunk)

    def keep(self, kept: NDArray[np.int64]) -> None:
        """Move the rows `kept` (k,), which ascend, to the front; the array ends behind them."""
        number = self._file.fileno()
        for place, row in enumerate(kept.tolist()):
            if place != row:
                content = os.pread(number, self._row, self.begin + row * self._row)
                os.pwrite(number, content, self.begin + place * self._row)
        self.shape = (len(kept), *self.shape[1:])

    def finish(self) -> None:
        """Write the header, and see to it that all is on the disk."""
        number = self._file.fileno()
        header = self._header(self.shape[0])
        assert len(header) == self.begin
        os.pwrite(number, header, 0)
        os.ftruncate(number, self.begin + self.shape[0] * self._row)
        os.fsync(number)

    def _header(self, n: int) -> bytes:
        written = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            written,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (n, *self.shape[1:]),
            },
        )
        return written.getvalue()


def kept_array(
    name: str,
    shape: Callable[[], tuple[int, ...]],
    dtype: Any,
    fill: Callable[[Filling], Notes],
    what: str,
) -> tuple[NDArray[Any], Notes]:
    """Return an array that is mapped from the user's cache folder, made there if need be.

    Of several processes that want it at once, one makes it. What is broken there is made again. If
    it cannot be kept there, it lies in a temporary file that vanishes with the process.

    Args:
        name: A hash of everything that decides its content.
        shape: Returns its shape; called only if it has to be made.
        dtype: Its dtype.
        fill: Fills it and returns notes, as plain JSON values, that are kept with it.
        what: What it is, for messages: "the images".

    Raises:
        DataError: There is no room for it anywhere.
    """
    path = cache_folder() / "arrays" / f"{name}.npy"
    found = _opened(path, dtype)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o666 & ~_umask())
        try:
            lock.acquire(timeout=0.2)
        except filelock.Timeout:
            log.info("waiting for another process, which prepares %s", what)
            lock.acquire()
        try:
            return _opened(path, dtype) or _made(path, shape(), dtype, fill, what)
        finally:
            lock.release()
    except OSError as error:
        log.warning(
            "There is no place for %s in '%s': %s. They go to a temporary file for now.",
            what,
            path.parent,
            error.strerror or error,
        )
        return _temporary(shape(), dtype, fill, what)


def _opened(path: Path, dtype: Any) -> tuple[NDArray[Any], Notes] | None:
    """Return the kept array, if it is there and whole."""
    try:
        about = json.loads(path.with_suffix(".json").read_bytes())
        array = np.load(path, mmap_mode="r")
        whole = array.dtype == dtype and _sample(array) == about["sample"]
        notes: Notes = about["notes"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError):
        whole = False
    if not whole:
        log.info("'%s' is broken or cannot be read, and is made again", path)
        return None
    return array, notes


def _made(
    path: Path, shape: tuple[int, ...], dtype: Any, fill: Callable[[Filling], Notes], what: str
) -> tuple[NDArray[Any], Notes]:
    for left in path.parent.glob(f"{path.stem}.*.tmp"):  # of a process that was killed
        left.unlink()
    _check_room(path.parent, shape, dtype)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("xb+") as file:
            filling = Filling(file, shape, dtype)
            notes = fill(filling)
            filling.finish()
        array = np.load(unfinished, mmap_mode="r")
        about = {"what": what, "sample": _sample(array), "notes": notes}
        with replacing(path.with_suffix(".json"), durable=True) as file:
            file.write(json.dumps(about).encode())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return np.load(path, mmap_mode="r"), notes


def _temporary(
    shape: tuple[int, ...], dtype: Any, fill: Callable[[Filling], Notes], what: str
) -> tuple[NDArray[Any], Notes]:
    folder = Path(tempfile.gettempdir())
    try:
        _check_room(folder, shape, dtype)
        with tempfile.TemporaryFile(dir=folder) as file:
            filling = Filling(file, shape, dtype)
            notes = fill(filling)
            filling.finish()
            array = np.memmap(file, dtype, "r", filling.begin, filling.shape)
    except OSError as error:
        raise DataError(
            f"There is no place for {what}, {' × '.join(map(str, shape))} values, neither in the "
            f"cache folder '{cache_folder()}' (set XDG_CACHE_HOME) nor in '{folder}' (set TMPDIR): "
            f"{error.strerror or error}. Free some disk, or make images smaller: "
            "--set image_size=…"
        ) from error
    return array, notes


def _check_room(folder: Path, shape: tuple[int, ...], dtype: Any) -> None:
    needed, free = math.prod(shape) * np.dtype(dtype).itemsize, free_disk(folder)
    if needed + SPARE > free:
        raise OSError(
            errno.ENOSPC,
            f"{readable_bytes(needed)} are needed and {readable_bytes(free)} are free",
        )


def _sample(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(str(array.shape).encode())
    for row in np.linspace(0, len(array) - 1, SAMPLED).astype(int):
        digest.update(np.ascontiguousarray(array[row]).tobytes())
    return digest.hexdigest()


_one_at_a_time = threading.Lock()


def _umask() -> int:
    # It can only be read by setting it, which counts for all threads: a strict one meanwhile.
    with _one_at_a_time:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def stored(images: NDArray[np.uint8], image_size: int | None) -> NDArray[np.uint8]:
    """Return images (n, H, W, C) at `image_size`, mapped from a file if they are many.

    Args:
        images: uint8; an array that is mapped from a file and has the right size stays where it is,
            unless it is read backwards, such as `[..., ::-1]`, which torch cannot do.
        image_size: Side in pixels to which they are resized; None: as they are.
    """
    side = images.shape[1:3] if image_size is None else (image_size, image_size)
    shape = (len(images), *side, images.shape[3])
    if math.prod(shape) <= LARGE:
        if images.shape == shape:
            return images
        return np.concatenate(list(_at_size(images, side)))
    if images.shape == shape and is_mapped(images) and min(images.strides) >= 0:
        return images

    def fill(filling: Filling) -> Notes:
        filling.put_all(_at_size(images, side))
        return {}

    name = name_of("pixels 1", _identity(images), *side)
    return kept_array(name, lambda: shape, np.uint8, fill, "the images")[0]


def _at_size(images: NDArray[np.uint8], side: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    for chunk in _chunks(images):
        tensor = torch.from_numpy(np.array(chunk))
        yield (tensor if chunk.shape[1:3] == side else resize(tensor, side[0])).numpy()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (k, H, W, C) uint8 to `size` × `size` pixels."""
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    # "area" averages when it shrinks. It would only repeat pixels when it enlarges.
    shrinks = min(planes.shape[2:]) >= size
    resized = interpolate(planes, (size, size), mode="area" if shrinks else "bicubic")
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Looks:
    """What is known of each image without reading all of its pixels.

    Args:
        moments: (n, 2, C) float32, mean and mean square of each channel, in units of 0 … 255.
        thumbnails: (n, h, w, C) uint8, each image shrunk to at most 8 × 8 pixels.
    """

    moments: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]


def image_moments(images: Tensor) -> Tensor:
    """Return mean and mean square (k, 2, C) float32 of each channel of images (k, H, W, C)."""
    planes = images.to(torch.float32)
    return torch.stack([planes.mean((1, 2)), planes.square().mean((1, 2))], 1)


def looks_of(pixels: NDArray[np.uint8]) -> Looks:
    """Return what images (n, H, W, C) look like; of images in a file it is kept beside the file's
    own place in the cache, so that it is worked out once."""
    n, height, width, channels = pixels.shape
    sides = min(THUMBNAIL, height), min(THUMBNAIL, width)
    look = np.dtype(
        [("moments", np.float32, (2, channels)), ("thumbnail", np.uint8, (*sides, channels))],
        align=True,
    )

    def looks() -> Iterator[NDArray[Any]]:
        for chunk in _chunks(pixels):
            planes = torch.from_numpy(np.array(chunk)).to(torch.float32)
            means = image_moments(planes)
            small = adaptive_avg_pool2d(planes.permute(0, 3, 1, 2), sides).permute(0, 2, 3, 1)
            found = np.zeros(len(chunk), look)
            found["moments"], found["thumbnail"] = means.numpy(), small.round().numpy()
            yield found

    def fill(filling: Filling) -> Notes:
        filling.put_all(looks())
        return {}

    if is_mapped(pixels) and pixels.filename is not None:
        name = name_of("looks 1", _identity(pixels))
        array, _ = kept_array(name, lambda: (n,), look, fill, "what the images look like")
    else:
        array = np.concatenate(list(looks()))
    return Looks(array["moments"], array["thumbnail"])


def is_mapped(images: NDArray[Any]) -> TypeGuard[np.memmap[Any, Any]]:
    """Return whether an array is (a view of) a file that is mapped into memory, and not a copy.

    One of mode "c" may have been changed in memory, so it is none.
    """
    if not isinstance(images, np.memmap) or getattr(images, "_mmap", None) is None:
        return False
    return images.mode != "c"


def _identity(images: NDArray[np.uint8]) -> str:
    """Return what tells these images from others: the file they are mapped from, or a hash."""
    if is_mapped(images) and images.filename is not None:
        stat = Path(images.filename).stat()
        begin = np.frombuffer(images._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
        place = images.offset, images.ctypes.data - begin, images.strides, images.shape
        return f"{images.filename} {place} {stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"
    digest = hashlib.sha256(str(images.shape).encode())
    for chunk in _chunks(images):
        digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def name_of(*parts: object) -> str:
    """Return the name of a kept array: a hash of what decides its content."""
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:32]


def _chunks(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    size = max(1, CHUNK // max(1, math.prod(images.shape[1:])))
    for begin in range(0, len(images), size):
        yield images[begin : begin + size]
