"""Images of a split: the same rows wherever they lie, read without a copy of all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from impon_hpo.training import images as module
from impon_hpo.training import pixel_store
from impon_hpo.training.images import Images, placed

PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(
    256, size=(40, 12, 10, 3), dtype=np.uint8
)
ROWS = np.random.default_rng(1).permutation(40)[:25]
CPU, META = torch.device("cpu"), torch.device("meta")


def mapped(folder: Path) -> NDArray[np.uint8]:
    np.save(folder / "pixels.npy", PIXELS)
    array: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r")
    return array


@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=60),
    data=st.data(),
)
def test_reading_is_indexing(rows: list[int], data: st.DataObject) -> None:
    images = Images(PIXELS, np.array(rows))
    expected = torch.from_numpy(PIXELS[rows])
    picked = torch.tensor(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)))
    picked = picked.to(torch.int64)
    assert torch.equal(images.index_select(0, picked), expected[picked])
    assert torch.equal(images[picked], expected[picked])
    assert torch.equal(images[2:7], expected[2:7])
    assert torch.equal(images[-1], expected[-1])
    assert torch.equal(torch.stack(list(images)), expected)
    assert torch.equal(torch.cat(list(images.split(7))), expected)
    assert torch.equal(images.of(picked)[:], expected[picked])
    assert (images.shape, len(images), images.dtype) == (expected.shape, len(rows), torch.uint8)


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        Images(PIXELS, ROWS)[25]


@pytest.mark.parametrize("rows", [None, ROWS])
def test_nothing_is_copied(rows: NDArray[np.int64] | None, tmp_path: Path) -> None:
    for pixels in (PIXELS, mapped(tmp_path)):
        images = Images(pixels, rows)
        assert np.shares_memory(images.pixels, pixels)
        assert np.shares_memory(images.of(torch.tensor([2, 1])).pixels, pixels)
        assert images._source.tensor.data_ptr() == pixels.ctypes.data


def test_rows_on_the_cpu_pick_images_that_lie_on_a_device() -> None:
    class There:
        """Refuses rows on the CPU, as a GPU does and `meta` does not."""

        def index_select(self, dim: int, rows: torch.Tensor) -> torch.Tensor:
            assert rows.device == META
            return torch.zeros(len(rows), 12, 10, 3, dtype=torch.uint8, device=META)

    there: Any = There()
    images = Images(PIXELS, ROWS, META, there).of(torch.tensor([2, 1]))
    assert images.rows is not None
    assert images.rows.tolist() == ROWS[[2, 1]].tolist()
    assert images.index_select(0, torch.tensor([0])).device == META


def test_it_says_where_the_images_lie(tmp_path: Path) -> None:
    assert repr(Images(PIXELS, ROWS)) == "Images(uint8 (25, 12, 10, 3), in memory)"
    assert repr(Images(mapped(tmp_path))) == "Images(uint8 (40, 12, 10, 3), mapped from a file)"
    tensor = torch.zeros(3, 4, 4, 1, dtype=torch.uint8)
    assert repr(Images.of_tensor(tensor)) == "Images(uint8 (3, 4, 4, 1), in memory)"
    there = Images(PIXELS, device=META, there=torch.zeros(40, 12, 10, 3, device="meta"))
    assert repr(there) == "Images(uint8 (40, 12, 10, 3), in memory of meta)"
    assert repr(Images(PIXELS, device=META)).endswith("in memory, for meta)")


@pytest.mark.parametrize("flipped", [False, True])
def test_any_view_of_an_array_will_do(flipped: bool) -> None:
    view = PIXELS[:, ::-1, ::2] if flipped else PIXELS.transpose(0, 2, 1, 3)
    assert torch.equal(Images(view)[:], torch.from_numpy(view.copy()))


def test_read_only_images_are_read_without_a_warning() -> None:
    frozen = PIXELS.copy()
    frozen.flags.writeable = False
    assert torch.equal(Images(frozen)[:3], torch.from_numpy(PIXELS[:3]))


@pytest.mark.parametrize("large", [1, 10**9])
@pytest.mark.parametrize("rows", [None, ROWS])
def test_moments_are_those_of_the_rows_however_they_are_found(
    large: int, rows: NDArray[np.int64] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    mean, square = Images(mapped(tmp_path), rows).moments
    floats = PIXELS[slice(None) if rows is None else rows].astype(float)
    np.testing.assert_allclose(mean, floats.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(square, (floats**2).mean((0, 1, 2)), rtol=1e-6)


def test_moments_are_the_same_to_the_bit_wherever_the_images_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Images(PIXELS, ROWS).moments
    monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setattr(pixel_store, "CHUNK", 2000)
    many = Images(mapped(tmp_path), ROWS).moments
    assert [m.tolist() for m in few] == [m.tolist() for m in many]


@pytest.mark.parametrize("large", [1, 10**9])
def test_fingerprint_tells_images_and_their_order_apart(
    large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    inverted = 255 - PIXELS
    found = [
        Images(pixels, rows).fingerprint
        for pixels in (PIXELS, inverted)
        for rows in (None, ROWS, ROWS[::-1].copy(), ROWS[:-1])
    ]
    assert len(set(found)) == len(found)
    assert Images(PIXELS.copy(), ROWS).fingerprint == found[1]
    assert Images(PIXELS[ROWS]).fingerprint == found[1]


def test_fingerprint_of_few_images_is_a_hash_of_their_pixels() -> None:
    expected = hashlib.sha256(PIXELS[ROWS].tobytes()).hexdigest()[:16]
    assert Images(PIXELS, ROWS).fingerprint == expected


def test_thumbnails_and_smaller_images_belong_to_the_same_rows() -> None:
    images = Images(PIXELS, ROWS)
    assert images.thumbnails.shape == (25, 8, 8, 3)
    assert images.resized(4).shape == (25, 4, 4, 3)
    for small in (images.thumbnails, images.resized(4)):
        of_all = Images(PIXELS).resized(4) if small.shape[1] == 4 else Images(PIXELS).thumbnails
        assert torch.equal(small[:], of_all[torch.from_numpy(ROWS)])


def gpu_with(free: int, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU whose memory is the CPU's, of which `free` bytes are free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))

    class Gpu:
        type = "cuda"

        def __str__(self) -> str:
            return "cuda:0"

    return Gpu()  # type: ignore[return-value]


@pytest.mark.parametrize(("free", "there"), [(36_001, True), (35_999, False)])
def test_images_lie_on_a_gpu_where_they_take_a_share_of_it(
    free: int, there: bool, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(Images, "on_device", lambda self: "there")
    parts: list[Any] = [Images(PIXELS), Images(PIXELS, ROWS)]  # 23,400 bytes
    free = round(free * 23_400 / 36_000 / module.SHARE)
    found = placed(parts, gpu_with(free, monkeypatch))
    assert found == (["there", "there"] if there else parts)
    assert said[-1].startswith("images: in the memory of cuda:0" if there else "images: in host")
    assert "23.4 kB" in said[-1]
    assert "40 %" in said[-1] or there


def test_a_copy_on_the_device_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    images = Images(PIXELS, ROWS).on_device()
    assert images._there is not None
    assert torch.equal(images._there, torch.from_numpy(PIXELS[ROWS]))
    assert torch.equal(images[torch.tensor([3, 0])], torch.from_numpy(PIXELS[ROWS[[3, 0]]]))
    assert torch.equal(images.of(torch.tensor([3, 0]))[:], torch.from_numpy(PIXELS[ROWS[[3, 0]]]))
    assert torch.equal(torch.cat(list(images.split(4))), torch.from_numpy(PIXELS[ROWS]))
    assert images.moments[0].tolist() == Images(PIXELS, ROWS).moments[0].tolist()
    assert images.fingerprint == Images(PIXELS, ROWS).fingerprint
    assert images.resized(4)._there is not None


def test_a_batch_in_host_memory_goes_to_the_device() -> None:
    images = Images(PIXELS, ROWS, META)
    batch = images.index_select(0, torch.tensor([1, 2]))
    assert (batch.device, tuple(batch.shape)) == (META, (2, 12, 10, 3))
