"""The command `export`: right after a study, of any trial and any checkpoint, from any machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import REASON, WORKER, read_studies
from impon_hpo.training.splits import load_splits
from impon_hpo.training.trained_model import load_model
from impon_hpo.tuning.study_file import read_study_file
from tests.command import run
from tests.studies import SMALL, untrained_study, write_study
from tests.training.pets import pets
from tests.training.test_model_export import elsewhere

FLOAT32 = ("--set", "autocast=false")


def tiny(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


TINY = SMALL.replace("width = 4", f'model = "{__name__}:tiny"')


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def best(address: str = "sqlite:///runs/small/study.db") -> optuna.trial.FrozenTrial:
    (record,) = read_studies(open_storage(address, create=False), "small")
    return record.optuna_study.best_trial


def test_after_tune_the_best_model_is_exported_by_the_command_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    assert run("tune", "small") == 0
    (command,) = [line for line in said(capsys)[0].splitlines() if line.startswith("export the")]
    assert run(*shlex.split(command.partition(": ")[2])[1:]) == 0
    out, err = said(capsys)
    trial = best()
    assert f"small, arm impon, trial {trial.number}\n" in out
    assert f"validation accuracy: {trial.value:.4f} after epoch 3" in out
    assert "use it: torch.export.load('model.pt2').module()(images)" in out
    assert "at least 181 kB" in err
    assert "loaded again and compared" in err
    facts, logits = elsewhere(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert [len(answer) for answer in logits] == [1, 2, 3]
    asked = {"study": "small", "arm": "impon", "trial": trial.number, "params": trial.params}
    assert {key: facts[key] for key in asked} == asked
    assert facts["value"] == trial.value
    assert facts["settings"]["lr"] == trial.params["lr"]


@pytest.mark.slow
def test_accuracy_on_the_test_split_is_the_one_that_train_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a process that cannot import impon-hpo."""
    write_study(SMALL.replace("[space]", 'eval_weights = "ema"\n[space]'))
    assert run("train", "small", *FLOAT32) == 0
    result = json.loads(said(capsys)[0])
    arguments = ("--checkpoint", result["checkpoint"], "--to", "model.pt2", "--format", "json")
    assert run("export", "small", *arguments) == 0
    told = json.loads(said(capsys)[0])
    assert (told["file"], told["bytes"]) == ("model.pt2", Path("model.pt2").stat().st_size)
    config = read_study_file("small").arms["impon"]
    test = load_splits(config, torch.device("cpu")).test
    facts, logits = elsewhere(test.images[:].permute(0, 3, 1, 2))
    right = (logits[-1].argmax(1) == test.labels).double().mean()
    assert float(right) == result["test_accuracy"]
    assert facts["value"] == result["val_accuracy"]
    assert facts["checkpoint"] == result["checkpoint"]


def test_classes_of_a_folder_are_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pets(tmp_path)
    settings = f'dataset = "folder"\ndata_dir = "{root}"\nimage_size = 8\nbatch_size = 2'
    text = SMALL.replace('dataset = "digits"\nsubset = 240\nvalidation_size = 100', settings)
    text = text.replace("epochs = 3\nbatch_size = 32", "epochs = 1").replace("[16, 32]", "[2]")
    write_study(text)
    assert run("tune", "small", "--arm", "uniform", "--trials", "1") == 0
    assert run("export", "small", "--arm", "uniform", "--to", "pets.pt2") == 0
    assert "classes: cat, dog" in said(capsys)[0]


