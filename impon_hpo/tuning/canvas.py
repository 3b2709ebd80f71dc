"""A canvas for small pictures with labels: Pillow only, since a trial must not wait for its files.

Matplotlib would take longer to start than a small trial takes to train.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK = "#202020"
FAINT = "#6b6b6b"
LINES = "#d0d0d0"
BLUE = (0, 114, 178)  # of Okabe & Ito


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which Matplotlib brings along, in a size in pixels."""
    found = find_spec("matplotlib")  # which is not imported by that
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


class Canvas:
    """A white picture that texts, lines and images are put on.

    Args:
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        said: str,
        *,
        size: int = 12,
        colour: str = INK,
        anchor: str = "la",
        width: float | None = None,
    ) -> None:
        """Write one line, shortened to `width` pixels; `anchor` as Pillow has it."""
        shown = said
        while width is not None and len(shown) > 1 and self._length(shown, size) > width:
            shown = shown.rstrip("…")[:-1] + "…"
        self.draw.text((x, y), shown, fill=colour, font=font(size), anchor=anchor)

    def small(self) -> Image.Image:
        """Return the picture with 256 colours, a third of the size on the disk."""
        return self.image.quantize(256, dither=Image.Dither.NONE)

    def _length(self, said: str, size: int) -> float:
        return self.draw.textlength(said, font=font(size))
