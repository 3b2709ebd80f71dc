"""Tests of the contact sheet: which rows it shows, any data fit, and the classes are a table."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from impon_hpo.tuning.contact_sheet import (
    HEAD,
    LINE,
    SHOWN,
    TILE,
    Picks,
    _shortened,
    class_rows,
    contact_sheet,
    picked_least,
    picked_most,
    sheet,
)


def picks_of(
    visits: NDArray[np.int32], n_classes: int = 4, size: int = 8, channels: int = 3
) -> Picks:
    labels = np.arange(len(visits)) % n_classes
    images = np.full((len(visits), size, size, channels), 200, dtype=np.uint8)
    return Picks(
        visits=visits,
        labels=labels,
        class_names=[f"class {label}" for label in range(n_classes)],
        class_picks=[np.bincount(labels, visits, n_classes).astype(int).tolist()],
        read=lambda rows: images[rows],
    )


def test_those_picked_most_come_first_and_only_if_they_were_picked() -> None:
    visits = np.array([0, 3, 1, 3, 9, 0], dtype=np.int32)
    assert picked_most(visits).tolist() == [4, 1, 3, 2]
    assert len(picked_most(np.ones(100, dtype=np.int32))) == SHOWN


def test_those_never_picked_come_from_all_over_the_data() -> None:
    visits = np.zeros(1000, dtype=np.int32)
    visits[500] = 1
    least = picked_least(visits)
    assert len(least) == SHOWN
    assert least[0] == 0
    assert least[-1] == 999
    assert (visits[least] == 0).all()
    assert picked_least(np.array([2, 1, 3], dtype=np.int32)).tolist() == [1, 0, 2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("size", [1, 8, 300])
def test_images_of_any_shape_are_drawn(channels: int, size: int) -> None:
    visits = np.array([5, 0, 2], dtype=np.int32)
    picture = contact_sheet("any", picks_of(visits, size=size, channels=channels)).convert("RGB")
    first = picture.getpixel((14 + TILE // 2, 58 + TILE // 2))  # in the middle of the first image
    assert first == (200, 200, 200)


def test_every_group_has_its_lines_of_images_and_its_captions() -> None:
    picks = picks_of(np.arange(5000, dtype=np.int32) % 7, n_classes=1000)
    sheet = contact_sheet("many", picks)
    assert sheet.height == HEAD + 2 * (20 + 2 * LINE + 8)
    pixels = np.asarray(sheet.convert("L"))
    caption = pixels[HEAD + 20 + TILE : HEAD + 20 + LINE, 14 : 14 + TILE]
    assert (caption < 100).any()


def test_a_long_name_ends_before_the_next_image() -> None:
    picks = picks_of(np.ones(3, dtype=np.int32))
    long = Picks(picks.visits, picks.labels, ["é" * 40] * 4, picks.class_picks, picks.read)
    short = Picks(picks.visits, picks.labels, [""] * 4, picks.class_picks, picks.read)
    drawn, empty = (np.asarray(contact_sheet("", each).convert("L")) for each in (long, short))
    columns = np.flatnonzero((drawn != empty).any(axis=0))
    gaps = set(range(14 + TILE + 7, 14 + TILE + 10))
    assert len(columns)
    assert not gaps & set(columns.tolist())


@pytest.mark.parametrize("name", ["two\nlines", "caf\udce9", "$x_{", "\U0001f600", "a\0b", ""])
def test_any_name_is_drawn(name: str) -> None:
    picks = picks_of(np.ones(3, dtype=np.int32))
    drawn = Picks(picks.visits, picks.labels, [name] * 4, picks.class_picks, picks.read)
    assert contact_sheet(f"a title with {name}", drawn).height > TILE


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    short = _shortened(draw, "IMG_20260101_000123.png")
    assert short.startswith("IMG")
    assert short.endswith(".png")
    assert "…" in short
    assert _shortened(draw, "7.png") == "7.png"


def test_a_third_line_of_captions_has_its_room() -> None:
    images = np.full((11, 8, 8, 3), 200, dtype=np.uint8)
    two = sheet("", [("", images, [("given", "likely")] * 11)])
    three = sheet("", [("", images, [("given", "likely", "file")] * 11)])
    assert three.height == two.height + 2 * 14


def test_run_that_has_picked_everything_or_nothing_is_drawn() -> None:
    for visits in (np.ones(3, dtype=np.int32), np.zeros(3, dtype=np.int32)):
        assert contact_sheet("some", picks_of(visits)).height > TILE


def test_classes_are_a_table_with_a_column_for_each_epoch() -> None:
    picks = picks_of(np.array([5, 0, 2, 1, 1], dtype=np.int32), n_classes=2)
    twice = Picks(picks.visits, picks.labels, picks.class_names, [[8, 1], [4, 5]], picks.read)
    assert class_rows(twice) == [
        {"class": "class 0", "rows": 3, "epoch_1": 8, "epoch_2": 4},
        {"class": "class 1", "rows": 2, "epoch_1": 1, "epoch_2": 5},
    ]


def test_a_class_without_a_row_is_in_the_table() -> None:
    picks = picks_of(np.array([5, 0], dtype=np.int32), n_classes=3)
    assert class_rows(picks)[2] == {"class": "class 2", "rows": 0, "epoch_1": 0}


def test_sheet_is_drawn_without_loading_matplotlib() -> None:
    code = """
import sys
import numpy as np
from impon_hpo.tuning.contact_sheet import Picks, contact_sheet
visits, labels = np.ones(1, np.int32), np.zeros(1, np.int64)
images = np.zeros((1, 8, 8, 3), np.uint8)
contact_sheet("a title", Picks(visits, labels, ["a"], [[1]], lambda rows: images))
print("matplotlib" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
