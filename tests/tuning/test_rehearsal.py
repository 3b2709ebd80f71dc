"""Tests of the rehearsal: what fails only once there are trials is found before there are any."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.rehearsal import rehearse
from impon_hpo.tuning.study_file import StudyFile
from tests.command import run
from tests.studies import SMALL, small_study, write_study

HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
RANDOM = 'name = "RandomSampler"'


def study_with(pruner: str = HALVING, sampler: str = RANDOM) -> StudyFile:
    return small_study(text=SMALL.replace(HALVING, pruner).replace(RANDOM, sampler))


PATIENT = 'name = "PatientPruner"\npatience = 1\nwrapped_pruner = '


@pytest.mark.parametrize(
    "pruner",
    [
        f'name = "{name}"'
        for name in ("NopPruner", "MedianPruner", "HyperbandPruner", "WilcoxonPruner", "promote")
    ]
    + [PATIENT + wrapped for wrapped in ('"none"', '"MedianPruner"', '{ name = "NopPruner" }')],
)
def test_pruners_that_work_pass(pruner: str, caplog: pytest.LogCaptureFixture) -> None:
    rehearse(study_with(pruner), "impon")
    assert not caplog.records


@pytest.mark.parametrize(
    "sampler",
    [
        f'name = "{name}"'
        for name in ("TPESampler", "CmaEsSampler", "GPSampler", "QMCSampler", "NSGAIISampler")
    ]
    + [
        'name = "GridSampler"\nsearch_space = { lr = [0.1, 0.2], batch_size = [16] }',
        'name = "PartialFixedSampler"\nfixed_params = { lr = 0.1 }\nbase_sampler = "TPESampler"',
    ],
)
def test_study_samplers_that_work_pass(sampler: str) -> None:
    rehearse(study_with(sampler=sampler), "impon")


def test_what_fails_with_trials_is_found() -> None:
    with pytest.raises(ConfigError, match=r"\[study_sampler\] TPESampler fails as soon as it"):
        rehearse(study_with(sampler='name = "TPESampler"\nn_ei_candidates = 0'), "impon")


@pytest.mark.parametrize(
    ("name", "table", "package"),
    [
        ("WilcoxonPruner", "pruner", "scipy"),
        ("QMCSampler", "study_sampler", "scipy"),
        ("CmaEsSampler", "study_sampler", "cmaes"),
    ],
)
def test_a_package_that_is_missing_is_told_in_the_dry_run(
    name: str,
    table: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    for module in (optuna.pruners._wilcoxon, optuna.samplers._qmc, optuna.samplers._cmaes):
        for lazy in ("ss", "cmaes"):
            if hasattr(module, lazy):
                monkeypatch.setattr(module, lazy, optuna._imports._LazyImport(package))
    before = HALVING if table == "pruner" else RANDOM
    write_study(SMALL.replace(before, f'name = "{name}"'))
    assert run("tune", "small", "--dry-run") == 2
    error = capfd.readouterr().err
    assert name in error
    assert package in error
    assert "Traceback" not in error


def test_a_pruner_of_ones_own_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path().resolve())
    Path("my_failing.py").write_text(
        "import optuna\n"
        "class Failing(optuna.pruners.BasePruner):\n"
        "    def prune(self, study, trial):\n"
        "        return trial.no_such_thing\n"
        "class Stopping(optuna.samplers.RandomSampler):\n"
        "    def after_trial(self, study, trial, state, values):\n"
        "        study.stop()\n"
    )
    with pytest.raises(ConfigError, match=r"\[pruner\] my_failing:Failing fails .*no_such_thing"):
        rehearse(study_with('name = "my_failing:Failing"'), "impon")
    rehearse(study_with(sampler='name = "my_failing:Stopping"'), "impon")
