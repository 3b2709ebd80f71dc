"""One run from start to end: its result on disk, continued, never trained twice."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from impon_hpo.environment import environment
from impon_hpo.errors import CheckpointError, ConfigError, StorageError
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.models import build_model
from impon_hpo.training.single import train
from impon_hpo.training.splits import load_splits
from impon_hpo.training.training_run import TrainingRun
from tests.settings import training_config

CPU = torch.device("cpu")


def config(**given: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "dataset": "digits",
        "subset": 320,
        "width": 4,
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.05,
        "epoch_fraction": 0.3,
        "device": "cpu",
    }
    return training_config(settings | given)


def quiet(line: str) -> None:
    pass


def without_seconds(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what does not depend on the clock or on the folder."""
    epochs = [
        {key: value for key, value in epoch.items() if not key.startswith("seconds_")}
        for epoch in outcome["epochs"]
    ]
    return {key: value for key, value in outcome.items() if key != "checkpoint"} | {
        "epochs": epochs
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_result_on_disk_is_the_one_returned(folder: Path) -> None:
    outcome = train(config(), folder, name="uniform")
    (home,) = folder.iterdir()
    assert home.name.startswith("uniform-")
    assert json.loads((home / "result.json").read_text()) == outcome
    assert sorted(path.name for path in home.iterdir()) == ["checkpoint.pt", "result.json"]


def test_result_holds_all_that_came_of_the_run(folder: Path) -> None:
    outcome = train(config(), folder, name="my arm")
    epochs = outcome["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert outcome["arm"] == "my arm"
    assert outcome["sampler"] == outcome["settings"]["sampler"]
    assert outcome["val_accuracy"] == epochs[-1]["val_accuracy"]  # the last, not the best
    assert outcome["cost"] == sum(epoch["cost"] for epoch in epochs) == 3 * (3 * 96 + 162)
    assert outcome["settings"] == config().identity()
    assert outcome["environment"] == environment("cpu")
    assert Path(outcome["checkpoint"]).is_file()


def test_test_accuracy_is_that_of_the_last_model_on_the_test_split(folder: Path) -> None:
    outcome = train(config(epoch_fraction=1.0), folder, name="uniform")
    given = config(epoch_fraction=1.0)
    state = Checkpoint(Path(outcome["checkpoint"])).load(given, CPU)
    assert state is not None
    splits = load_splits(given, CPU)
    model = build_model(given, splits, seed=99)
    model.load_state_dict(state["model"])
    model.eval()
    with torch.no_grad():
        log_p = model(splits.normalise(splits.test.images[:])).log_softmax(1)
    assert len(splits.test) == 180
    assert outcome["test_accuracy"] == int((log_p.argmax(1) == splits.test.labels).sum()) / 180
    loss = -log_p.gather(1, splits.test.labels[:, None]).mean()
    assert outcome["test_loss"] == pytest.approx(float(loss), rel=1e-4)
    assert outcome["test_accuracy"] > 0.2


def test_test_split_is_read_once_after_the_last_epoch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    real = TrainingRun.evaluate

    def noting(run: TrainingRun, split: Any) -> tuple[float, float]:
        calls.append((run.epoch, len(split)))
        return real(run, split)

    monkeypatch.setattr(TrainingRun, "evaluate", noting)
    train(config(), folder, name="uniform")
    assert calls == [(0, 162), (1, 162), (2, 162), (3, 180)]


def test_each_epoch_is_said_in_a_line(folder: Path, said: list[str]) -> None:
    outcome = train(config(), folder, name="uniform")
    assert len(said) == 3
    for at, (line, epoch) in enumerate(zip(said, outcome["epochs"], strict=True), start=1):
        assert line.startswith(f"epoch {at}/3 ")
        assert f"val accuracy {epoch['val_accuracy']:.4f}" in line


def test_balanced_accuracy_is_said_and_tested(folder: Path, said: list[str]) -> None:
    given = config(metric="balanced-accuracy")
    outcome = train(given, folder, name="uniform")
    assert outcome["metric"] == outcome["settings"]["metric"] == "balanced-accuracy"
    assert f"val balanced accuracy {outcome['val_accuracy']:.4f}" in said[-1]
    splits = load_splits(given, CPU)
    run = TrainingRun(given, splits)
    run.continue_from(Checkpoint(Path(outcome["checkpoint"])))
    guessed = run.training_step.predict(splits.test.images[:]).argmax(1)
    expected = balanced_accuracy_score(splits.test.labels, guessed)
    assert outcome["test_accuracy"] == pytest.approx(expected, abs=1e-12)
    plain = train(config(), folder, name="uniform")
    assert plain["metric"] == "accuracy"
    assert plain["test_accuracy"] != outcome["test_accuracy"]


def test_second_call_returns_the_same_without_training_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    first = train(config(), folder, name="uniform")

    def fail(run: TrainingRun) -> None:
        pytest.fail("an epoch was trained again")

    monkeypatch.setattr(TrainingRun, "train_epoch", fail)
    said.clear()
    assert train(config(), folder, name="uniform") == first
    assert said == [f"continuing from {first['checkpoint']}"]


@pytest.mark.parametrize(
    "other", [{"lr": 0.06}, {"seed": 1}, {"sampler": "impon"}, {"label_smoothing": 0.1}]
)
def test_other_settings_get_another_folder(other: dict[str, Any], folder: Path) -> None:
    first = train(config(epochs=1), folder, name="uniform")
    second = train(config(epochs=1, **other), folder, name="uniform")
    assert first["checkpoint"] != second["checkpoint"]
    assert len(list(folder.iterdir())) == 2
    assert train(config(epochs=1), folder, name="uniform") == first


def test_other_name_gets_another_folder(folder: Path) -> None:
    first = train(config(epochs=1), folder, name="one")
    second = train(config(epochs=1), folder, name="two")
    assert first["checkpoint"] != second["checkpoint"]
    assert first["test_loss"] == second["test_loss"]


@pytest.mark.parametrize("sampler", ["uniform", "impon"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_interrupted_run_continues_to_the_identical_result(
    after: int, sampler: str, folder: Path, tmp_path: Path, said: list[str]
) -> None:
    given = config(sampler=sampler)
    expected = train(given, tmp_path / "whole", name="arm")

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(f"epoch {after}/"):
                raise KeyboardInterrupt

    log, handler = logging.getLogger("impon_hpo"), Interrupt()
    log.addHandler(handler)
    with pytest.raises(KeyboardInterrupt):
        train(given, folder, name="arm")
    log.removeHandler(handler)
    assert list(folder.rglob("result.json")) == []
    said.clear()
    outcome = train(given, folder, name="arm")
    assert without_seconds(outcome) == without_seconds(expected)
    assert said[0].startswith("continuing from ")
    assert len(said) == 1 + 3 - after


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(config(epochs=1), tmp_path / "file", name="uniform")


def test_result_that_cannot_be_written_is_an_error(folder: Path) -> None:
    outcome = train(config(epochs=1), folder, name="uniform")
    result = Path(outcome["checkpoint"]).parent / "result.json"
    result.unlink()
    result.mkdir()
    with pytest.raises(StorageError, match=r"result\.json' cannot be written"):
        train(config(epochs=1), folder, name="uniform")


def test_broken_checkpoint_is_an_error_and_stays(folder: Path) -> None:
    outcome = train(config(epochs=1), folder, name="uniform")
    path = Path(outcome["checkpoint"])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="Delete it to train from the start"):
        train(config(epochs=1), folder, name="uniform")
    assert path.stat().st_size == 1000


def test_device_that_is_not_there_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:64"):
        train(config(device="cuda:64"), folder, name="uniform")
    assert not folder.exists()


def test_result_names_the_sampler_that_ran_where_there_was_no_reference(folder: Path) -> None:
    outcome = train(config(epochs=1, sampler="impon-trusted"), folder, name="trusted")
    assert (outcome["arm"], outcome["sampler"]) == ("trusted", "uniform")
