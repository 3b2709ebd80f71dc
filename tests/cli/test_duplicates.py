"""The command `duplicates`: from pictures that look alike to a study that keeps them together."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from impon_hpo.training import splits as splits_module
from tests.command import run
from tests.studies import SMALL, write_study
from tests.training.test_near_duplicates import jpeg, photographs

STUDY = SMALL.replace("subset = 240\nvalidation_size = 100\n", "validation_size = 12\n").replace(
    'dataset = "digits"', 'dataset = "folder"\ndata_dir = "pets"\nimage_size = 32'
)


@pytest.fixture
def pets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with 40 pictures, of which the first 20 are there again as poor JPEGs; one of them
    under another class."""
    monkeypatch.setattr(splits_module, "_LOOKED_THROUGH", set())
    pictures = photographs(40, 32)
    for row, picture in enumerate(pictures):
        for copy, content in (("a", picture), ("b", jpeg(picture)))[: 2 if row < 20 else 1]:
            which = row % 2 if (row, copy) != (5, "b") else 0
            place = Path("pets", ("cat", "dog")[which], f"{row}{copy}.png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(place)
    write_study(STUDY)


def test_pictures_that_look_alike_are_listed_and_kept_together(
    pets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("duplicates", "small", "--rows", "2") == 0
    out, err = capsys.readouterr()
    assert out.startswith("file\tgroup\tsplit\tclass\n")
    assert "40 of 60 pictures look like another, in 20 groups; " in out
    assert "1 have pictures of several classes." in out
    assert 'set groups = "duplicates.csv" in [run]' in " ".join(out.split())
    assert "near-duplicates" not in err  # it is what the table says
    with Path("runs/small/duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    couples: dict[str, list[str]] = {}
    for row in rows:
        couples.setdefault(row["group"], []).append(Path(row["file"]).stem)
    assert sorted(map(sorted, couples.values())) == sorted([f"{n}a", f"{n}b"] for n in range(20))
    assert "; 0 groups are in several splits" not in out
    Path("runs/small/duplicates.csv").rename("small/duplicates.csv")
    together = "--set", 'groups="duplicates.csv"', "--format", "json"
    assert run("duplicates", "small", *together) == 0
    out, err = capsys.readouterr()
    after = json.loads(out)
    assert (after["groups"], after["across_splits"]) == (20, 0)
    assert "groups: 40 of 60 images are in 20 groups; each of the other 20 is a group of its" in err
    assert "near-duplicates" not in err


def test_nothing_alike_is_said_without_a_next_step(
    pets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path("pets").rglob("*b.png"):
        path.unlink()
    assert run("duplicates", "small", "--set", "batch_size=16") == 0
    out = capsys.readouterr().out
    assert "0 of 40 pictures look like another" in out
    assert "study.toml" not in out


def test_splits_of_the_data_sets_own_are_not_said_to_change(
    pets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in list(Path("pets").glob("*/*.png")):
        place = Path("pets", "val" if path.stem.endswith("b") else "train", *path.parts[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    for name in ("cat", "dog"):
        Path("pets", name).rmdir()
    assert run("duplicates", "small") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the data set has splits of its own, which groups do not change" in out
    assert "set groups" not in out
