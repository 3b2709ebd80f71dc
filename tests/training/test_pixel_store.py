"""Kept arrays: made once, whole or not at all, trusted only as far as a look goes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError
from impon_hpo.training import pixel_store
from impon_hpo.training.images import Images
from impon_hpo.training.pixel_store import (
    Filling,
    is_mapped,
    kept_array,
    looks_of,
    resize,
    stored,
)

VALUES = np.random.default_rng(0).integers(256, size=(50, 4, 4, 3), dtype=np.uint8)


def as_file(
    folder: Path, values: NDArray[np.uint8], mode: Literal["r", "c"] = "r"
) -> NDArray[np.uint8]:
    """Return values as a file of one's own that is mapped into memory."""
    np.save(folder / "mine.npy", values)
    array: NDArray[np.uint8] = np.load(folder / "mine.npy", mmap_mode=mode)
    return array


class Maker:
    """Fills an array with `VALUES` and counts how often."""

    def __init__(self, values: NDArray[Any] = VALUES) -> None:
        self.values, self.made = values, 0

    def __call__(self, filling: Filling) -> dict[str, Any]:
        self.made += 1
        for row, value in enumerate(self.values):
            filling.put(row, value[None])
        return {"made": self.made}

    def get(self, name: str = "x") -> tuple[NDArray[Any], dict[str, Any]]:
        return kept_array(name, lambda: self.values.shape, self.values.dtype, self, "the images")


def kept_file(name: str = "x") -> Path:
    return cache_folder() / "arrays" / f"{name}.npy"


def test_array_is_made_once_and_then_mapped() -> None:
    maker = Maker()
    for _ in range(3):
        array, notes = maker.get()
        assert is_mapped(array)
        np.testing.assert_array_equal(array, VALUES)
        assert notes == {"made": 1}
    assert maker.made == 1


def test_anybody_can_read_it_with_numpy() -> None:
    Maker().get()
    np.testing.assert_array_equal(np.load(kept_file()), VALUES)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _zeroed_behind_the_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:128] + bytes(len(content) - 128))


def _of_another_shape(path: Path) -> None:
    np.save(path, VALUES[:10])


def _without_rows(path: Path) -> None:
    np.save(path, VALUES[:0])


def _notes_gone(path: Path) -> None:
    path.with_suffix(".json").unlink()


def _notes_broken(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2")


def _notes_of_another_kind(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2]")


@pytest.mark.parametrize(
    "harm",
    [
        _empty,
        _cut,
        _zeroed,
        _zeroed_behind_the_header,
        _of_another_shape,
        _without_rows,
        _notes_gone,
        _notes_broken,
        _notes_of_another_kind,
        Path.unlink,
    ],
)
def test_what_is_broken_is_made_again(harm: Callable[[Path], None]) -> None:
    maker = Maker()
    maker.get()
    harm(kept_file())
    for _ in range(2):
        np.testing.assert_array_equal(maker.get()[0], VALUES)
    assert maker.made == 2


@pytest.mark.parametrize("error", [DataError("no"), KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_nothing_is_left_behind_if_making_it_fails(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))  # no other place either

    def fail(filling: Filling) -> dict[str, Any]:
        filling.put(0, VALUES[:1])
        raise error

    with pytest.raises(DataError if isinstance(error, OSError) else type(error)):
        kept_array("x", lambda: VALUES.shape, np.uint8, fail, "the images")
    assert {path.suffix for path in kept_file().parent.iterdir()} == {".lock"}


def test_what_a_killed_process_left_is_cleared_away() -> None:
    kept_file().parent.mkdir(parents=True)
    left = kept_file().with_suffix(".12345.tmp")
    other = kept_file("y").with_suffix(".12345.tmp")
    for path in (left, other):
        path.write_bytes(b"half")
    Maker().get()
    assert not left.exists()
    assert other.exists()  # that one may be being written


def test_umask_is_respected() -> None:
    before = os.umask(0o077)
    try:
        Maker().get()
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept_file().stat().st_mode) == 0o600
    Maker().get("y")
    assert stat.S_IMODE(kept_file("y").stat().st_mode) == 0o666 & ~before


def test_without_room_in_the_cache_it_lies_in_a_temporary_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    monkeypatch.setattr(
        pixel_store, "free_disk", lambda folder: 10**12 if folder == tmp_path else 1
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    maker = Maker()
    array, _ = maker.get()
    np.testing.assert_array_equal(array, VALUES)
    assert is_mapped(array)
    assert "2.4 kB are needed and 1 B are free" in said[-1]
    assert not list(tmp_path.glob("tmp*"))  # it has no name
    assert not kept_file().exists()


def test_where_the_cache_is_a_file_it_lies_in_a_temporary_file(said: list[str]) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "arrays").write_text("")
    np.testing.assert_array_equal(Maker().get()[0], VALUES)
    assert "There is no place for the images in" in said[-1]


def test_without_room_anywhere_the_numbers_are_said_before_anything_is_read() -> None:
    def never(filling: Filling) -> dict[str, Any]:
        raise AssertionError

    shape = (240_000, 1000, 1000, 4)
    with pytest.raises(DataError) as caught:
        kept_array("x", lambda: shape, np.uint8, never, "the images")
    said = str(caught.value)
    assert "240000 × 1000 × 1000 × 4" in said
    assert "960 GB are needed" in said
    assert "image_size" in said


def test_of_several_threads_one_makes_it(said: list[str]) -> None:
    maker, going = Maker(), threading.Event()

    def slow(filling: Filling) -> dict[str, Any]:
        going.wait(5)
        return maker(filling)

    def get() -> None:
        array, _ = kept_array("x", lambda: VALUES.shape, np.uint8, slow, "the images")
        np.testing.assert_array_equal(array, VALUES)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    threads[0].join(1)
    going.set()
    for thread in threads:
        thread.join()
    assert maker.made == 1
    assert said.count("waiting for another process, which prepares the images") == 2


def _get_in_a_process(folder: str, queue: Any) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    maker = Maker()
    array, _ = maker.get()
    queue.put((maker.made, int(array.sum())))


def test_of_several_processes_one_makes_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_get_in_a_process, args=(str(tmp_path / "shared"), queue))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found) == [(0, VALUES.sum()), (1, VALUES.sum())]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.sets(st.integers(0, 49), min_size=1))
def test_rows_that_are_kept_move_to_the_front(kept: set[int]) -> None:
    rows = np.array(sorted(kept))

    def fill(filling: Filling) -> dict[str, Any]:
        filling.put(0, VALUES)
        filling.keep(rows)
        return {}

    name = "-".join(map(str, rows))[:200]
    array, _ = kept_array(name, lambda: VALUES.shape, np.uint8, fill, "the images")
    np.testing.assert_array_equal(array, VALUES[rows])


