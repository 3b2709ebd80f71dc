"""One picture file as RGB bytes: ranges, transparency, orientation, and what cannot be read."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from impon_hpo.errors import DataError
from impon_hpo.training.decoding import decode


def pixels(path: Path) -> list[list[int]]:
    """Decode a file of one row, and return the colours of its pixels."""
    decoded = decode(str(path), None)
    assert decoded.dtype == np.uint8
    assert decoded.shape[0] == 1
    return decoded[0].tolist()  # type: ignore[no-any-return]


def grey(*levels: int) -> list[list[int]]:
    return [[level] * 3 for level in levels]


def tiff(path: Path, values: NDArray[Any], bits: int, data: bytes | None = None) -> Path:
    """Write a TIFF of one row, one channel, unsigned, of a number of bits that Pillow cannot."""
    content = values.tobytes() if data is None else data
    short = [(256, values.shape[1]), (257, 1), (258, bits), (259, 1), (262, 1), (277, 1), (278, 1)]
    tags = [(tag, 3, value) for tag, value in short]
    begin = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(273, 4, begin), (279, 4, len(content))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, to) for tag, kind, to in sorted(tags))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + content)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_grey_of_16_bits_is_scaled_by_its_range(name: str, tmp_path: Path) -> None:
    levels = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    assert pixels(tmp_path / name) == grey(0, 1, 128, 255)


@pytest.mark.parametrize("kind", ["P2", "P5"])
@pytest.mark.parametrize("top", [4095, 1000, 65535, 100])
def test_pgm_is_scaled_by_its_maximum(kind: str, top: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    levels = np.array([0, top // 2, top])
    head = f"{kind}\n3 1\n{top}\n".encode()
    width = ">u2" if top > 255 else "u1"
    data = levels.astype(width).tobytes() if kind == "P5" else b" ".join(b"%d" % x for x in levels)
    path.write_bytes(head + data)
    first, middle, last = pixels(path)
    assert (first, last) == ([0] * 3, [255] * 3)
    assert abs(middle[0] - 127.5 * (top // 2) / (top / 2)) <= 1


def test_tiff_of_12_bits_is_scaled_by_them(tmp_path: Path) -> None:
    # Two values in three bytes: 4095 and 0, 2048 and 4095.
    path = tiff(tmp_path / "a.tif", np.zeros((1, 4)), 12, bytes([255, 240, 0, 128, 15, 255]))
    assert pixels(path) == grey(255, 0, 128, 255)


def test_colours_of_16_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    ihdr = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", ihdr)
        import zlib

        row = b"\0" + struct.pack(">HHH", 0, 200 * 257, 65535)
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(row))
        PngImagePlugin.putchunk(file, b"IEND", b"")
    assert pixels(tmp_path / "a.png") == [[0, 200, 255]]


@pytest.mark.parametrize("name", ["a.tif", "a.pfm"])
def test_floats_of_0_to_1_are_scaled_by_255(name: str, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.2, 0.5, 1]], dtype=np.float32)).save(tmp_path / name)
    assert pixels(tmp_path / name) == grey(0, 51, 128, 255)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0, 3000.5]], dtype=np.float32), "from 0 to 3000.5"),
        (np.array([[-0.5, 1]], dtype=np.float32), "from -0.5 to 1"),
        (np.array([[0, np.nan]], dtype=np.float32), "nan"),
        (np.array([[0, 70000]], dtype=np.int32), "from 0 to 70000"),
        (np.array([[-5, 7]], dtype=np.int32), "from -5 to 7"),
    ],
)
def test_other_ranges_are_refused_by_name_with_what_to_do(
    values: NDArray[Any], said: str, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match=r"a\.tif: its values go from .*save it with 8 or"
    ) as caught:
        decode(str(tmp_path / "a.tif"), None)
    assert said in str(caught.value)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    def saved(image: Image.Image, **options: Any) -> list[list[int]]:
        image.save(tmp_path / "a.png", **options)
        return pixels(tmp_path / "a.png")

    assert saved(Image.new("RGBA", (1, 1), (10, 20, 30, 0))) == grey(255)
    assert saved(Image.new("RGBA", (1, 1), (10, 20, 30, 255))) == [[10, 20, 30]]
    assert saved(Image.new("RGBA", (1, 1), (0, 0, 0, 51))) == grey(204)
    assert saved(Image.new("LA", (1, 1), (9, 255))) == grey(9)
    assert saved(Image.new("LA", (1, 1), (9, 0))) == grey(255)
    assert saved(Image.new("L", (1, 1), 9), transparency=9) == grey(255)
    assert saved(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3)) == grey(255)
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.putpixel((1, 0), 0)
    assert saved(palette) == [[200, 100, 50], [0, 0, 0]]
    assert saved(palette, transparency=0) == [[200, 100, 50], [255, 255, 255]]
    assert saved(palette, transparency=b"\x00\xff") == [[200, 100, 50], [255, 255, 255]]


def test_grey_two_colours_and_inks_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 77).save(tmp_path / "a.png")
    Image.new("1", (1, 1), 1).save(tmp_path / "b.png")
    Image.new("CMYK", (1, 1), (255, 0, 0, 0)).save(tmp_path / "c.tif")
    found = [pixels(tmp_path / name) for name in ("a.png", "b.png", "c.tif")]
    assert found == [grey(77), grey(255), [[0, 255, 255]]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, name: str, tmp_path: Path) -> None:
    # The upper left quarter is white when the picture is upright.
    upright = np.zeros((32, 64, 3), dtype=np.uint8)
    upright[:16, :32] = 255
    # What a camera writes that is held so that viewers must do what the number says.
    undone: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda image: image,
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: lambda image: image.transpose(1, 0, 2),
        6: lambda image: np.rot90(image, 1),
        7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
        8: lambda image: np.rot90(image, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undone[orientation](upright)))
    stored.save(tmp_path / name, exif=exif)
    decoded = decode(str(tmp_path / name), None)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 5


def test_grey_of_16_bits_keeps_its_range_when_it_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.array([[0, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    assert decode(str(tmp_path / "a.png"), None)[:, 0].tolist() == grey(0, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_matter(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0no header", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        Image.new("RGB", (1, 1), (0, 0, 0)).save(tmp_path / "a.jpg", exif=exif)
        assert pixels(tmp_path / "a.jpg") == grey(0)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_first_frame_of_an_animation_is_read(name: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert pixels(tmp_path / name) == [[255, 0, 0]]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        decode(str(path), 8)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_page_of_text_is_told_from_a_damaged_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_text("<!DOCTYPE html>\n<title>404</title>")
    assert (
        refused(path)
        == r"is no picture that can be read: it begins with b'<!DOCTYPE html>\n<title>4'"
    )
    path.write_bytes(b"")
    assert refused(path) == "is empty"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.png") == "No such file or directory"
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert refused(tmp_path / "b.png") == "is a link to a file that does not exist"
    (tmp_path / "c.png").symlink_to(tmp_path / "c.png")
    assert "symbolic links" in refused(tmp_path / "c.png")


def test_text_in_a_png_that_is_too_long_is_told(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * 5_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert "MAX_TEXT_CHUNK" in refused(tmp_path / "a.png")


NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "extension", ["jpg", "png", "ppm", "tif", "gif", "bmp", "webp", "avif", "dds", "jp2", "tga"]
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_files_cut_short_are_refused_by_name_or_read_whole(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()
    n_refused = 0
    for length in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        try:
            assert decode(str(path), 8).shape == (8, 8, 3)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            n_refused += 1
    assert n_refused >= 3  # how much of a file is enough is Pillow's to say


@pytest.mark.parametrize("extension", ["ppm", "pgm", "tif", "avif", "dds", "png", "gif", "jpg"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_headers_raise_nothing_else(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    image = Image.fromarray(NOISE if extension != "pgm" else NOISE[..., 0])
    image.save(path)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    n_refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for at in random.integers(2, min(64, len(content)), 3):
            damaged[at] = int(random.integers(0, 256))
        path.write_bytes(damaged)
        with suppress(Exception), Image.open(path) as opened:
            if math.prod(opened.size) > 2**22:  # Pillow may take minutes for it
                continue
        try:
            decode(str(path), 8)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            n_refused += 1
    assert n_refused


def test_a_name_of_two_lines_is_told_on_one(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").write_text("none")
    with pytest.raises(DataError, match=r"a\\nb\.png: is no picture"):
        decode(str(tmp_path / "a\nb.png"), None)