def test_only_the_best_checkpoint_of_each_arm_stays(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(TINY)
    for arm in ("impon", "uniform"):
        assert run("tune", "small", "--arm", arm) == 0
    records = read_studies(open_storage("sqlite:///runs/small/study.db", create=False), "small")
    kept = {path.name.rpartition("-")[2] for path in Path("runs/small/best").iterdir()}
    assert len(list(Path("runs/small/best").iterdir())) == 2
    assert kept == {f"{record.best.number}.pt" for record in records if record.best is not None}
    assert not list(Path("runs/small/checkpoints").iterdir())
    assert "best " in (run("status", "small"), said(capsys)[0])[1].splitlines()[-1]


def test_other_trial_is_trained_again_by_the_commands_that_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(TINY)
    assert run("tune", "small") == 0
    other = next(number for number in range(3) if number != best().number)
    said(capsys)
    assert run("export", "small", "--trial", str(other), "--to", "other.pt2") == 2
    message = said(capsys)[1]
    assert (
        f"only the checkpoint of the best complete one is kept, which is trial {best().number}"
        in (message)
    )
    _, again, _, then, _ = message.split("`")
    assert run(*shlex.split(again)[1:]) == 0
    checkpoint = json.loads(said(capsys)[0])["checkpoint"]
    assert run(*shlex.split(then.replace("FILE", checkpoint))[1:]) == 0
    assert Path("other.pt2").exists()


def test_with_keep_checkpoints_every_finished_trial_is_exported() -> None:
    write_study(TINY)
    assert run("tune", "small", "--keep-checkpoints") == 0
    for number in range(3):
        assert run("export", "small", "--trial", str(number), "--to", f"{number}.pt2") == 0
        assert Path(f"{number}.pt2").exists()


def test_lost_checkpoint_and_one_of_another_machine_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(TINY)
    assert run("tune", "small") == 0
    (path,) = Path("runs/small/best").iterdir()
    path.unlink()
    said(capsys)
    assert run("export", "small", "--to", "model.pt2") == 2
    message = said(capsys)[1]
    assert (
        f"trial {best().number} of arm 'impon' is not here. It would be in 'runs/small/best'. "
        in (message)
    )
    elsewhere = {WORKER: {"place": "node3 boot 1", "pid": 1, "began": "1", "beat": 1}}
    untrained_study("small.journal", [0.5], user_attrs=elsewhere)
    assert run("export", "small", "--storage", "small.journal", "--to", "model.pt2") == 2
    assert "the trial was trained on machine 'node3'" in said(capsys)[1]


def test_artifacts_of_a_place_of_their_own_bring_it_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = Path("shared").resolve()
    shared.mkdir()
    text = f'storage = "{shared}/study.journal"\nartifacts = "{shared}/artifacts"\n{TINY}'
    for name in ("first", "second"):  # a folder of its own stands for a machine of its own
        Path(name).mkdir()
        monkeypatch.chdir(name)
        write_study(text)
        if name == "first":
            assert run("tune", "small") == 0
        else:
            assert run("export", "small", "--to", "model.pt2") == 0
            (path,) = Path("runs/small/best").iterdir()
            assert load_model(path).value == best(f"{shared}/study.journal").value
        monkeypatch.chdir("..")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trial", "first"), "--trial takes the number of a trial, or best, but got 'first'"),
        (("--trial", "3"), "has no trial 3: it has 3 trials, numbered from 0"),
        (("--arm", "uniform"), "nothing of arm 'uniform' yet; it has: impon"),
        (("--checkpoint", "away.pt"), "There is no file 'away.pt'. Give the path of a"),
        (("--checkpoint", "small/study.toml"), "Give a checkpoint that is whole, as `impon-hpo"),
        (("--to", "model.bin"), "--to must name a file that ends with .pt2"),
    ],
)
def test_mistakes_are_sentences(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    untrained_study("small.journal", [0.1, 0.2, 0.3])
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    words = [word for pair in ({"--to": "model.pt2"} | given).items() for word in pair]
    assert run("export", "small", "--storage", "small.journal", *words) == 2
    assert message in said(capsys)[1]
    assert not Path("model.pt2").exists()


def test_study_without_a_complete_trial_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    untrained_study("small.journal", [])
    assert run("export", "small", "--storage", "small.journal", "--to", "model.pt2") == 2
    assert (
        "No trial of arm 'impon' is complete yet. Continue the study: `impon-hpo tune"
        in (said(capsys)[1])
    )


def test_trial_that_failed_has_no_model_and_is_not_to_be_trained_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    study = untrained_study("small.journal", [0.1])
    reason = "batch_size must be one of 16, 32, but got 1."
    failed = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={REASON: reason})
    study.add_trial(failed)
    words = ("export", "small", "--storage", "small.journal", "--to", "model.pt2")
    assert run(*words, "--trial", "1") == 2
    message = said(capsys)[1]
    assert f"Trial 1 of arm 'impon' failed, so there is no model of it: {reason} Export" in message
    assert "To train it again" not in message
