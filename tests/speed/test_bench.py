"""Tests of the command line of the benchmarks: its options, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import bench
from tests.conftest import STUDIES

BENCH = STUDIES / "speed" / "bench.py"


def images(folder: Path) -> str:
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(folder / name / f"{number}.png")
    return str(folder)


def test_a_table_is_data_and_the_machine_is_talk(tmp_path: Path) -> None:
    arguments = ["data", images(tmp_path / "images"), "--rounds", "1"]
    result = CliRunner().invoke(bench.app, arguments)
    assert result.exit_code == 0
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["side", "seconds", "seconds_q1", "seconds_q3", "images_per_second"]
    sides = ["PIL in a loop", "decoded once", "from the cache", "second start"]
    assert [row[0] for row in rows] == sides


def test_json_has_settings_environment_and_rows(tmp_path: Path) -> None:
    arguments = ["data", images(tmp_path / "images"), "--rounds", "1", "--format", "json"]
    result = CliRunner().invoke(bench.app, arguments)
    measured = json.loads(result.stdout)
    assert list(measured) == ["benchmark", "settings", "environment", "rows"]
    assert measured["benchmark"] == "data"
    assert measured["settings"]["images"] == 6
    assert measured["environment"]["versions"]["torch"]
    assert len(measured["rows"]) == 4


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("step", "--recipe"),
        ("sampling", "--sampler"),
        ("augment", "--augment"),
        ("study", "--trials-there"),
        ("scale", "--simulate"),
        ("halving", "--configurations"),
        ("claims", "--paused"),
        ("data", "--image-size"),
    ],
)
def test_every_benchmark_explains_its_options(command: str, option: str) -> None:
    result = CliRunner().invoke(bench.app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert option in result.stdout


@pytest.mark.slow
def test_the_script_needs_no_torch_to_help_and_ends_mistakes_with_two() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['bench.py', '--help']\n"
        f"sys.path.insert(0, {str(BENCH.parent)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(BENCH)!r}, run_name='__main__')\n"
        "finally:\n"
        "    assert not {'torch', 'optuna'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    mistake = subprocess.run(
        [sys.executable, BENCH, "scale", "--workers", "1", "--simulate", "1"],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert mistake.returncode == 2
    assert mistake.stderr.startswith("Error: Give either --workers")
    assert not mistake.stdout
