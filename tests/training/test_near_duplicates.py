"""Near-duplicates: copies, crops and bursts are found, and pictures that are only alike are not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from impon_hpo.training import pixel_store
from impon_hpo.training import splits as splits_module
from impon_hpo.training.images import Images
from impon_hpo.training.near_duplicates import LOOKED_AT, say_twins, twins
from impon_hpo.training.splits import load_splits
from tests.settings import training_config

Pictures = NDArray[np.uint8]


def photographs(n: int, size: int = 64, seed: int = 0) -> Pictures:
    """Return smooth blobs with fine texture, (n, size, size, 3)."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(n):
        coarse, fine = (rng.integers(0, high, (at, at, 3)) for at, high in ((5, 180), (16, 75)))
        layers = [
            np.asarray(Image.fromarray(layer.astype(np.uint8)).resize((size, size)))
            for layer in (coarse, fine)
        ]
        pictures.append(layers[0] + layers[1])
    return np.stack(pictures)


def jpeg(picture: Pictures) -> Pictures:
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=40)
    return np.asarray(Image.open(written))


def cropped(picture: Pictures) -> Pictures:
    size = picture.shape[0]
    inner = Image.fromarray(picture[1:-1, 1:-1])
    return np.asarray(inner.resize((size, size)))


def brighter(picture: Pictures) -> Pictures:
    return (picture * 0.7 + 40).astype(np.uint8)


def pairs(images: Pictures, among: Pictures) -> list[tuple[int, int]]:
    rows, others = twins(Images(images), Images(among))
    return list(zip(rows.tolist(), others.tolist(), strict=True))


@pytest.mark.parametrize("change", [np.copy, jpeg, cropped, brighter])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_changed_copies_are_found_and_nothing_else(change: Any, size: int) -> None:
    among = photographs(300, size)
    others = photographs(100, size, seed=1)
    images = np.concatenate([others, np.stack([change(among[row]) for row in (5, 17, 200)])])
    assert pairs(images, among) == [(100, 5), (101, 17), (102, 200)]


def test_of_a_burst_all_are_found() -> None:
    burst = photographs(1, 64)
    rng = np.random.default_rng(3)
    shots = np.clip(burst.astype(int) + rng.integers(-4, 5, (4, 64, 64, 3)), 0, 255)
    among = np.concatenate([photographs(300, seed=2), shots.astype(np.uint8)])
    assert sorted(pairs(burst, among)) == [(0, row) for row in range(300, 304)]


def test_the_same_outline_with_other_details_is_not_the_same_picture() -> None:
    among = photographs(300)
    outline = among[:1].astype(int)
    coarse = np.asarray(
        Image.fromarray(among[0]).resize((8, 8), Image.Resampling.BOX).resize((64, 64))
    )
    texture = np.random.default_rng(1).integers(-40, 41, outline.shape)
    other = np.clip(coarse + texture, 0, 255).astype(np.uint8)
    assert pairs(other, among) == []


def test_where_all_pictures_are_alike_only_what_is_unusually_near_counts() -> None:
    common = photographs(1)[0].astype(float)
    own = photographs(300, seed=1).astype(float)
    among = (0.85 * common + 0.15 * own).astype(np.uint8)  # as X-rays are
    others = (0.85 * common + 0.15 * photographs(50, seed=2)).astype(np.uint8)
    correlation = np.corrcoef(others[0].ravel(), among[0].ravel())[0, 1]
    assert correlation > 0.95
    images = np.concatenate([others, np.stack([brighter(among[9])])])
    assert pairs(images, among) == [(50, 9)]


def test_plain_images_are_no_twins_and_of_small_ones_only_copies() -> None:
    plain = np.full((3, 64, 64, 3), 90, dtype=np.uint8)
    assert pairs(plain, plain) == []
    assert pairs(plain[:, :16, :16], plain[:, :16, :16]) == []
    small = photographs(20, 16)
    images = np.concatenate([small[3:4], brighter(small[4])[None]])
    assert pairs(images, small) == [(0, 3)]


