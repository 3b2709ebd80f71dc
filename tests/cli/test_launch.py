"""Tests of the command line: real commands on real data, and what a user's mistakes get."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from PIL import Image

from impon_hpo.errors import ImponHpoError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import WORKER, read_comparison, read_studies
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.lease import this_worker
from tests.command import run
from tests.conftest import STUDIES
from tests.studies import SMALL, storage_with_one_trial, write_study
from tests.tuning.forks import start

COMMAND = [sys.executable, "-m", "impon_hpo"]


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_quickstart_runs_as_a_console_script_at_smoke_size(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("impon-hpo")
    command = [
        str(script),
        "tune",
        str(STUDIES / "quickstart"),
        "--trials",
        "4",
        "--set",
        "epochs=3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"trials: \d complete, \d pruned, 0 failed", done.stdout)
    assert "impon-hpo dashboard" in done.stdout
    assert re.search(r"trial 0  epoch 1/3  val accuracy 0\.\d{4}  best -", done.stderr)
    assert {path.name for path in Path("runs/quickstart").iterdir()} >= {
        "study.db",
        "epochs.csv",
        "trials.csv",
        "impon.json",
        "artifacts",
    }
    resolved = json.loads(Path("runs/quickstart/impon.json").read_text())
    assert resolved["identity"]["run"]["epochs"] == 3
    assert resolved["environments"][0]["versions"]["torch"]


def test_the_printed_commands_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study()
    assert run("tune", folder, "--format", "json", "--set", "width=6") == 0
    facts = json.loads(said(capsys)[0])
    assert facts["finished"] == 3

    retrain = shlex.split(facts["best"]["retrain"])
    assert run(*retrain[1:]) == 0
    result = json.loads(said(capsys)[0])
    assert result["val_accuracy"] == facts["best"]["val_accuracy"]
    assert 0 <= result["test_accuracy"] <= 1
    assert len(result["epochs"]) == 3
    assert Path(result["checkpoint"]).is_file()

    again = shlex.split(facts["continue"])
    assert run(*again[1:], "--format", "json") == 0
    assert json.loads(said(capsys)[0]) == facts


def test_both_arms_live_in_one_storage_and_one_pair_of_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_study()
    for arm in ("impon", "uniform"):
        assert run("tune", folder, "--arm", arm, "--trials", "1") == 0
    said(capsys)
    assert run("status", folder, "--format", "json") == 0
    arms = json.loads(said(capsys)[0])
    assert [facts["arm"] for facts in arms] == ["impon", "uniform"]
    trials = Path("runs/small/trials.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in trials] == ["arm", "impon", "uniform"]
    assert run("status", folder) == 0
    assert "small, arm uniform\n  trials: 1 complete, 0 pruned, 0 failed" in said(capsys)[0]


def test_a_dry_run_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", write_study(), "--dry-run", "--format", "json") == 0
    assert json.loads(said(capsys)[0])["epochs_at_most"] == 9
    assert not Path("runs").exists()


def _folder_of_images(*, per_class: int = 12, broken: bool = False) -> None:
    for name, shade in (("cat", 60), ("dog", 180)):
        Path("images/train", name).mkdir(parents=True)
        for i in range(per_class):
            image = Image.new("RGB", (8, 8), (shade, i * 5, 0))
            image.save(Path("images/train", name, f"{i}.png"))
    if broken:
        Path("images/train/cat/3.png").write_bytes(b"no image")


FOLDER = ("--set", "dataset=folder", "--set", "data_dir=images", "--set", "subset=8")
SMALLER = ("--set", "batch_size=4", "--set", "validation_size=4", "--arm", "uniform")
NO_SEARCH = ("--set", "space.batch_size.choices=[4]")


def test_a_folder_of_images_is_tuned_on(capsys: pytest.CaptureFixture[str]) -> None:
    _folder_of_images()
    assert run("tune", write_study(), *FOLDER, *SMALLER, *NO_SEARCH, "--trials", "1") == 0
    assert "1 complete" in said(capsys)[0]


def test_a_study_that_has_all_its_trials_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    _folder_of_images()
    tune = ["tune", str(write_study()), *FOLDER, *SMALLER, *NO_SEARCH, "--format", "json"]
    assert run(*tune, "--trials", "1") == 0
    facts = said(capsys)[0]
    shutil.rmtree("images")
    for name in ("uniform.json", "epochs.csv", "trials.csv"):
        Path("runs/small", name).unlink()
    assert run(*tune, "--trials", "1") == 0
    assert said(capsys)[0] == facts
    resolved = json.loads(Path("runs/small/uniform.json").read_text())
    assert resolved["identity"]["run"]["dataset"] == "folder"
    assert len(Path("runs/small/trials.csv").read_text().splitlines()) == 2

    assert run(*tune, "--trials", "2") == 2  # one more would need them
    assert "no folder 'images" in said(capsys)[1]
    assert run(*tune, "--trials", "1", "--set", "data_dir=moved") == 0
    assert "data_dir=moved" in json.loads(said(capsys)[0])["continue"]  # as it was last given
    assert run(*tune, "--trials", "1", "--set", "data_dir=elsewhere", "--set", "width=9") == 2
    assert "no folder 'elsewhere" in said(capsys)[1]  # another study, and not that one's summary


def test_what_a_killed_process_left_of_a_finished_study_is_put_right() -> None:
    folder = write_study()
    assert run("tune", folder, "--trials", "1") == 0
    storage = open_storage("sqlite:///runs/small/study.db", create=False)
    (record,) = read_studies(storage, "small")
    left = Checkpoints(Path("runs/small/checkpoints"), keep=True)
    left.of(record.optuna_study, 0).save({})
    assert run("tune", folder, "--trials", "1") == 0
    assert not list(Path("runs/small/checkpoints").iterdir())

    lost = record.optuna_study.ask()  # by one that wanted more trials
    lost.set_user_attr(WORKER, this_worker() | {"began": "0"})
    assert run("tune", folder, "--trials", "1") == 0
    (record,) = read_studies(storage, "small")
    assert [trial.state for trial in record.trials] == ["COMPLETE", "WAITING"]


MISTAKES: list[tuple[list[str], str]] = [
    (["tune", "smal"], "no study 'smal'"),
    (["tune", "small", "--arm", "imponn"], "Did you mean 'impon'?"),
    (["tune", "small", "--set", "lrr=1"], "Did you mean 'lr'?"),
    (["tune", "small", "--set", "arms.impon.sampler=impno"], "Unknown batch sampler 'impno'"),
    (["tune", "small", "--set", "pruner.name=MedianPrunr"], "Did you mean 'MedianPruner'?"),
    (["tune", "small", "--set", "arms.impon.bank_size=8"], "but got bank_size=8"),
    (["tune", "small", "--set", "arms.impon.bank_size=9999"], "training rows (240)"),
    (["tune", "small", "--set", "subset=0"], "run.subset = 0"),
    (["tune", "small", "--set", "subset=99999"], "validation_size = 100 leaves"),
    (["tune", "small", "--set", "epochs=-1"], "run.epochs = -1"),
    (["tune", "small", "--set", "lr=0"], "run.lr = 0"),
    (["tune", "small", "--set", "arms.impon.estimator_lr=-1e-6"], "estimator_lr"),
    (["tune", "small", "--set", "dataset=cifar10"], "download=true"),
    (["tune", "small", "--set", "dataset=svhn"], "SVHN is not in"),
    (["tune", "small", "--set", "dataset=folder", "--set", "data_dir=none"], "no folder 'none'"),
    (["tune", "small", "--set", "device=cuda:77"], "does not have device"),
    (["tune", "small", "--set", "device=abacus"], "abacus"),
    (["tune", "small", "--set", "model=no_module:net"], "cannot be imported"),
    (["tune", "small", "--set", "model=os:getcwd"], "os:getcwd"),
    (["tune", "small", "--set", "model=os:no_such"], "has no 'no_such'"),
    (["tune", "small", "--set", "dataset=os.path:join"], "os.path:join"),
    (["tune", "small", "--storage", "nonsense://x"], "cannot be opened"),
    (["tune", "small", "--storage", "sqlite:///letter.db"], "is not a database"),
    (["tune", "small", "--set", "width=9"], "run.width is 4 there, but 9 was asked for"),
    (["train", "small", "--set", "device=cuda:77"], "does not have device"),
    (["status", "small", "--storage", "sqlite:///none.db"], "no storage"),
    (["dashboard", "small", "--storage", "sqlite:///none.db"], "no storage"),
    (["dashboard", "small", "--port", "99999"], "--port"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=lambda v: " ".join(v)[:60])
def test_a_users_mistake_exits_with_2_says_what_to_do_and_loses_nothing(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    Path("letter.db").write_text("no database\n" * 100)
    storage = optuna.storages.RDBStorage(storage_with_one_trial())
    before = [trial.number for trial in storage.get_all_trials(1)]
    files = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert run(*arguments) == 2
    out, error = said(capsys)
    assert expected in error
    assert "Traceback" not in error
    assert out == ""
    assert [trial.number for trial in storage.get_all_trials(1)] == before
    changed = {
        str(path)
        for path in Path().rglob("*")
        if path.is_file() and files.get(path) != path.stat().st_mtime_ns
    }
    assert not {path for path in changed if not path.startswith("runs/small/artifacts")}


def test_a_broken_image_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    _folder_of_images(broken=True)
    assert run("tune", write_study(), *FOLDER, *SMALLER, *NO_SEARCH) == 2
    assert "images/train/cat/3.png" in said(capsys)[1]


def test_a_class_with_one_image_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    _folder_of_images(per_class=1)
    assert run("tune", write_study(), *FOLDER, *SMALLER, *NO_SEARCH) == 2
    assert "class 'cat' has 1" in said(capsys)[1]


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", write_study(), "--trails", "3") == 2
    assert "--trails" in said(capsys)[1]


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    write_study()
    storage_with_one_trial()
    said(capsys)
    assert run("doctor", "--format", "json") == 0
    findings = {entry["name"]: entry for entry in json.loads(said(capsys)[0])}
    assert findings["torch"]["ok"]
    assert "opens" in findings["storage sqlite:///runs/small/study.db"]["state"]
    assert "digits" in findings


def test_doctor_says_what_is_wrong_and_how_to_fix_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--storage", "nonsense://x", "--data-dir", "nowhere") == 1
    out, _ = said(capsys)
    assert re.search(r"storage nonsense://x: WRONG: .*cannot be opened", out)
    assert "data in nowhere: WRONG: no such folder\n    Give the folder" in out


def test_help_shows_the_brackets_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "--help") == 0
    assert "Change a setting of [run], or table.key" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )


def test_help_is_there_without_torch_and_optuna() -> None:
    code = (
        "import sys; sys.argv = ['impon-hpo', '--help']\n"
        "from impon_hpo.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'torch', 'optuna', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("train", "tune", "status", "dashboard", "doctor"):
        assert command in done.stdout


def test_ctrl_c_ends_with_130_and_the_same_command_continues() -> None:
    write_study(SMALL.replace("epochs = 3", "epochs = 40").replace("subset = 240", "subset = 900"))
    command = [*COMMAND, "tune", "small", "--trials", "1", "--arm", "uniform"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "epoch 1/" not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command continues" in error
    assert "Traceback" not in error
    assert Path("runs/small/trials.csv").is_file()
    study = optuna.load_study(study_name="small-uniform", storage="sqlite:///runs/small/study.db")
    assert [trial.state.name for trial in study.trials] == ["WAITING"]


def runs_under_way() -> int:
    """Return how many runs of the comparison have an epoch behind them and are not finished."""
    try:
        storage = open_storage("sqlite:///runs/small/study.db", create=False)
        records = read_comparison(storage, "small")
    except ImponHpoError:
        return 0
    trials = [trial for record in records for trial in record.trials]
    return sum(trial.state == "RUNNING" and bool(trial.epochs) for trial in trials)


@pytest.mark.slow
def test_sigterm_ends_a_comparison_at_once_and_with_it_its_workers() -> None:
    # A run of a hundred thousand epochs: whoever waits for its end waits too long.
    write_study(SMALL.replace("epochs = 3", "epochs = 100000"))
    command = [*COMMAND, "compare", "small", "--workers", "2", "--set", "compare.blocks=6"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while runs_under_way() < 2:
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)  # the workers hold the same pipes
    assert process.returncode == 143
    assert "The same command continues" in error
    assert "Traceback" not in error
    assert runs_under_way() == 0
    assert len(list(Path("runs/small/checkpoints").glob("*.pt"))) == 2


def test_study_goes_on_when_nobody_reads_what_it_says() -> None:
    write_study()
    reader, writer = os.pipe()
    os.close(reader)
    process = start("tune", "small", "--arm", "uniform", "--trials", "2", stderr=writer)
    os.close(writer)
    assert process.wait() == 0
    study = optuna.load_study(study_name="small-uniform", storage="sqlite:///runs/small/study.db")
    assert [trial.state.is_finished() for trial in study.trials] == [True, True]


def test_data_that_nobody_reads_ends_a_command_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for command in (["samplers"], ["samplers", "--format", "json"], ["--version"]):
        done = subprocess.run(
            [*COMMAND, *command], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
        assert done.stderr == b""
        assert done.returncode == 1
    os.close(writer)


def test_a_log_on_a_full_disk_costs_no_trial() -> None:
    write_study()
    full = os.open("/dev/full", os.O_WRONLY)
    process = start("tune", "small", "--arm", "uniform", "--trials", "2", stderr=full)
    os.close(full)
    assert process.wait() == 0
    assert re.search(r"trials: \d complete, \d pruned, 0 failed", process.out)


def test_a_table_that_cannot_be_written_costs_no_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    Path("runs/small/epochs.csv").mkdir(parents=True)
    assert run("tune", "small", "--arm", "uniform", "--trials", "1", "--set", "epochs=1") == 0
    out, err = said(capsys)
    assert "1 complete" in out
    assert "The table of epochs could not be made: 'runs/small/epochs.csv' cannot be" in err
    assert Path("runs/small/trials.csv").is_file()
