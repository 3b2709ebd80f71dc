"""A folder of images: layout, labels, conversion to RGB, the cache, and what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from impon_hpo.errors import DataError
from impon_hpo.training.data import load_folder
from impon_hpo.training.image_folder import AT_A_TIME
from tests.training.pets import (
    add_validation,
    assert_equals_torchvision,
    draw,
    draw_class,
    load,
    opened,
    pets,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return pets(tmp_path)


def test_train_and_test_are_read_as_torchvision_reads_them(root: Path) -> None:
    data = load(root)
    assert data.test_images is not None
    assert data.test_labels is not None
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 1, 1]
    assert_equals_torchvision(data.images, data.labels, root / "train")
    assert_equals_torchvision(data.test_images, data.test_labels, root / "test")
    assert data.augment == "crop+flip"


def test_without_test_folder_there_is_no_test_split(root: Path, tmp_path: Path) -> None:
    (root / "test").rename(tmp_path / "away")
    data = load(root)
    assert data.test_images is None
    assert data.test_labels is None
    assert_equals_torchvision(data.images, data.labels, root / "train")


def test_without_train_folder_the_classes_lie_in_the_root(tmp_path: Path) -> None:
    for at, name in enumerate(("ant", "test", "bee")):  # a class may well be called "test"
        draw_class(tmp_path / "insects" / name, 3, seed=at)
    data = load(tmp_path / "insects")
    assert data.class_names == ("ant", "bee", "test")
    assert data.test_images is None
    assert_equals_torchvision(data.images, data.labels, tmp_path / "insects")


def test_images_in_folders_below_a_class_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_class(tmp_path / "x" / name, 2)
        draw_class(tmp_path / "x" / name / "more" / "still", 3)
    data = load(tmp_path / "x")
    assert data.labels.tolist() == ImageFolder(str(tmp_path / "x")).targets == [0] * 5 + [1] * 5


def test_files_that_are_no_images_are_ignored(root: Path) -> None:
    (root / "train" / "cat" / "notes.txt").write_text("three cats")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"\x00")
    (root / "train" / "README.md").write_text("cats and dogs")
    assert load(root).labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_image_size_averages_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), dtype=np.uint8)
    wide[:, :4] = 255  # left and right of the centre: never seen
    wide[:, 12:] = 255
    wide[0:2, 4:6] = [[[10, 0, 0], [20, 0, 0]], [[30, 0, 0], [40, 4, 0]]]
    for name in ("a", "b"):
        for at in range(3):
            path = tmp_path / "x" / name / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide if at == 0 else wide.transpose(1, 0, 2)).save(path)
    images = load(tmp_path / "x", image_size=4).images
    assert images.shape == (6, 4, 4, 3)
    expected = np.zeros((4, 4, 3), dtype=np.uint8)
    expected[0, 0] = [25, 1, 0]  # means of 10, 20, 30, 40 and of 0, 0, 0, 4
    for image in images:
        assert np.array_equal(image, expected)


def test_small_images_are_enlarged_to_image_size(root: Path) -> None:
    assert load(root, image_size=16).images.shape == (7, 16, 16, 3)


def test_images_of_image_size_are_left_alone(tmp_path: Path) -> None:
    pixels = [draw(tmp_path / "x" / c / f"{i}.png", size=(8, 8)) for c in "ab" for i in range(3)]
    assert np.array_equal(load(tmp_path / "x", image_size=8).images, np.stack(pixels))


def test_second_load_decodes_nothing(root: Path) -> None:
    with opened() as names:
        first = load(root)
    assert set(names) == {"0.png", "1.png", "2.png", "3.png"}
    with opened() as names:
        second = load(root)
    assert names == []
    assert first.test_images is not None
    assert second.test_images is not None
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.test_images, second.test_images)
    assert np.array_equal(first.labels, second.labels)


def test_changed_file_is_decoded_again(root: Path) -> None:
    load(root)
    changed = root / "train" / "dog" / "0.png"
    before = changed.stat().st_mtime_ns
    pixels = draw(changed, seed=999)
    os.utime(changed, ns=(before + 1000, before + 1000))
    with opened() as names:
        data = load(root)
    assert names
    assert np.array_equal(data.images[3], pixels)


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_other_files_are_decoded_again(change: str, root: Path) -> None:
    load(root)
    folder = root / "train" / "dog"
    if change == "added":
        draw(folder / "new.png", seed=9)
    elif change == "removed":
        (folder / "1.png").unlink()
    else:
        (folder / "0.png").rename(folder / "9.png")
    data = load(root)
    assert_equals_torchvision(data.images, data.labels, root / "train")


def test_another_image_size_is_decoded_again(root: Path) -> None:
    assert load(root, image_size=4).images.shape == (7, 4, 4, 3)
    assert load(root, image_size=5).images.shape == (7, 5, 5, 3)
    with opened() as names:
        assert load(root, image_size=4).images.shape == (7, 4, 4, 3)
    assert names == []


def test_cache_that_cannot_be_written_only_warns(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data = load(root)
    assert_equals_torchvision(data.images, data.labels, root / "train")
    assert any("There is no place for the pictures in" in line for line in said)


def test_nothing_is_printed_to_standard_output(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(root)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("side", [8, 100])  # decoded by one thread, and by several
def test_every_image_lands_in_its_place_whoever_decodes_it(side: int, tmp_path: Path) -> None:
    count = 2 * AT_A_TIME + 3
    drawn = [
        draw(
            tmp_path / "all" / ("one" if at < 9 else "two") / f"{at:03}.png",
            seed=at,
            size=(side, side),
        )
        for at in range(count)
    ]
    np.testing.assert_array_equal(load(tmp_path / "all").images, np.stack(drawn))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"There is no folder '{tmp_path / 'none'}'"):
        load(tmp_path / "none")


def test_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "x" / "0.png")
    with pytest.raises(DataError, match="must have one folder of images for each class"):
        load(tmp_path / "x")


def test_empty_class_folder_is_named(root: Path) -> None:
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").write_text("no picture yet")
    with pytest.raises(DataError, match=r"Class folder '.*eel' has no image .*1 × \.txt"):
        load(root)


def test_class_with_one_image_is_named(root: Path) -> None:
    draw_class(root / "train" / "eel", 1)
    with pytest.raises(DataError, match=r"class 'eel' has 1\."):
        load(root)


def test_class_that_only_test_has_is_named(root: Path) -> None:
    draw_class(root / "test" / "eel", 1)
    with pytest.raises(DataError, match=r"classes that '.*train' does not have: \['eel'\]"):
        load(root)


def test_class_that_test_has_not_keeps_its_label(root: Path) -> None:
    (root / "test" / "cat" / "0.png").unlink()
    (root / "test" / "cat").rmdir()
    data = load(root)
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [1, 1]
    assert data.class_names == ("cat", "dog")


def test_sizes_that_differ_are_listed_with_the_file(root: Path) -> None:
    draw(root / "train" / "dog" / "2.png", size=(9, 5))
    with pytest.raises(DataError, match=r"dog.2\.png: 9x5 pixels, but the first has 6x5; .*size"):
        load(root)
    assert load(root, image_size=4).images.shape == (7, 4, 4, 3)


def test_rows_keep_the_order_of_paths_part_by_part(tmp_path: Path) -> None:
    # As text, "a-b" would come before "a/…".
    for name in ("one", "two"):
        for index, file in enumerate(("a/2.png", "a-b.png", "a/1.png", "B.PNG")):
            path = tmp_path / "images" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), index, dtype=np.uint8)).save(path)
    data = load_folder(root=tmp_path / "images", download=False, image_size=None)
    assert data.images[:4, 0, 0, 0].tolist() == [3, 2, 0, 1]


def test_the_cache_is_the_same_wherever_the_folder_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        for index in range(3):
            path = tmp_path / "images" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), index, dtype=np.uint8)).save(path)
    load_folder(root=tmp_path / "images", download=False, image_size=None)
    monkeypatch.chdir(tmp_path / "images")
    load_folder(root=Path(), download=False, image_size=None)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_other_pixels_of_the_same_size_and_time_are_decoded_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for at in range(3):
            path = tmp_path / "x" / name / f"{at}.bmp"
            draw(path, seed=at)
    load(tmp_path / "x")
    changed = tmp_path / "x" / "a" / "0.bmp"
    before = changed.stat()
    pixels = draw(changed, seed=999)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = changed.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert np.array_equal(load(tmp_path / "x").images[0], pixels)


@pytest.fixture
def with_validation(root: Path) -> Path:
    return add_validation(root)


def test_pictures_of_validation_are_read_and_named_by_their_place(with_validation: Path) -> None:
    data = load(with_validation)
    assert data.validation_images is not None
    assert data.validation_labels is not None
    assert_equals_torchvision(
        data.validation_images, data.validation_labels, with_validation / "val"
    )
    assert data.validation_names == ("val/cat/0.png", "val/cat/1.png", "val/dog/0.png")
    assert data.names[0] == "cat/0.png"
    assert data.test_images is not None


def test_class_that_validation_lacks_is_told(with_validation: Path, said: list[str]) -> None:
    (with_validation / "val" / "dog" / "0.png").unlink()
    data = load(with_validation)
    assert data.validation_names == ("val/cat/0.png", "val/cat/1.png")
    expected = "The 2 images of validation have none of 1 of 2 classes, which it does not judge: "
    assert f"{expected}'dog'" in said


def test_names_are_shown_on_one_line_of_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n ")
    for folder in (name, "n" * 200):
        draw_class(tmp_path / "x" / "train" / folder, 3)
        draw_class(tmp_path / "x" / "val" / folder, 1)
    draw(tmp_path / "x" / "train" / name / f"{name}.png")
    data = load(tmp_path / "x")
    shown = r"caf\udce9\n "
    assert data.class_names == (shown, "n" * 200)
    assert data.names[3] == f"{shown}/{shown}.png"
    assert data.validation_names[0] == f"val/{shown}/0.png"
    assert "".join(data.names).encode().decode() == "".join(data.names)
