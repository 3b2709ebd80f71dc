"""Corrections by hand: exactly the named rows change, in data and identity; bad files are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Split, Splits, load_splits
from tests.settings import training_config

CPU = torch.device("cpu")


def digits(**settings: str) -> Splits:
    return load_splits(training_config(settings), CPU)


def rows_of(splits: Splits) -> dict[str, tuple[int, str]]:
    """Return label and split of every row that has a name."""
    parts: dict[str, Split] = {"train": splits.train, "val": splits.validation, "test": splits.test}
    return {
        name: (label, part)
        for part, split in parts.items()
        for name, label in zip(split.names, split.labels.tolist(), strict=True)
    }


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_relabelling_changes_exactly_the_rows_of_the_file_and_moves_none() -> None:
    before = digits()
    train, val = before.train.names[3], before.validation.names[5]
    old = {name: label for name, (label, _) in rows_of(before).items()}
    new = {name: (old[name] + 1) % 10 for name in (train, val)}
    lines = [f"{name},0.9,{old[name]},{label}" for name, label in new.items()]
    same = before.train.names[7]  # as `labels` has prefilled it
    lines.append(f"{same},0.8,{old[same]},{old[same]}")
    file = write("labels.csv", "file,wrong_probability,given,label\n" + "\n".join(lines) + "\n")
    after = digits(relabel=file)
    expected = rows_of(before) | {train: (new[train], "train"), val: (new[val], "val")}
    assert rows_of(after) == expected
    assert torch.equal(after.train.images[:], before.train.images[:])


def test_rows_without_a_label_and_excluded_ones_are_left_out_and_no_other_row_moves() -> None:
    before = digits()
    one, two, three = before.train.names[0], before.validation.names[1], before.test.names[2]
    relabel = write("labels.csv", f"file,label\n{one},\n")
    exclude = write("bad.csv", f"why,file\nblurred,{two}\ntorn,{three}\ntorn,{three}\n")
    after = digits(relabel=relabel, exclude=exclude)
    kept = {name: row for name, row in rows_of(before).items() if name not in (one, two, three)}
    assert rows_of(after) == kept


def test_rows_of_a_folder_are_named_by_their_files_decoded_or_from_the_cache() -> None:
    for number in range(12):
        place = Path("pets/train") / ("cat", "dog")[number % 2] / "in" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(place)
    settings: dict[str, Any] = {
        "dataset": "folder",
        "data_dir": "pets",
        "batch_size": 2,
        "validation_size": 2,
    }
    file = write("labels.csv", "file,label\ncat/in/4.png,dog\n")
    for _ in range(2):
        plain = load_splits(training_config(settings), CPU)
        splits = load_splits(training_config(settings | {"relabel": file}), CPU)
        rows = rows_of(splits)
        assert rows["cat/in/4.png"][0] == 1
        assert {n: r for n, r in rows.items() if "/4." not in n} == {
            n: r for n, r in rows_of(plain).items() if "/4." not in n
        }
        for part in (splits.train, splits.validation, splits.test):
            for name, image in zip(part.names, part.images, strict=True):
                assert int(image[0, 0, 0]) == 20 * int(Path(name).stem)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,label\n99999,3\n", r"'labels.csv', line 2, has the image '99999', which is not one"),
        ("file,label\n5,ten\n", r"'labels.csv', line 2, has the class 'ten', which is not one"),
        ("file,label\n5,3\n5,4\n", r"line 3, gives '5' the label '4', but .* gives it '3'"),
        ("file;label\n5;3\n", r"must have the columns file and label, .* is 'file;label'"),
        ("", r"must have the columns file and label"),
        ("label,file\n3\n", r"'labels.csv', line 2, has no file: it has fewer values than"),
        ("file,label\n5,\xff\0\n", r"cannot be read as a CSV file|has the class"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, complaint: str) -> None:
    file = write("labels.csv", text)
    with pytest.raises(ConfigError, match=complaint):
        digits(relabel=file)


def test_a_spreadsheets_mark_before_the_header_does_no_harm() -> None:
    file = write("labels.csv", "\ufefffile,label\r\n5, 3 \r\n")
    assert rows_of(digits(relabel=file))["5"][0] == 3


def test_a_file_that_does_not_exist_is_told_as_the_setting_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"^exclude = 'gone.csv' must be a CSV file.*No such"):
        TrainingConfig(exclude="gone.csv")


def test_leaving_out_too_many_rows_is_told() -> None:
    rows = "\n".join(map(str, range(1700)))
    file = write("bad.csv", f"file\n{rows}\n")
    with pytest.raises(DataError, match=r"leave \d+ rows to train on, .* Leave out fewer"):
        digits(exclude=file)


def test_the_content_is_part_of_the_identity_and_the_place_is_not() -> None:
    plain = TrainingConfig().identity()
    assert not {"relabel", "exclude"} & set(plain)
    here = TrainingConfig(relabel=write("labels.csv", "file,label\n5,3\n")).identity()
    there = TrainingConfig(relabel=write("other.csv", "file,label\n5,3\n")).identity()
    changed = TrainingConfig(relabel=write("labels.csv", "file,label\n5,4\n")).identity()
    assert here == there != changed
    assert {key: here[key] for key in plain} == plain


def test_class_that_is_left_out_whole_is_refused() -> None:
    fours = [name for name, (label, _) in rows_of(digits()).items() if label == 4]
    exclude = write("fours.csv", "file\n" + "\n".join(fours) + "\n")
    with pytest.raises(ConfigError, match=r"each class must have an image left, but \['4'\]"):
        digits(exclude=exclude)


def test_what_was_corrected_is_told(caplog: pytest.LogCaptureFixture) -> None:
    names = digits().train.names
    labels = {name: label for name, (label, _) in rows_of(digits()).items()}
    lines = [f"{names[0]},{(labels[names[0]] + 1) % 10}", f"{names[1]},", f"{names[2]},"]
    relabel = write("labels.csv", "file,label\n" + "\n".join(lines) + "\n")
    with caplog.at_level("INFO", "impon_hpo"):
        digits(relabel=relabel)
    assert "corrections: 1 labels changed, 2 images left out" in caplog.text


def test_file_in_another_encoding_says_how_to_save_it() -> None:
    Path("labels.csv").write_text("file,label\n1,2\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"must be encoded as UTF-8\. In a spreadsheet, save it"):
        digits(relabel="labels.csv")


def folder_with_validation(class_name: str = "cat") -> dict[str, Any]:
    """Make a folder with `train/` (6 a class) and `val/` (2 a class), and return its settings."""
    for number in range(16):
        split = "train" if number < 12 else "val"
        place = Path("pets", split, (class_name, "dog")[number % 2], f"{number}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (15 * number, 0, 0)).save(place)
    return {"dataset": "folder", "data_dir": "pets", "batch_size": 2}


def test_validation_pictures_of_a_folder_are_corrected_by_their_place(said: list[str]) -> None:
    settings = folder_with_validation()
    before = rows_of(load_splits(training_config(settings), CPU))
    relabel = write("labels.csv", "file,label\nval/cat/12.png,dog\nval/cat/14.png,cat\n")
    exclude = write("bad.csv", "file\nval/dog/13.png\n")
    splits = load_splits(training_config(settings | {"relabel": relabel, "exclude": exclude}), CPU)
    after = rows_of(splits)
    assert after == {name: row for name, row in before.items() if name != "val/dog/13.png"} | {
        "val/cat/12.png": (1, "val")
    }
    for name, image in zip(splits.validation.names, splits.validation.images, strict=True):
        assert int(image[0, 0, 0]) == 15 * int(Path(name).stem)
    assert "corrections: 1 labels changed, 1 images left out" in said


def test_class_that_validation_loses_is_told(said: list[str]) -> None:
    settings = folder_with_validation()
    exclude = write("bad.csv", "file\nval/dog/13.png\nval/dog/15.png\n")
    load_splits(training_config(settings | {"exclude": exclude}), CPU)
    assert any(
        line.startswith("The 2 images of validation have none of 1 of 2 classes") for line in said
    )


def test_class_that_loses_its_training_rows_is_refused() -> None:
    fours = [
        name for name, (label, part) in rows_of(digits()).items() if (label, part) == (4, "train")
    ]
    exclude = write("fours.csv", "file\n" + "\n".join(fours) + "\n")
    with pytest.raises(DataError, match=r"leave \d+ rows to train on, but none of class '4'"):
        digits(exclude=exclude)


def test_class_with_spaces_at_its_ends_can_be_given() -> None:
    settings = folder_with_validation(" cat ")
    relabel = write("labels.csv", "file,label\nval/dog/13.png, cat \ndog/1.png,  dog\n")
    rows = rows_of(load_splits(training_config(settings | {"relabel": relabel}), CPU))
    assert rows["val/dog/13.png"] == (0, "val")
    assert rows.get("dog/1.png", (1, ""))[0] == 1
