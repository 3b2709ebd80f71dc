"""The images of a split: rows of an array that lies in memory, in a mapped file or on a GPU."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impon_hpo.files import readable_bytes
from impon_hpo.training.pixel_store import (
    CHUNK,
    LARGE,
    Looks,
    image_moments,
    is_mapped,
    looks_of,
    stored,
)

log = logging.getLogger("impon_hpo")

CPU = torch.device("cpu")

SHARE = 0.4
"""Share of a GPU's free memory that images may take; the rest is for the model and its steps."""


_one_at_a_time = threading.Lock()


class Source:
    """An array (m, H, W, C) uint8 that images are rows of: what is worked out about all of it is
    worked out once, whoever has which rows."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.tensor = _as_tensor(pixels)

    def __reduce__(self) -> tuple[type[Source], tuple[NDArray[np.uint8]]]:
        return Source, (self.pixels,)  # not the tensor, which is the same memory

    @cached_property
    def looks(self) -> Looks:
        """Moments and thumbnails of each image."""
        return looks_of(self.pixels)


class Images:
    """Images (n, H, W, C) uint8 that are read a few rows at a time.

    They are rows of an array that stays where it is: in memory, or in a file that is mapped into
    memory and shared by all processes that read it. For a GPU they are copied into its memory
    (`on_device`), or each batch through pinned host memory.

    Args:
        pixels: (m, H, W, C) uint8, or what other images have of it.
        rows: (n,) int64, which of `pixels` these images are, in order; default all.
        device: Where images are wanted; default the CPU.
        there: (n, H, W, C) uint8, the images on that device, if they lie there.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from impon_hpo.training.images import Images
        >>> images = Images(np.zeros((60, 8, 8, 3), dtype=np.uint8), rows=np.arange(0, 60, 2))
        >>> images
        Images(uint8 (30, 8, 8, 3), in memory)
        >>> images[torch.tensor([4, 2])].shape
        torch.Size([2, 8, 8, 3])
    """

    dtype = torch.uint8

    def __init__(
        self,
        pixels: NDArray[np.uint8] | Source,
        rows: NDArray[np.int64] | None = None,
        device: torch.device = CPU,
        there: Tensor | None = None,
    ) -> None:
        self._source = pixels if isinstance(pixels, Source) else Source(pixels)
        self.rows, self.device = rows, device
        self._there = there
        self._index = None if rows is None else torch.from_numpy(rows)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The array (m, H, W, C) uint8 that these images are rows of."""
        return self._source.pixels

    @classmethod
    def of_tensor(cls, images: Tensor) -> Images:
        """Return images that lie on a device already."""
        there = None if images.device == CPU else images
        return cls(images.cpu().numpy(), device=images.device, there=there)

    def __repr__(self) -> str:
        place = "mapped from a file" if is_mapped(self.pixels) else "in memory"
        if self.device != CPU:
            place += f" of {self.device}" if self._there is not None else f", for {self.device}"
        return f"Images(uint8 {tuple(self.shape)}, {place})"

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    @property
    def shape(self) -> torch.Size:
        """(n, H, W, C)."""
        return torch.Size((len(self), *self.pixels.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return math.prod(self.shape)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return the images (k, H, W, C) uint8 of `rows` (k,) int64, on the device.

        Args:
            dim: 0; it is there so that a tensor can stand in for this object.
            rows: Row numbers, 0 … n - 1, on the CPU or the device.
        """
        if self._there is not None:
            return self._there.index_select(dim, rows.to(self.device))
        rows = rows.cpu()
        if self._index is not None:
            rows = self._index.index_select(0, rows)
        if self.device == CPU:
            return self._source.tensor.index_select(dim, rows)
        # torch gives pinned memory to the next batch only once this one's copy is done.
        shape = len(rows), *self.pixels.shape[1:]
        pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        torch.index_select(self._source.tensor, dim, rows, out=pinned)
        return pinned.to(self.device, non_blocking=True)

    def __getitem__(self, key: slice | int | Sequence[int] | Tensor) -> Tensor:
        rows = torch.arange(len(self))[key.cpu() if isinstance(key, Tensor) else key]
        images = self.index_select(0, rows.reshape(-1))
        return images.reshape(*rows.shape, *images.shape[1:])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all images in order, at most `size` at a time."""
        if self._there is not None:
            yield from self._there.split(size)
            return
        for rows in torch.arange(len(self)).split(size):
            yield self.index_select(0, rows)

    def of(self, rows: Tensor) -> Images:
        """Return the images of `rows` (k,) int64, numbers on the CPU or the device; in host memory
        without a copy."""
        picked = rows.cpu().numpy()
        kept = picked if self.rows is None else self.rows[picked]
        there = None if self._there is None else self._there.index_select(0, rows.to(self.device))
        return Images(self._source, kept, self.device, there)

    def on_host(self) -> Images:
        """Return these images as they are read on the CPU."""
        return self if self.device == CPU else Images(self._source, self.rows)

    def resized(self, size: int) -> Images:
        """Return these images at `size` × `size` pixels."""
        small = Images(stored(self.pixels, size), self.rows, self.device)
        return small if self._there is None else small.on_device()

    def on_device(self) -> Images:
        """Return these images in the memory of their device."""
        there = torch.empty(self.shape, dtype=torch.uint8, device=self.device)
        begin = 0
        for chunk in self._chunks():
            there[begin : begin + len(chunk)] = chunk
            begin += len(chunk)
        return Images(self._source, self.rows, self.device, there)

    @cached_property
    def thumbnails(self) -> Images:
        """Each image shrunk to at most 8 × 8 pixels, (n, h, w, C) uint8."""
        small = Images(self._source.looks.thumbnails, self.rows, self.device)
        return small if self.device == CPU else small.on_device()

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (C,) and mean square (C,), float64 on the CPU, in units of 0 … 255."""
        if self.nbytes > LARGE:
            moments = self._source.looks.moments
            per_image = torch.from_numpy(moments if self.rows is None else moments[self.rows])
        else:
            per_image = torch.cat([image_moments(chunk) for chunk in self._chunks()])
        total = torch.zeros(2, self.shape[3], dtype=torch.float64)
        for part in per_image.split(4096):
            total += part.double().sum(0)
        mean, square = total / len(self)
        return mean, square

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the images: of their pixels or, if they are many, of thumbnails and means."""
        digest = hashlib.sha256()
        if self.nbytes > LARGE:
            looks = self._source.looks
            for kind in (looks.thumbnails, looks.moments):
                for begin in range(0, len(self), 4096):
                    rows = np.arange(begin, min(begin + 4096, len(self)))
                    digest.update(kind[rows if self.rows is None else self.rows[rows]].tobytes())
        else:
            for chunk in self._chunks():
                digest.update(chunk.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _chunks(self) -> Iterator[Tensor]:
        """Yield all images from host memory, a few megabytes at a time."""
        return self.on_host().split(max(1, CHUNK * len(self) // max(1, self.nbytes)))


def placed(images: Sequence[Images], device: torch.device) -> list[Images]:
    """Return images where a run on `device` reads them fastest; says which place that is.

    On a GPU they lie in its memory if all of them take at most `SHARE` of what is free there. Else
    they stay in host memory, and each batch is copied while the step before it runs.
    """
    if device.type != "cuda":
        return list(images)
    needed = sum(part.nbytes for part in images)
    free, _ = torch.cuda.mem_get_info(device)
    share = (
        f"{readable_bytes(needed)}, {needed / free:.0%} of the {readable_bytes(free)} free there"
    )
    if needed <= SHARE * free:
        log.info("images: in the memory of %s (%s)", device, share)
        return [part.on_device() for part in images]
    log.info(
        "images: in host memory, each batch is copied under the step before it; on %s they may "
        "take %.0f %% of its free memory, and they are %s",
        device,
        100 * SHARE,
        share,
    )
    return list(images)


def _as_tensor(pixels: NDArray[Any]) -> Tensor:
    # A mapped file is read-only, and nothing writes to it. The filters are those of the process.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(pixels if min(pixels.strides) >= 0 else pixels.copy())
