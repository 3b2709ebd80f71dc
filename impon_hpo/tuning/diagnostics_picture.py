"""The picture of a batch sampler's diagnostics over the epochs: one small panel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from impon_hpo.tuning.canvas import BLUE, FAINT, LINES, Canvas

WIDTH, HEIGHT = 360, 130  # of a panel
COLUMNS = 2
HEAD = 34
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 26, 24  # room around a curve


def diagnostics_picture(title: str, epochs: Sequence[Mapping[str, float]]) -> Image.Image:
    """Draw every diagnostic against the epoch, each on an axis of its own.

    Args:
        title: Of the picture.
        epochs: The diagnostics of each epoch by name; what an epoch lacks is left out.
    """
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    n_lines = -(-len(names) // COLUMNS)
    canvas = Canvas(WIDTH * COLUMNS, HEAD + HEIGHT * n_lines)
    canvas.text(14, 10, title, size=14)
    for at, name in enumerate(names):
        points = [
            (number, epoch[name]) for number, epoch in enumerate(epochs, start=1) if name in epoch
        ]
        left, top = WIDTH * (at % COLUMNS), HEAD + HEIGHT * (at // COLUMNS)
        _panel(canvas, left, top, name, points, len(epochs))
    return canvas.small()


def _panel(
    canvas: Canvas,
    left: int,
    top: int,
    name: str,
    points: Sequence[tuple[int, float]],
    n_epochs: int,
) -> None:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    x0, x1 = left + LEFT, left + WIDTH - RIGHT
    y0, y1 = top + HEIGHT - BOTTOM, top + TOP
    canvas.text(left + 14, top + 4, name.replace("_", " "))
    canvas.text(x1, top + 4, f"last {values[-1]:.3g}", anchor="ra", colour=FAINT)
    canvas.draw.line([(x0, y1), (x0, y0), (x1, y0)], fill=LINES)
    canvas.text(x0 - 6, y1, f"{high:.3g}", anchor="rm", size=10, colour=FAINT)
    if high > low:
        canvas.text(x0 - 6, y0, f"{low:.3g}", anchor="rm", size=10, colour=FAINT)
    canvas.text(x0, y0 + 5, "epoch 1", size=10, colour=FAINT)
    if n_epochs > 1:
        canvas.text(x1, y0 + 5, str(n_epochs), size=10, colour=FAINT, anchor="ra")

    def place(epoch: int, value: float) -> tuple[float, float]:
        across = (epoch - 1) / max(1, n_epochs - 1)
        up = (value - low) / (high - low) if high > low else 1.0
        return x0 + 4 + across * (x1 - x0 - 8), y0 - 4 + up * (y1 - y0 + 4)

    places = [place(epoch, value) for epoch, value in points]
    if len(places) > 1:
        canvas.draw.line(places, fill=BLUE, width=2, joint="curve")
    for x, y in places:
        canvas.draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=BLUE)
