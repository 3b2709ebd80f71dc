"""Tests of the study benchmark: a filled storage is like tuning's own, and time adds up."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.filled_study import ARM, open_filled, write_study_file
from benchmarks.study import run_trials
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_study


def test_a_filled_study_is_read_and_continued_like_one_that_was_tuned(tmp_path: Path) -> None:
    study_file = write_study_file(tmp_path / "overhead", width=2)
    study = open_filled(study_file, open_storage("study.journal", create=True), 6)
    begun = time.perf_counter()
    of_epochs, of_trials = run_trials(study_file, study, tmp_path, 2)
    taken = time.perf_counter() - begun
    record = read_study(study)
    assert record.identity["arm"] == ARM
    assert record.n_finished == 8
    filled, ran = record.trials[:6], record.trials[6:]
    assert {trial.state for trial in filled} == {"COMPLETE", "PRUNED"}
    assert set(filled[0].epochs[0]) == set(ran[0].epochs[0])
    assert len(of_epochs) == sum(len(trial.epochs) - 1 for trial in ran)
    assert len(of_trials) == 2
    assert all(seconds > 0 for seconds in of_epochs + of_trials)
    assert sum(of_epochs) + sum(of_trials) < taken
