"""Commands that train nothing do not wait for torch; and modules of the user's are found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from impon_hpo.storage.trials import IDENTITY, WANTED
from tests.conftest import STUDIES
from tests.reporting.records import IDENTITY_OF_IT
from tests.studies import write_study

CODE = """
import sys
from impon_hpo.cli.app import main
try:
    main()
finally:
    print("heavy:", *sorted({"torch", "torchvision"} & set(sys.modules)), file=sys.stderr)
"""


def run(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def _finished() -> None:
    write_study()
    Path("runs/small").mkdir(parents=True)
    study = optuna.create_study(storage="sqlite:///runs/small/study.db", direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    for _ in range(3):
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))
    training = optuna.create_study(storage="sqlite:///runs/small/study.db", direction="maximize")
    training.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"study": "small compare"})
    training.set_user_attr(WANTED, 1)
    training.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))


@pytest.mark.usefixtures("_finished")
@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ("--help", "dashboard"),
        ("status small", "3 complete"),
        ("watch small", "3 complete"),
        ("watch small", "small, comparison: 1 of 1 runs are recorded"),
    ],
)
def test_command_that_only_looks_loads_no_torch(arguments: str, output: str) -> None:
    code, out, err = run(*arguments.split())
    assert (code, err.splitlines()[-1]) == (0, "heavy:"), err
    assert output in out


@pytest.mark.slow
def test_report_loads_no_torch() -> None:
    shutil.copytree(STUDIES / "quickstart", "quickstart")
    code, out, err = run("report", "quickstart")
    assert (code, err.splitlines()[-1]) == (0, "heavy:"), err
    assert Path("runs/quickstart/report/index.html").is_file()
    assert "uniform" in out


@pytest.mark.parametrize("place", ["small", pytest.param(".", marks=pytest.mark.slow)])
def test_modules_of_the_users_are_found_by_a_command(place: str) -> None:
    write_study()
    (Path(place) / "my_nets.py").write_text(
        "import torch\n"
        "def linear(n):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n))\n"
    )
    code, out, err = run("tune", "small", "--dry-run", "--set", "model=my_nets:linear")
    assert code == 0, err
    assert "my_nets:linear" in out
