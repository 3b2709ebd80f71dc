"""Tests of the data benchmark: decoded, cached, and the user's cache left alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import measure_data
from impon_hpo.errors import ConfigError, DataError


def test_every_image_is_decoded_and_the_users_cache_is_left_alone(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((8, 8, 3), 40 * index, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.jpg")
    cache = os.environ["XDG_CACHE_HOME"]
    measured = measure_data(root=tmp_path / "images", image_size=None, rounds=2)
    assert [row["side"] for row in measured.rows] == [
        "PIL in a loop",
        "decoded once",
        "from the cache",
        "second start",
    ]
    assert measured.settings["images"] == 6
    assert os.environ["XDG_CACHE_HOME"] == cache
    assert not Path(cache).exists()


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds must be at least 1"):
        measure_data(root=tmp_path, image_size=None, rounds=0)
    with pytest.raises(DataError, match="There is no folder"):
        measure_data(root=tmp_path / "none", image_size=None, rounds=1)
