"""`plan`, `compare`, `report` and `compare-samplers` from the command line."""

from __future__ import annotations

import csv
import json
import lzma
import re
import sys
from pathlib import Path

import pytest

from impon_hpo.cli.app import main
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.errors import ImponHpoError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import EPOCH_SECONDS, read_comparison
from tests.comparing.comparisons import COMPARED, GRID
from tests.comparing.tiny import ONLY_IMPON, TINY, tiny_study
from tests.studies import SMALL, write_study
from tests.tuning.forks import start


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, command: str = "compare-samplers") -> int:
    monkeypatch.setattr(sys, "argv", ["impon-hpo", command, *arguments])
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
    assert rows[0]["cost_to_control_epoch_2"] <= 1.0
    assert rows[0]["last_minus_control_points"] == 0.0
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


SMALLEST = (
    COMPARED.replace("epochs = 4", "epochs = 2\nepoch_fraction = 0.5")
    .replace('epoch_fractions = [1, "1/2"]', 'epoch_fractions = ["1/2"]')
    .replace("n_trials = 5", "n_trials = 3")
    .replace('[arms.impon]\nsampler = "impon"\n', "")
)


def test_from_plan_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(SMALLEST)
    assert run(monkeypatch, "small", "--format", "json", command="plan") == 0
    plan = json.loads(capsys.readouterr().out)
    # uniform, uniform-fraction, uniform-short, and two that are taught their first configuration
    assert plan["runs"] == 2 * (3 * 3 + 2 * 2)
    assert plan["cost_left"] == plan["cost"]
    assert any("2 blocks nothing can be supported" in line for line in plan["warnings"])

    assert run(monkeypatch, "small", command="report") == 2
    assert "run `impon-hpo compare` first" in " ".join(capsys.readouterr().err.split())

    assert run(monkeypatch, "small", command="compare") == 0
    said = capsys.readouterr()
    assert f"[{plan['runs']}/{plan['runs']}]" in said.err
    assert "A new study" not in said.err
    lines = said.out.splitlines()
    titles = ("Answer: ", "What to do: ", "  ", "How sure: ", "Rests on: ")
    assert all(line.startswith(title) for line, title in zip(lines, titles, strict=False))
    assert (
        lines[2].strip().startswith(("impon-hpo tune small --arm", "uv run impon-hpo tune small"))
    )
    assert lines[5].split("\t")[:3] == ["arm", "blocks", "cost ratio"]
    assert any(line.startswith("Inconclusive: under SuccessiveHalving") for line in lines)
    assert lines[-1] == "report: runs/small/report/index.html"

    # The plan was right: what is recorded costs what it said.
    with lzma.open("runs/small/compare/recordings.csv.xz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["cost"]) for row in rows) == plan["cost_left"]

    # Again, from a copy of the table alone, and without training: the same report.
    first = json.loads(Path("runs/small/report/summary.json").read_text())
    Path("runs/small/compare").rename("kept")
    Path("runs/small/study.db").unlink()
    arguments = ("small", "--recordings", "kept", "--format", "json")
    assert run(monkeypatch, *arguments, command="report") == 0
    second = json.loads(capsys.readouterr().out)
    assert second == first
    assert second["verdict"]["arm"] == "memory@1/2"
    assert set(EPOCH_SECONDS) <= set(rows[0])

    # Beside the study file, it is found by itself.
    for name in ("recordings.csv.xz", "recordings.json"):
        (Path("kept") / name).rename(Path("small") / name)
    assert run(monkeypatch, "small", command="report") == 0
    said = capsys.readouterr()
    assert "Inconclusive" in said.out
    assert "was changed after" not in said.err

    # With another margin, nothing was fixed beforehand any more, and the report says so.
    assert run(monkeypatch, "small", "--set", "compare.margin=9.0", command="report") == 0
    assert "the study file was changed after recording" in capsys.readouterr().err


@pytest.mark.slow
def test_watch_shows_a_comparison_that_another_process_records_until_all_is_recorded() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    settings = [part for setting in (*TINY, *ONLY_IMPON) for part in ("--set", setting)]
    comparison = start("compare", "small", *settings)
    comparison.wait_until(lambda: n_runs(study_file.storage) > 0)
    watch = start("watch", "small", "--interval", "0.1")
    assert watch.wait() == 0, watch.said
    assert comparison.wait() == 0, comparison.said
    lines = watch.said.splitlines()
    complete = [line for line in lines if re.match(r"comparison  .* complete  epoch 2/2", line)]
    assert len(complete) == n_runs(study_file.storage) == 12
    assert any(re.search(r"running  epoch [01]/2", line) for line in lines)
    assert watch.out == "small, comparison: 12 of 12 runs are recorded, 0 under way\n"


def n_runs(address: str) -> int:
    """Return how many runs of the comparison are begun, finished or not."""
    try:
        records = read_comparison(open_storage(address, create=False), "small")
    except ImponHpoError:
        return 0
    return sum(len(record.trials) for record in records)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("compare.block=3", "Did you mean 'blocks'"),
        ("compare.claim=memory", "compare.claim: there is no 'memory'"),
        ("arms.memory.run={momentum = 0.5}", "arms.memory.run.momentum: all arms of a comparison"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "compare", "report"])
def test_mistakes_in_a_comparison_end_with_two(
    command: str,
    setting: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(SMALLEST)
    assert run(monkeypatch, "small", "--set", setting, command=command) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_report_of_what_was_recorded_for_another_study_ends_with_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Recordings(
        [{"training": "uniform cosine", "block": 0, "configuration": 0, "epoch": 1}],
        {"configurations": [{"lr": 1.0}]},
    ).write(write_study(SMALLEST))
    assert run(monkeypatch, "small", "--set", "seed=2", command="report") == 2
    assert "are of other configurations" in " ".join(capsys.readouterr().err.split())
