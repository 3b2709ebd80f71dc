"""The picture files of a folder: splits, classes, order, links, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impon_hpo.errors import DataError
from impon_hpo.training.picture_files import PictureFolder, find_pictures, picture_extensions


def touch(root: Path, *files: str) -> Path:
    """Make empty files; their content is not looked at."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def pets(*splits: str) -> list[str]:
    return [f"{split}/{name}/1.jpg" for split in splits for name in ("cat", "dog")]


def places(found: PictureFolder) -> tuple[str | None, str | None]:
    validation, test = found.validation, found.test
    return validation.place if validation else None, test.place if test else None


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "validation", "testing"),
        ("train", "dev", "test"),
        ("train", "valid", None),
        ("train", None, "Test"),
        ("seg_train", None, "seg_test"),
        ("train2017", "val2017", None),
        ("images-train", "images-val", "images-test"),
        ("pets (train)", None, "pets (test)"),
    ],
)
def test_splits_are_told_by_their_words(
    train: str, validation: str | None, test: str | None, tmp_path: Path, said: list[str]
) -> None:
    given = [name for name in (train, validation, test) if name is not None]
    found = find_pictures(touch(tmp_path / "x", *pets(*given)))
    assert found.training.folder == str(tmp_path / "x" / train)
    assert found.training.names == ("cat/1.jpg", "dog/1.jpg")
    assert places(found) == (validation, test)
    assert "2 to train on, of 2 classes" in said[0]
    assert (f"2 of validation ('{validation}')" in said[0]) == (validation is not None)
    assert (f"2 of test ('{test}')" in said[0]) == (test is not None)
    assert len(said) == 1


def test_folders_packed_into_folders_are_entered(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "intel",
        *pets("archive/seg_train/seg_train", "archive/seg_test/seg_test"),
        "__MACOSX/archive/._1.jpg",
    )
    found = find_pictures(root)
    assert found.class_names == ("cat", "dog")
    assert found.training.folder == str(root / "archive/seg_train/seg_train")
    assert places(found) == (None, "seg_test/seg_test")
    flowers = touch(tmp_path / "flowers", *pets("flower_photos"))
    assert find_pictures(flowers).training.folder == str(flowers / "flower_photos")


