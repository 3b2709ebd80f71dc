"""A study whose folder has a name of any letters: every command finds it, the printed ones too."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_studies
from impon_hpo.tuning.study_file import read_study_file
from tests.command import run
from tests.studies import write_study

NAME = "-%20 why? {x} #ü 50% it's"
SHORT = ("--trials", "1", "--set", "epochs=1")


def test_every_command_finds_it_and_prints_commands_that_can_be_pasted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(name=NAME)
    assert run("tune", *SHORT, "--", NAME) == 0
    assert Path("runs", NAME, "study.db").is_file()
    assert {path.name for path in Path().iterdir()} == {NAME, "runs"}
    capsys.readouterr()
    typed = f"sqlite:///runs/{NAME}/study.db"
    for storage in ((), ("--storage", typed)):
        assert run("status", "--format", "json", *storage, "--", NAME) == 0
        (facts,) = json.loads(capsys.readouterr().out)
        assert facts["trials"]["complete"] == 1
    assert run("watch", "--trials", "1", "--", NAME) == 0
    assert run("pictures", "--", NAME) == 0
    capsys.readouterr()
    assert run("doctor", "--format", "json") == 0
    checked = {entry["name"]: entry["state"] for entry in json.loads(capsys.readouterr().out)}
    (address,) = (name.removeprefix("storage ") for name in checked if name.startswith("storage "))
    assert run("status", "--storage", address, "--", NAME) == 0  # as doctor spells it
    assert shlex.split(facts["dashboard"]) == ["impon-hpo", "dashboard", f"./{NAME}"]
    assert shlex.split(facts["continue"])[2] == f"./{NAME}"
    pasted = facts["best"]["retrain"].replace("impon-hpo", f"{sys.executable} -m impon_hpo", 1)
    assert subprocess.run(["bash", "-c", pasted], check=False, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "2"), ("--launcher", "local")])
def test_workers_in_processes_of_their_own_find_it(how: tuple[str, str]) -> None:
    write_study(name=NAME)
    command = [sys.executable, "-m", "impon_hpo", "tune", *SHORT, *how, "--", NAME]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    address = read_study_file(f"./{NAME}").storage
    end = time.monotonic() + 60
    while read_studies(open_storage(address, create=False), NAME)[0].n_finished < 1:
        assert time.monotonic() < end
        time.sleep(0.5)
    assert Path("runs", NAME, "study.db").is_file()


def test_artifacts_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    study = write_study()
    text = (study / "study.toml").read_text()
    (study / "study.toml").write_text(f'artifacts = "~/files"\n{text}')
    assert run("tune", study, *SHORT) == 0
    assert list(Path("home/files").iterdir())
    assert not Path("~").exists()