# Images


def test_few_images_stay_the_array_that_was_given() -> None:
    assert stored(VALUES, None) is VALUES
    assert stored(VALUES, 4) is VALUES


def test_many_images_go_to_a_file_with_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 1000)
    monkeypatch.setattr(pixel_store, "CHUNK", 500)
    array = stored(VALUES, None)
    assert is_mapped(array)
    np.testing.assert_array_equal(array, VALUES)
    again = stored(VALUES.copy(), None)
    assert again.filename == array.filename  # type: ignore[attr-defined]
    other = stored(255 - VALUES, None)
    np.testing.assert_array_equal(other, 255 - VALUES)


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("large", [1, 10**9])
def test_resized_images_are_the_same_wherever_they_lie(
    size: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", large)
    monkeypatch.setattr(pixel_store, "CHUNK", 500)
    expected = VALUES if size == 4 else resize(torch.from_numpy(VALUES), size).numpy()
    np.testing.assert_array_equal(stored(VALUES, size), expected)


def test_a_mapped_file_of_ones_own_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 1000)
    mine = as_file(tmp_path, VALUES)
    assert stored(mine, 4) is mine


def test_a_mapped_file_read_backwards_is_not_copied_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 100)
    backwards = as_file(tmp_path, VALUES)[..., ::-1]
    array = stored(backwards, None)
    np.testing.assert_array_equal(array, VALUES[..., ::-1])
    assert is_mapped(array)
    assert Images(array)._source.tensor.data_ptr() == array.ctypes.data


def test_a_mapped_file_that_was_changed_in_memory_only_is_not_taken_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 100)
    mine = as_file(tmp_path, VALUES, "c")
    before = stored(mine, 8).copy()
    mine[:] = 255 - mine
    np.testing.assert_array_equal(stored(mine, None), 255 - VALUES)
    assert (stored(mine, 8) != before).any()
    assert (looks_of(mine).moments != looks_of(VALUES).moments).any()


def test_parts_of_a_mapped_file_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 100)
    mine = as_file(tmp_path, VALUES)
    for part in (mine[:20], mine[20:40], mine[::2], mine[20:40].copy(), mine[[3, 1]]):
        expected = resize(torch.from_numpy(np.array(part)), 3).numpy()
        np.testing.assert_array_equal(stored(part, 3), expected)
        thumbnails = looks_of(part).thumbnails
        np.testing.assert_array_equal(thumbnails, part)  # they are smaller than thumbnails


def test_a_mapped_file_that_has_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "LARGE", 100)
    for values in (VALUES, 255 - VALUES):
        (tmp_path / "mine.npy").unlink(missing_ok=True)
        mine = as_file(tmp_path, values)
        np.testing.assert_array_equal(looks_of(mine).thumbnails, values)


@pytest.mark.parametrize("shape", [(30, 16, 24, 3), (30, 5, 9, 1), (30, 8, 8, 13)])
@pytest.mark.parametrize("mapped", [False, True])
def test_looks_are_means_and_thumbnails(
    shape: tuple[int, ...], mapped: bool, tmp_path: Path
) -> None:
    images: NDArray[np.uint8] = np.random.default_rng(1).integers(256, size=shape, dtype=np.uint8)
    if mapped:
        images = as_file(tmp_path, images)
    looks = looks_of(images)
    floats = np.asarray(images, dtype=float)
    np.testing.assert_allclose(looks.moments[:, 0], floats.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(looks.moments[:, 1], (floats**2).mean((1, 2)), rtol=1e-5)
    if shape[1:3] == (16, 24):
        blocks = floats.reshape(30, 8, 2, 8, 3, 3).mean((2, 4))
        assert np.abs(looks.thumbnails - blocks).max() <= 0.5001
    assert looks.thumbnails.shape == (30, min(8, shape[1]), min(8, shape[2]), shape[3])
