"""A folder with pictures that cannot be read, or that there is no room for: named, or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from impon_hpo.errors import DataError
from impon_hpo.training import pixel_store
from impon_hpo.training.data import load_dataset, load_folder
from tests.settings import training_config
from tests.training.pets import add_validation, draw, draw_class, load, opened, pets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return pets(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("name", ["cat/0.png", "dog/3.png"])
def test_broken_image_is_named(content: bytes, name: str, root: Path) -> None:
    (root / "train" / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load(root)


def test_image_cut_short_is_named_wherever_the_cut(root: Path) -> None:
    path = root / "train" / "dog" / "3.png"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"dog.3\.png"):
            load(root)


def test_several_broken_images_are_listed_together(root: Path) -> None:
    for name in ("cat/1", "dog/0", "dog/2"):
        (root / "train" / f"{name}.png").write_text("broken")
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith("At least 3 image(s) cannot be used:\n")
    assert [line.split(":")[0].rsplit("train/")[1] for line in message.splitlines()[1:-1]] == [
        "cat/1.png",
        "dog/0.png",
        "dog/2.png",
    ]


def test_no_more_than_five_broken_images_are_listed(tmp_path: Path) -> None:
    draw_class(tmp_path / "x" / "a", 10)
    draw_class(tmp_path / "x" / "b", 10)
    for broken in list((tmp_path / "x" / "b").iterdir()):
        broken.write_text("broken")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x")
    assert len(str(caught.value).splitlines()) == 7
    assert str(caught.value).endswith("or set skip_broken = true.")


def test_broken_folder_leaves_no_cache_behind(root: Path, tmp_path: Path) -> None:
    (root / "train" / "dog" / "3.png").write_text("broken")
    with pytest.raises(DataError):
        load(root)
    assert list((tmp_path / "cache").rglob("*.npy")) == []


@pytest.mark.parametrize("first", [True, False])
def test_broken_pictures_are_left_out_and_listed_when_asked_to(
    first: bool, root: Path, said: list[str]
) -> None:
    add_validation(root)
    broken = root / "train" / ("cat/0.png" if first else "dog/2.png")
    broken.write_text("<html>")
    (root / "val" / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"or set skip_broken = true"):
        load(root)
    whole = np.stack([np.asarray(image) for image, _ in readable_of(root / "train")])
    for _ in range(2):
        said.clear()
        data = load_folder(root=root, download=False, image_size=None, skip_broken=True)
        assert np.array_equal(data.images, whole)
        assert data.labels.tolist() == ([0, 0, 1, 1, 1, 1] if first else [0, 0, 0, 1, 1, 1])
        assert broken.relative_to(root / "train").as_posix() not in data.names
        assert data.validation_names == ("val/cat/0.png", "val/cat/1.png", "val/dog/0.png")
        warnings = [line for line in said if "cannot be read" in line]
        assert warnings == [
            f"1 of 7 pictures cannot be read and are left out:\n  {broken}: is no picture that can "
            "be read: it begins with b'<html>'",
            "1 of 4 pictures cannot be read and are left out:\n  "
            f"{root / 'val' / 'cat' / 'gone.png'}: is a link to a file that does not exist",
        ]


def readable_of(folder: Path) -> ImageFolder:
    return ImageFolder(
        str(folder), is_valid_file=lambda path: Path(path).read_bytes()[:4] == b"\x89PNG"
    )


def test_class_that_has_no_readable_picture_is_refused_all_the_same(root: Path) -> None:
    for file in (root / "train" / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="class 'cat' has 0"):
        load_folder(root=root, download=False, image_size=None, skip_broken=True)
    for file in (root / "train" / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"At least 7 image\(s\) cannot be used"):
        load_folder(root=root, download=False, image_size=None, skip_broken=True)


def test_sizes_that_differ_are_refused_with_skip_broken_too(root: Path) -> None:
    draw(root / "train" / "dog" / "2.png", size=(9, 5))
    (root / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"9x5 pixels, but the first has 6x5; set image_size$"):
        load_folder(root=root, download=False, image_size=None, skip_broken=True)


def test_more_than_the_disk_is_refused_before_anything_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "free_disk", lambda folder: 10**6)
    with pytest.raises(DataError) as caught:
        load(root)
    said = str(caught.value)
    assert said.startswith("There is no place for the pictures, 7 × 5 × 6 × 3 values, neither in")
    assert "630 B are needed and 1 MB are free" in said
    assert said.endswith("or make images smaller: --set image_size=…")


def test_pictures_left_out_are_kept_in_mind_and_asked_for_again(
    root: Path, said: list[str]
) -> None:
    (root / "train" / "dog" / "1.png").write_bytes(b"")
    for _ in range(2):
        with opened() as names:
            data = load_folder(root=root, download=False, image_size=None, skip_broken=True)
        assert len(data.images) == len(data.labels) == len(data.names) == 6
        assert "dog/1.png" not in data.names
    assert names == []  # the second time nothing was decoded
    assert sum("1 of 7 pictures cannot be read and are left out" in line for line in said) == 2
    with pytest.raises(DataError, match=r"1\.png: is empty"):
        load(root)
    draw(root / "train" / "dog" / "1.png")
    assert len(load(root).images) == 7


def test_setting_skip_broken_reaches_the_folder(root: Path) -> None:
    (root / "train" / "dog" / "1.png").write_bytes(b"")
    given: dict[str, Any] = {"dataset": "folder", "data_dir": str(root)}
    with pytest.raises(DataError, match=r"1\.png: is empty"):
        load_dataset(training_config(given))
    data = load_dataset(training_config(given | {"skip_broken": True}))
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
