"""Contact sheets: pictures of many images with their captions. What a trial has picked most and
never is one, beside a table of the classes by epoch.

A trial must not wait for its files, so Pillow draws: Matplotlib takes longer to import than a small
trial takes to train.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHOWN = 20
"""Images of each group."""
COLUMNS = 10
TILE = 64
STEP = TILE + 10  # from tile to tile
MARGIN = 14
WIDTH = 2 * MARGIN + COLUMNS * STEP
HEAD = 38  # of the title
CAPTION = 14  # of a line of a caption
LINE = TILE + 10 + 2 * CAPTION  # of images with two lines of caption
INK = "#202020"
FAINT = "#6b6b6b"


@dataclass(frozen=True)
class Picks:
    """What a run has picked.

    Args:
        visits: (n,) how often each training row was picked.
        labels: (n,) class indices.
        class_names: Names of the classes.
        class_picks: For each epoch, how often each class was picked.
        read: Returns images (k, H, W, C) uint8 of rows (k,).
    """

    visits: NDArray[np.int32]
    labels: NDArray[np.int64]
    class_names: Sequence[str]
    class_picks: Sequence[Sequence[int]]
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def picked_most(visits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rows picked most, at most 20; of equal ones the first come first."""
    order = np.argsort(-visits.astype(np.int64), kind="stable")
    return order[: min(SHOWN, int((visits > 0).sum()))]


def picked_least(visits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return at most 20 rows that were never picked, spread over the data; where there are none,
    those picked least."""
    never = np.flatnonzero(visits == 0)
    if len(never) == 0:
        return np.argsort(visits, kind="stable")[:SHOWN]
    places = np.linspace(0, len(never) - 1, min(SHOWN, len(never))).round().astype(np.int64)
    return never[places]


def contact_sheet(title: str, picks: Picks) -> Image.Image:
    """Return the images picked most and those never picked, each with its class and its count."""
    visits = picks.visits
    n_rows, n_never = len(visits), int((visits == 0).sum())
    least = (
        f"never picked: {n_never:,} of {n_rows:,} rows ({n_never / n_rows:.0%})"
        if n_never
        else f"picked least, of {n_rows:,} rows"
    )
    groups = []
    for heading, rows in (("picked most", picked_most(visits)), (least, picked_least(visits))):
        names = [picks.class_names[label] for label in picks.labels[rows]]
        captions = [(name, f"{visits[row]} ×") for name, row in zip(names, rows, strict=True)]
        groups.append((heading, picks.read(rows), captions))
    n_epochs = len(picks.class_picks)
    ending = "" if n_epochs == 1 else "s"
    return sheet(f"{title} in {n_epochs} epoch{ending}", groups)


Group = tuple[str, NDArray[np.uint8], Sequence[tuple[str, ...]]]
"""Heading, images (k, H, W, C) uint8, and the lines of caption of each, equally many for all."""


def sheet(title: str, groups: Sequence[Group]) -> Image.Image:
    """Return the images of some groups, each with its captions, as one picture."""
    lines = [TILE + 10 + CAPTION * len(captions[0]) if captions else 0 for *_, captions in groups]
    heights = [
        20 + line * -(-len(images) // COLUMNS) + 8
        for line, (_, images, _) in zip(lines, groups, strict=True)
    ]
    drawn = Image.new("RGB", (WIDTH, HEAD + sum(heights)), "white")
    draw = ImageDraw.Draw(drawn)
    draw.text((MARGIN, 10), _drawable(title), fill=INK, font=_font(14))
    top = HEAD
    for (heading, images, captions), line, height in zip(groups, lines, heights, strict=True):
        draw.text((MARGIN, top), _drawable(heading), fill=FAINT, font=_font(12))
        for at, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
            x, y = MARGIN + STEP * (at % COLUMNS), top + 20 + line * (at // COLUMNS)
            drawn.paste(_tile(pixels), (x, y))
            for below, text in enumerate(caption):
                place = (x, y + TILE + 3 + CAPTION * below)
                ink = FAINT if below else INK
                draw.text(place, _shortened(draw, text), fill=ink, font=_font(10))
        top += height
    return drawn.quantize(256, dither=Image.Dither.NONE)  # a third of the size on the disk


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def class_rows(picks: Picks) -> list[dict[str, str | int]]:
    """Return for each class its name, its training rows and its picks in each epoch, as the rows of
    a table."""
    sizes = np.bincount(picks.labels, minlength=len(picks.class_names)).tolist()
    return [
        {"class": name, "rows": sizes[label]}
        | {f"epoch_{at}": counts[label] for at, counts in enumerate(picks.class_picks, start=1)}
        for label, name in enumerate(picks.class_names)
    ]


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return an image (H, W, C) as a square tile; without three channels it is grey."""
    colours = pixels if pixels.shape[2] == 3 else pixels.mean(2).round().astype(np.uint8)
    image = Image.fromarray(colours)
    grows = max(image.size) <= TILE
    resampling = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    scale = TILE / max(image.size)
    tile = Image.new("RGB", (TILE, TILE), "white")
    width, height = (max(1, round(side * scale)) for side in image.size)
    tile.paste(image.convert("RGB").resize((width, height), resampling))
    return tile


def _shortened(draw: ImageDraw.ImageDraw, name: str) -> str:
    """Return a name that fits below a tile; of a long one, its beginning and its end."""
    whole = short = _drawable(name)
    n_kept = len(whole)
    while n_kept > 1 and draw.textlength(short, font=_font(10)) > TILE + 6:
        n_kept -= 1
        short = f"{whole[: (n_kept + 1) // 2]}…{whole[len(whole) - n_kept // 2 :]}"
    return short


def _drawable(text: str) -> str:
    """Return a text on one line; a letter that nothing can draw, as file names can have, is �."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in text
    )


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans in a size in pixels: Matplotlib, which is not imported here, has its file.

    The font of Pillow itself lacks letters such as é.
    """
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)
