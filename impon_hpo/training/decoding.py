"""One picture file as RGB bytes: upright, resized, or refused by name."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from impon_hpo.errors import DataError
from impon_hpo.files import readable_name

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Modes of Pillow: one channel of 16 bits."""


def decode(file: str, image_size: int | None) -> NDArray[np.uint8]:
    """Return the picture in a file as (H, W, 3) uint8.

    It is turned upright as its EXIF data say. Of an animation it is the first frame. What is
    transparent becomes white. Grey of more than 8 bits is scaled by its range, and floats by 255.

    Args:
        file: Its path.
        image_size: Side in pixels. The shorter side is resized to it, and the centre is kept.
            None: as it is.

    Raises:
        DataError: The file cannot be read, is no picture, or its values have no known range.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from impon_hpo.training.decoding import decode
        >>> Image.fromarray(np.full((4, 6), 65535, dtype=np.uint16)).save("white.png")
        >>> pixels = decode("white.png", image_size=2)
        >>> pixels.shape, int(pixels.min())
        ((2, 2, 3), 255)
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            with suppress(Exception):  # damaged EXIF data say nothing of the pixels
                ImageOps.exif_transpose(opened, in_place=True)
            image = _rgb(opened)
        return np.asarray(image if image_size is None else _square(image, image_size))
    except Exception as error:  # Pillow raises nearly anything at a damaged file
        raise DataError(f"{readable_name(file)}: {_reason(file, error)}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F", *SIXTEEN_BITS):
        image = Image.fromarray(_bytes(image))
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Return grey of more than 8 bits as bytes."""
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())  # not a number if one is
    if image.mode == "F":
        top, wanted = 1.0, "floats of 0 … 1"
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):
        top, wanted = 0.0, "integers of 8 or 16 bits"  # 32 bits, or 16 with a sign
    else:
        top, wanted = float(2 ** _n_bits(image) - 1), "integers of 16 bits"
    if not 0 <= low <= high <= top:
        raise DataError(
            f"its values go from {low:g} to {high:g}, which is no known range of brightness. "
            f"It must have {wanted}; save it with 8 or 16 bits"
        )
    return np.rint(values * (255 / top)).astype(np.uint8)


def _n_bits(image: Image.Image) -> int:
    # Pillow spreads a PGM of any range over 16 bits, but leaves a TIFF of 12 bits as it is.
    tags = getattr(image, "tag_v2", {})
    return 12 if tuple(tags.get(258, ())) == (12,) else 16


def _square(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    # BOX averages over areas when it shrinks. It would only repeat pixels when it enlarges.
    method = Image.Resampling.BOX if shorter >= side else Image.Resampling.BICUBIC
    return image.resize((side, side), method, box=(left, top, left + shorter, top + shorter))


def _reason(file: str, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with open(file, "rb") as opened:  # noqa: PTH123
            begin = opened.read(24)
        return f"is no picture that can be read: it begins with {begin!r}" if begin else "is empty"
    if isinstance(error, FileNotFoundError) and os.path.islink(file):  # noqa: PTH114
        return "is a link to a file that does not exist"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = readable_name(str(error))
    # What a message says, whoever raised it; or else at least its kind.
    return text if " " in text else f"is damaged ({type(error).__name__}: {text})"
