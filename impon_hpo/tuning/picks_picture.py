"""The picture of which images a trial has picked: those picked most, those never, and the classes
over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from impon_hpo.tuning.canvas import BLUE, FAINT, INK, LINES, Canvas

SHOWN = 20
"""Images of each group, and classes at most."""
COLUMNS = 10
TILE = 64
STEP = TILE + 10  # from tile to tile
MARGIN = 14
WIDTH = 2 * MARGIN + COLUMNS * STEP
LINE = TILE + 38  # of images with their captions
NAMES = 130  # room for the names of the classes
CELL = 18  # height of a line of classes
NUMBERED = 12  # epochs up to which there is room for numbers


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
    """Return the rows picked most, at most 20, the first of equals first."""
    order = np.argsort(-visits.astype(np.int64), kind="stable")
    return order[: min(SHOWN, int((visits > 0).sum()))]


def picked_least(visits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return rows never picked, at most 20, from all over the data; else those picked least."""
    never = np.flatnonzero(visits == 0)
    if len(never) == 0:
        return np.argsort(visits, kind="stable")[:SHOWN]
    places = np.linspace(0, len(never) - 1, min(SHOWN, len(never))).round().astype(np.int64)
    return never[places]


def picks_picture(title: str, picks: Picks) -> Image.Image:
    """Draw the images picked most and never with class and count, and the classes by epoch."""
    visits = picks.visits
    n_never = int((visits == 0).sum())
    most, least = picked_most(visits), picked_least(visits)
    said = (
        f"never picked: {n_never:,} of {len(visits):,} rows ({n_never / len(visits):.0%})"
        if n_never
        else f"picked least, of {len(visits):,} rows"
    )
    classes = _shown_classes(picks)
    n_lines = sum(-(-len(rows) // COLUMNS) for rows in (most, least))
    canvas = Canvas(WIDTH, 150 + n_lines * LINE + (len(classes) + 1) * CELL)
    n_epochs = len(picks.class_picks)
    canvas.text(MARGIN, 10, f"{title} in {n_epochs} epoch{'s' * (n_epochs != 1)}", size=14)
    y = 38
    for heading, rows in (("picked most", most), (said, least)):
        canvas.text(MARGIN, y, heading, colour=FAINT)
        y = _images(canvas, y + 20, picks, rows)
    _classes(canvas, y, picks, classes)
    return canvas.small()


def _images(canvas: Canvas, y: int, picks: Picks, rows: NDArray[np.int64]) -> int:
    """Put images with class and count in lines of ten; return where the next thing may begin."""
    for at, (row, pixels) in enumerate(zip(rows.tolist(), picks.read(rows), strict=True)):
        x = MARGIN + STEP * (at % COLUMNS)
        top = y + LINE * (at // COLUMNS)
        canvas.image.paste(_tile(pixels), (x, top))
        name = picks.class_names[picks.labels[row]]
        canvas.text(x, top + TILE + 3, name, size=10, width=TILE + 6)
        canvas.text(x, top + TILE + 17, f"{picks.visits[row]} ×", size=10, colour=FAINT)
    return y + LINE * -(-len(rows) // COLUMNS) + 8


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return an image (H, W, C) as a square of our size; without three channels it is grey."""
    colours = pixels if pixels.shape[2] == 3 else pixels.mean(2).round().astype(np.uint8)
    image = Image.fromarray(colours)
    grows = max(image.size) <= TILE
    way = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    scale = TILE / max(image.size)
    tile = Image.new("RGB", (TILE, TILE), "white")
    width, height = (max(1, round(side * scale)) for side in image.size)
    tile.paste(image.convert("RGB").resize((width, height), way))
    return tile


def _shown_classes(picks: Picks) -> list[int]:
    """Return the classes that are shown: of many, those picked most and least for their size."""
    n_classes = len(picks.class_names)
    if n_classes <= SHOWN:
        return list(range(n_classes))
    rows = np.bincount(picks.labels, minlength=n_classes).clip(min=1)
    share = np.sum(picks.class_picks, axis=0) / rows
    order = np.argsort(-share, kind="stable").tolist()
    return [*order[: SHOWN // 2], *order[-(SHOWN // 2) :]]


def _classes(canvas: Canvas, y: int, picks: Picks, classes: Sequence[int]) -> None:
    """Draw for each class and epoch how often it was picked, the darker the more for its size."""
    counts = np.array(picks.class_picks)
    rows = np.bincount(picks.labels, minlength=len(picks.class_names)).clip(min=1)
    shares = counts / rows
    n_epochs = len(counts)
    left = MARGIN + NAMES
    width = (WIDTH - left - MARGIN) / n_epochs
    of_all = "" if len(classes) == len(picks.class_names) else " (those most and least picked)"
    said = f"picks of each class by epoch{of_all}; colour: picks a row, darkest = "
    canvas.text(MARGIN, y, f"{said}{shares.max():.2g}", colour=FAINT)
    y += 22
    for at, label in enumerate(classes):
        top = y + CELL * at
        canvas.text(MARGIN, top + 2, picks.class_names[label], size=12, width=NAMES - 8)
        for epoch in range(n_epochs):
            strength = float(shares[epoch, label] / max(shares.max(), 1e-9))
            box = [left + width * epoch, top, left + width * (epoch + 1) - 1, top + CELL - 2]
            canvas.draw.rectangle(box, fill=_shade(strength))
            if n_epochs <= NUMBERED:
                ink = "white" if strength > 0.55 else INK
                middle = left + width * (epoch + 0.5), top + CELL / 2 - 1
                number = str(counts[epoch, label])
                canvas.text(*middle, number, size=10, colour=ink, anchor="mm")
    bottom = y + CELL * len(classes)
    canvas.draw.line([(left, bottom), (WIDTH - MARGIN, bottom)], fill=LINES)
    canvas.text(MARGIN, bottom + 4, "epoch", size=10, colour=FAINT)
    every = -(-n_epochs // NUMBERED)
    for epoch in range(0, n_epochs, every):
        place = left + width * (epoch + 0.5)
        canvas.text(place, bottom + 4, str(epoch + 1), size=10, colour=FAINT, anchor="ma")


def _shade(strength: float) -> tuple[int, int, int]:
    """Return a blue between white (0) and full (1)."""
    red, green, blue = (round(255 + (part - 255) * strength) for part in BLUE)
    return red, green, blue