def test_a_split_that_has_one_class_only_is_not_taken_for_a_packing(tmp_path: Path) -> None:
    root = touch(tmp_path / "x", *pets("train"), "test/cat/a/1.jpg", "test/cat/b/2.jpg")
    found = find_pictures(root)
    assert found.test is not None
    assert found.test.names == ("cat/a/1.jpg", "cat/b/2.jpg")
    assert found.test.labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (pets("train", "Train"), "'Train' and 'train' may each have the training pictures"),
        (pets("train", "val", "valid"), "'val' and 'valid' may each have the validation pictures"),
        (pets("a_train", "a_test", "b_train", "b_test"), "'a_train' and 'b_train' may each"),
        (pets("val", "test"), "has the folder '.*', but no folder 'train'"),
        (pets("test"), "has the folder 'test', but no folder 'train'"),
        (["train/1.jpg", "test/2.jpg"], "but no folder 'train' that has one folder of images"),
        ([*pets("."), *pets("val")], "has the folder 'val', but no folder 'train'"),
        (
            ["train/steam/1.jpg", "train/diesel/2.jpg", "car/1.jpg", "ship/1.jpg"],
            r"train' may have the training pictures, or be a class beside \['car', 'ship'\]",
        ),
        ([*pets("train"), "val/cat/1.jpg", "val/eel/1.jpg"], r"val' has classes .*: \['eel'\]"),
        ([*pets("train"), "val/cat/notes.txt"], "val' has no image that can be read here"),
        (
            [*pets("train"), "train/eel/1.heic"],
            "eel' has no image .* Left out in all folders: 1 × .heic",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(files: list[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        find_pictures(touch(tmp_path / "x", *files))


def test_empty_folder_of_a_split_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "x", *pets("train"))
    (root / "val").mkdir()
    with pytest.raises(DataError, match="val' must have one folder of images for each class"):
        find_pictures(root)


def test_a_picture_beside_the_classes_of_a_split_does_not_matter(
    tmp_path: Path, said: list[str]
) -> None:
    found = find_pictures(touch(tmp_path / "x", *pets("train", "val"), "train/a.png", "val/b.png"))
    assert places(found) == ("val", None)
    assert found.training.names == ("cat/1.jpg", "dog/1.jpg")
    assert said[1] == "left out: 2 × outside the class folders"


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    root = touch(tmp_path / "x", "train/1.jpg", "train_station/1.jpg", "car/1.jpg", "test/1.jpg")
    assert find_pictures(root).class_names == ("car", "test", "train", "train_station")
    old = touch(tmp_path / "z", "train/1.jpg", "train/old/1.jpg", "car/1.jpg")
    assert find_pictures(old).class_names == ("car", "train")
    stations = touch(tmp_path / "y", "train_station/a/1.jpg", "car/1.jpg")
    assert find_pictures(stations).class_names == ("car", "train_station")


def test_other_folders_beside_the_splits_are_left_out_and_told(
    tmp_path: Path, said: list[str]
) -> None:
    files = [*pets("train", "val"), "test/1.jpg", "train_masks/1.png", "docs/cat/1.jpg"]
    found = find_pictures(touch(tmp_path / "x", *files))
    assert places(found) == ("val", None)
    assert said[1] == "left out: folder 'docs', folder 'test', folder 'train_masks'"


def test_what_is_no_picture_is_left_out_and_counted(tmp_path: Path, said: list[str]) -> None:
    hidden = [".DS_Store", "Thumbs.db", "._1.jpg", "@eaDir/1.jpg", ".ipynb_checkpoints/1.jpg"]
    root = touch(
        tmp_path / "x",
        *pets("."),
        *(f"cat/{name}" for name in hidden),
        ".ipynb_checkpoints/1.jpg",
        "__MACOSX/cat/1.jpg",
        *("cat/2.heic", "dog/3.HEIC", "dog/film.mp4", "dog/notes", "stray.png"),
    )
    found = find_pictures(root)
    assert found.class_names == ("cat", "dog")
    assert found.training.names == ("cat/1.jpg", "dog/1.jpg")
    assert said[1].removeprefix("left out: ").split(", ") == [
        "7 × hidden or of the system",
        "2 × .heic",
        "1 × .mp4",
        "1 × outside the class folders",
        "1 × without an extension",
    ]


def test_many_kinds_of_files_are_summed_up(tmp_path: Path, said: list[str]) -> None:
    find_pictures(touch(tmp_path / "x", *pets("."), *(f"cat/a.{at}" for at in range(30))))
    assert said[1].endswith(", 18 × other files")


def test_all_that_pillow_can_see_is_a_picture() -> None:
    extensions = picture_extensions()
    assert extensions >= {".gif", ".jfif", ".jpe", ".jp2", ".webp", ".tif", ".bmp", ".pgm", ".apng"}
    assert not extensions & {".txt", ".mp4", ".mpg", ".pdf", ".ps", ".h5", ".svg", ".grib", ""}


parts = st.text(st.sampled_from("aB-. é1"), min_size=1, max_size=3).filter(
    lambda name: name.strip(".") and name[0] != "."
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.sets(st.lists(parts, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8))
def test_rows_have_the_order_of_their_paths_part_by_part(
    paths: Iterable[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = touch(tmp_path_factory.mktemp("x"), "b/1.png")
    files = sorted(("a", *path[:-1], f"{path[-1]}.png") for path in paths)
    touch(root, *map("/".join, files))
    expected = [*map("/".join, files), "b/1.png"]
    found = find_pictures(root)
    assert list(found.training.names) == expected
    assert found.training.labels.tolist() == [0] * len(files) + [1]


def test_linked_folders_and_files_are_followed_and_loops_are_not(
    tmp_path: Path, said: list[str]
) -> None:
    root = touch(tmp_path / "x", *pets("."), "cat/in/2.jpg")
    touch(tmp_path / "elsewhere", "3.jpg", "deep/4.jpg")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "eel").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "in" / "loop").symlink_to(root / "cat")
    (root / "dog" / "5.jpg").symlink_to(root / "cat" / "1.jpg")
    found = find_pictures(root)
    assert found.training.names == (
        *("cat/1.jpg", "cat/in/2.jpg", "cat/more/3.jpg", "cat/more/deep/4.jpg"),
        *("dog/1.jpg", "dog/5.jpg", "eel/3.jpg", "eel/deep/4.jpg"),
    )
    assert said[1] == "left out: 1 × link to a folder that it lies in"


def test_a_folder_that_has_only_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x" / "a").mkdir(parents=True)
    (tmp_path / "x" / "a" / "loop").symlink_to(tmp_path / "x")
    with pytest.raises(DataError, match="has no image"):
        find_pictures(tmp_path / "x")


def test_a_dangling_link_to_a_picture_is_kept_to_be_named_and_one_to_a_folder_is_refused(
    tmp_path: Path,
) -> None:
    root = touch(tmp_path / "x", *pets("."))
    (root / "cat" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    assert find_pictures(root).training.names[0] == "cat/0.jpg"
    (root / "eel").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="eel' is a link to what does not exist"):
        find_pictures(root)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = touch(tmp_path / "x", *pets("."), "cat/locked/1.jpg")
    real = os.scandir

    def scandir(path: str) -> os.PathLike[str]:
        if path.endswith("locked"):  # root, who may run the tests, can read everything
            raise PermissionError(13, "Permission denied", path)
        return real(path)  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="locked' cannot be read: Permission denied"):
        find_pictures(root)


def test_names_that_are_not_utf_8_are_kept_as_the_disk_has_them(
    tmp_path: Path, said: list[str]
) -> None:
    name = os.fsdecode(b"caf\xe9\n")
    root = touch(tmp_path / "x", "a/1.jpg", f"{name}/{'n' * 200}.jpg", f"a/1.{name}")
    found = find_pictures(root)
    assert found.class_names == ("a", name)
    assert found.training.names[1] == f"{name}/{'n' * 200}.jpg"
    assert r"1 × .caf\udce9\n" in said[1]
