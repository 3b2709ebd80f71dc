"""A folder of pictures as people have it, from the command line: used, told, or refused with 2."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.command import run
from tests.studies import SMALL, write_study

ODD = os.fsdecode(b"caf\xe9\n") + "n" * 190
SHOWN = r"caf\udce9\n" + "n" * 190
STUDY = SMALL.replace("subset = 240\nvalidation_size = 100\n", "").replace(
    'dataset = "digits"', 'dataset = "folder"\ndata_dir = "pets"\nimage_size = 8'
)
FEW = ("--set", "batch_size=4", "--set", "space.batch_size.choices=[4]", "--arm", "uniform")


@pytest.fixture
def pets() -> Path:
    """A folder with a class whose name is no UTF-8, of two lines and long, and with `val/`."""
    for split, count in (("Train", 10), ("val", 4)):
        for shade, name in enumerate((ODD, "dog")):
            folder = Path("pets", split, name)
            folder.mkdir(parents=True)
            for at in range(count):
                Image.new("RGB", (9, 8), (shade * 200, at * 5, 0)).save(folder / f"{at}.png")
    write_study(STUDY)
    return Path("pets")


def test_validation_folder_is_used_and_told_and_odd_names_reach_every_table(
    pets: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("tune", "small", *FEW, "--trials", "1") == 0
    err = capfd.readouterr().err
    assert "20 to train on, of 2 classes; 8 of validation ('val')" in err
    assert "validation: 8 images that the data set has for it; validation_size does not" in err
    assert run("labels", "small", "--all", "--set", "batch_size=4", "--format", "json") == 0
    capfd.readouterr()
    with Path("runs/small/labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["given"] for row in rows} == {SHOWN, "dog"}
    assert sum(row["file"].startswith("val/") for row in rows) == 8
    assert f"val/{SHOWN}/3.png" in {row["file"] for row in rows}
    rows[0]["label"] = "dog" if rows[0]["given"] == SHOWN else SHOWN
    with Path("small/labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert run("train", "small", *FEW[:2], *FEW[4:], "--set", "relabel=labels.csv") == 0
    assert "corrections: 1 labels changed, 0 images left out" in capfd.readouterr().err


def test_broken_pictures_are_named_with_code_2_or_left_out(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pets / "Train" / ODD / "3.png").write_text("<html>image not found")
    assert run("tune", "small", *FEW, "--trials", "1") == 2
    err = capsys.readouterr().err
    assert f"{SHOWN}/3.png: is no picture that can be read" in err
    assert "set skip_broken = true" in err
    assert "Traceback" not in err
    assert run("tune", "small", *FEW, "--trials", "1", "--set", "skip_broken=true") == 0
    assert "1 of 20 pictures cannot be read and are left out:" in capsys.readouterr().err
