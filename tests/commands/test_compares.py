"""`compare-samplers` from the command line: the table, the files beside it, and mistakes."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from impon_hpo.cli import main
from tests.comparing.test_grid import GRID
from tests.studies import SMALL, write_study


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["impon-hpo", "compare-samplers", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_table_curves_and_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(GRID)
    arguments = ("small", "--arm", "impon", "--seeds", "1", "--format", "json")
    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [row["arm"] for row in rows] == ["uniform", "impon"]  # the control comes by itself
    assert all(row["runs"] == 2 for row in rows)
    assert rows[0]["cost to control's epoch 2"] <= 1.0
    assert rows[0]["last - control (points)"] == 0.0
    assert "[4/4]" in said.err
    with Path("runs/small/samplers/epochs.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 2 * 2 * 2
    assert {epoch["arm"] for epoch in epochs} == {"uniform", "impon"}
    with Path("runs/small/samplers/table.csv").open() as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["uniform", "impon"]
    page = Path("runs/small/samplers/accuracy-against-cost.html").read_text()
    assert "validation accuracy" in page
    assert 'src="http' not in page  # nothing is fetched

    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == rows
    assert "4 of 4 runs are there already." in said.err


def test_plain_lines_name_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(GRID)
    assert run(monkeypatch, "small", "--arm", "uniform", "--seeds", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:3] == ["arm", "runs", "epoch 1"]
    assert lines[-2].startswith("every epoch: runs/small/samplers/epochs.csv")


@pytest.mark.parametrize(
    ("text", "arguments", "complaint"),
    [
        (SMALL, (), "compare-samplers trains every configuration of a grid"),
        (GRID, ("--arm", "inpon"), "Did you mean 'impon'"),
        (GRID, ("--control", "adam"), "has no arm 'adam'"),
        (GRID, ("--seeds", "0"), "greater than or equal to 1"),
    ],
)
def test_mistakes_end_with_two(
    text: str,
    arguments: tuple[str, ...],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(text)
    assert run(monkeypatch, "small", *arguments) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
