"""The paper's figures: which runs a view shows, bands, and what a diverged run counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

import figures
from figures import PAPER_RATES, arms_table, summarise
from impon_hpo.cli import app
from impon_hpo.tuning.study_file import StudyFile, read_study_file
from tests.comparing.comparisons import GRID
from tests.conftest import STUDIES
from tests.studies import small_study

RATES = {"uniform": 0.1, "impon": 0.01, "impon-64": 0.01}
BANKS = '\n[arms.impon-64]\nsampler = "impon"\nbank_size = 64\n'
RLS = '\n[arms.impon-rls]\nsampler = "impon"\nestimator = "rls"\n'


def study() -> StudyFile:
    return small_study(text=GRID + BANKS + RLS)


def result(arm: str, lr: float, seed: int, *accuracies: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "params": {"lr": lr, "batch_size": 32},
        "seed": seed,
        "epochs": [{"val_accuracy": accuracy} for accuracy in accuracies],
        "horizon": 2,
        "steps_per_epoch": 4,
        "step_losses": [[2.0 - seed, 1.0] for _ in accuracies],
        "environments": [{"versions": {}, "cpu": "a", "threads": 1}],
    }


RESULTS = [
    result("uniform", 0.1, 0, 0.5, 0.6),
    result("uniform", 0.1, 1, 0.3, 0.4),
    result("uniform", 0.01, 0, 0.6, 0.7),
    result("uniform", 0.01, 1, 0.6, 0.9),
    result("impon", 0.01, 0, 0.2, 0.3),
    result("impon", 0.1, 0, 0.2, 0.1),
    result("impon-64", 0.01, 0, 0.2, 0.25),
    result("impon-rls", 0.01, 0, 0.2, 0.25),
]


def test_one_view_at_the_paper_s_rates_and_one_at_each_arm_s_best() -> None:
    given, best = summarise(study(), RESULTS, RATES)["views"]
    assert {line["arm"]: line["lr"] for line in given["lines"]} == {"uniform": 0.1, "impon": 0.01}
    assert {line["arm"]: line["lr"] for line in best["lines"]} == {"uniform": 0.01, "impon": 0.01}


def test_lines_are_means_over_seeds_in_the_band_of_their_range() -> None:
    (line, _) = summarise(study(), RESULTS, RATES)["views"][0]["lines"]
    assert line["epoch"] == [1, 2]
    assert line["accuracy"]["mean"] == pytest.approx([40.0, 50.0])
    assert line["accuracy"]["low"] == pytest.approx([30.0, 40.0])
    assert line["accuracy"]["high"] == pytest.approx([50.0, 60.0])
    assert line["iteration"] == [2, 4, 6, 8]  # eight steps in four stretches
    assert line["loss"]["mean"] == pytest.approx([1.5, 1.0, 1.5, 1.0])
    assert line["loss"]["low"] == pytest.approx([1.0, 1.0, 1.0, 1.0])


def test_bank_sizes_are_those_of_the_paper_s_rule_alone() -> None:
    banks = summarise(study(), RESULTS, RATES)["views"][0]["banks"]
    assert [(bank["bank_size"], bank["mean"]) for bank in banks] == [
        (64, pytest.approx(25.0)),
        (200, pytest.approx(30.0)),
    ]


def test_run_that_diverged_keeps_its_last_accuracy() -> None:
    results = [result("uniform", 0.1, 0, 0.5), result("uniform", 0.1, 1)]
    (line,) = summarise(study(), results, RATES)["views"][0]["lines"]
    assert line["accuracy"]["mean"] == pytest.approx([25.0, 25.0])
    assert line["iteration"] == []
    assert line["last"]["runs"] == [50.0, 0.0]


def test_table_marks_the_paper_s_rates() -> None:
    uniform, impon, *_ = arms_table(summarise(study(), RESULTS, RATES))
    assert uniform == {
        "arm": "uniform",
        "lr 0.01": "80.00 [70.00, 90.00]",
        "lr 0.1": "50.00 [40.00, 60.00] *",
    }
    assert impon["lr 0.01"] == "30.00 [30.00, 30.00] *"
    assert impon["lr 0.1"] == "10.00 [10.00, 10.00]"


def test_every_arm_of_the_study_has_a_rate_that_it_trains_at() -> None:
    paper = read_study_file(str(STUDIES / "paper"))
    assert set(PAPER_RATES) == set(paper.arms)
    rates = paper.space["lr"]
    assert isinstance(rates, CategoricalDistribution)
    assert set(PAPER_RATES.values()) <= set(rates.choices)


SMALL = ["dataset=digits", "subset=240", "width=2", "epochs=2", "epoch_fraction=0.3"]
SETTINGS = [part for one in (*SMALL, "space.lr.choices=[1e-3, 1e-1]") for part in ("--set", one)]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the script, or with a command impon-hpo itself."""
    monkeypatch.setattr(sys, "argv", ["figures.py", *arguments, *SETTINGS])
    with pytest.raises(SystemExit) as caught:
        if arguments and not arguments[0].startswith("-"):
            app.main()
        else:
            app.main(figures.app)
    return int(caught.value.code or 0)


def test_from_trained_runs_to_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 2
    assert "run `impon-hpo compare-samplers`" in " ".join(capsys.readouterr().err.split())
    arguments = (str(STUDIES / "paper"), "--arm", "impon", "--arm", "uniform", "--seeds", "2")
    assert run(monkeypatch, "compare-samplers", *arguments) == 0
    capsys.readouterr()
    assert run(monkeypatch) == 0
    folder = Path("runs/paper/figures/digits")
    assert capsys.readouterr().out == f"figures: {folder / 'index.html'}\n"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seeds"] == 2
    assert {line["arm"]: line["lr"] for line in summary["views"][0]["lines"]} == {
        "uniform": 0.1,
        "impon": 0.001,
    }
    assert (folder / "figure-3-loss-2.png").exists()
    assert "![Figure 2: validation accuracy" in (folder / "report.md").read_text()
    assert "The arms at each learning rate" in (folder / "index.html").read_text()
    assert run(monkeypatch, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == summary


def test_help_needs_no_torch() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['figures.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(STUDIES / 'paper' / 'figures.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    assert not {'torch', 'optuna', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