def test_images_that_cannot_be_compared_have_no_twins() -> None:
    assert pairs(photographs(3)[..., :1], photographs(3)) == []
    assert pairs(photographs(1), photographs(1)) == []  # one alone has no usual distance
    assert pairs(photographs(2, 4), photographs(2, 16)) == []


def test_rows_are_those_of_the_images_and_not_of_the_array() -> None:
    pixels = photographs(300)
    images = Images(pixels, rows=np.array([40, 7]))
    rows, others = twins(images, Images(pixels, rows=np.arange(5, 300)))
    assert (rows.tolist(), others.tolist()) == ([0, 1], [35, 2])


def test_counts_and_an_example_are_said_or_nothing(caplog: pytest.LogCaptureFixture) -> None:
    among = photographs(40)
    trained = Images(among), [f"{row}.jpg" for row in range(40)]
    new = Images(photographs(3, seed=1)), ["a", "b", "c"]
    say_twins(trained, {"validation": new, "test": new})
    assert caplog.messages == []
    old = Images(np.concatenate([among[6:8], photographs(1, seed=1)])), ["x.jpg", "y.jpg", "z"]
    say_twins(trained, {"validation": old, "test": new})
    assert caplog.messages == [
        "near-duplicates: 2 of 3 validation pictures look like one that is trained on ('x.jpg' and "
        "'6.jpg'). `impon-hpo duplicates` lists them, for the setting groups"
    ]


def test_images_on_a_gpu_are_looked_at_in_host_memory(caplog: pytest.LogCaptureFixture) -> None:
    among, names = photographs(40), [str(row) for row in range(40)]
    there: Any = object()  # nothing can be done with it
    gpu = torch.device("cuda:0")
    splits = [Images(pixels, None, gpu, there) for pixels in (among, among[6:8])]
    say_twins((splits[0], names), {"validation": (splits[1], names[:2])})
    assert "2 of 2 validation pictures look like" in caplog.messages[0]


def test_that_they_cannot_be_counted_stops_no_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "_LOOKED_THROUGH", set())
    monkeypatch.setattr(pixel_store, "SPARE", 2**62)  # every disk is full
    splits = load_splits(training_config({"dataset": "digits"}), torch.device("cpu"))
    assert len(splits.validation) > 0
    assert caplog.messages[-1].startswith("Near-duplicates could not be counted: There is no place")


def test_of_a_large_split_a_part_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    numbers = np.arange(LOOKED_AT + 50, dtype=np.int32).view(np.uint8).reshape(-1, 2, 2, 1) * 60
    names = [str(row) for row in range(len(numbers))]
    say_twins((Images(numbers[::2]), names[::2]), {"validation": (Images(numbers), names)})
    (said,) = caplog.messages
    assert f"of {LOOKED_AT:,} validation pictures that were looked at look like" in said
    assert said.split("('")[1].split("' and '")[0] == said.split("' and '")[1].split("')")[0]


def test_a_data_set_is_looked_through_once_in_a_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "_LOOKED_THROUGH", set())
    for row, picture in enumerate(photographs(30, 32).repeat(2, 0)):  # everyone twice
        place = Path("pets", ("cat", "dog")[row // 2 % 2], f"{row // 2}_{row % 2}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place)
    given = {"dataset": "folder", "data_dir": "pets", "batch_size": 2, "validation_size": 12}
    for seed in range(3):
        load_splits(training_config(given | {"seed": seed}), torch.device("cpu"))
    (said,) = [message for message in caplog.messages if "near-duplicates" in message]
    assert "of 12 validation pictures and " in said
    caplog.clear()
    load_splits(training_config(given | {"groups": "re:([0-9]+)_"}), torch.device("cpu"))
    assert not [message for message in caplog.messages if "near-duplicates" in message]
