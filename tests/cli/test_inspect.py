"""The commands that only look."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from impon_hpo.cli.inspect import samplers, watch
from impon_hpo.cli.options import Format
from impon_hpo.errors import NothingYetError
from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.storage.trials import IDENTITY
from tests.reporting.records import IDENTITY_OF_IT
from tests.studies import write_study
from tests.tuning.forks import start


def test_every_batch_sampler_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    samplers()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("\t") == [
        "name",
        "source",
        "extra forward passes (rows a step; B: a batch)",
        "state (a row)",
        "weights (of losses)",
        "use",
    ]
    assert [line.split("\t")[0] for line in lines] == list(SAMPLERS)
    assert all(all(cell for cell in line.split("\t")) for line in lines)


def test_batch_samplers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    samplers(format=Format.json)
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(SAMPLERS)
    assert {one["name"]: one["weights"] for one in listed}["impon"] == "none"


def _storage_of_a_study(n_finished: int) -> optuna.Study:
    write_study()
    Path("runs/small").mkdir(parents=True)
    study = optuna.create_study(storage="sqlite:///runs/small/study.db", direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    for _ in range(n_finished):
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))
    return study


def test_watch_ends_with_the_study_and_sums_it_up(capsys: pytest.CaptureFixture[str]) -> None:
    _storage_of_a_study(3)
    watch("small", storage=None)
    captured = capsys.readouterr()
    assert "impon  trial 2 complete" in captured.err
    assert "trials: 3 complete, 0 pruned, 0 failed" in captured.out


def test_printed_commands_begin_as_the_reader_began() -> None:
    _storage_of_a_study(1)
    status = [sys.executable, "-m", "impon_hpo", "status", "small"]
    plain = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert "\nopen the dashboard: impon-hpo dashboard small\n" in plain
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv")
    under_uv = [uv, "run", "--no-project", "--offline", "--python", sys.executable, *status]
    printed = subprocess.run(under_uv, capture_output=True, text=True, check=True).stdout
    assert "\nopen the dashboard: uv run impon-hpo dashboard small\n" in printed
    assert "\nretrain the best: uv run impon-hpo train small --arm impon" in printed


def test_watch_looks_at_the_interval_it_is_given_and_is_ended_by_ctrl_c_with_130() -> None:
    study = _storage_of_a_study(1)
    watching = start("watch", "small", "--trials", "99", "--interval", "0.1")
    seconds = []
    for number in range(1, 6):
        watching.wait_until(lambda line=f"trial {number - 1} complete": line in watching.said)  # type: ignore[misc]
        seconds.append(time.monotonic())
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))
    os.kill(watching.pid, signal.SIGINT)
    assert watching.wait() == 130
    assert watching.said.endswith("Interrupted. The same command continues.\n")
    # By default it would be 2; and a busy machine is not busy all the time.
    assert min(later - earlier for earlier, later in pairwise(seconds)) < 1


def test_nothing_to_watch_is_told() -> None:
    write_study()
    with pytest.raises(NothingYetError, match="nothing has been run into it"):
        watch("small", storage=None)
