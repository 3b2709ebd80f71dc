"""A checkpoint: whole or not at all, refused when broken, foreign or malicious."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from impon_hpo.errors import CheckpointError
from impon_hpo.training.checkpoint import FORMAT, Checkpoint
from impon_hpo.training.config import TrainingConfig
from tests.settings import training_config

CPU = torch.device("cpu")
CONFIG = TrainingConfig()


def state(**more: Any) -> dict[str, Any]:
    return {"config": CONFIG.identity(), "weights": torch.arange(50.0), "step": 7} | more


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "run" / "checkpoint.pt")


def files_beside(checkpoint: Checkpoint) -> list[str]:
    return sorted(path.name for path in checkpoint.path.parent.iterdir())


def test_missing_file_is_nothing_to_continue_from(checkpoint: Checkpoint) -> None:
    assert checkpoint.load(CONFIG, CPU) is None
    assert not checkpoint.path.parent.exists()


def test_what_is_saved_is_loaded(checkpoint: Checkpoint) -> None:
    checkpoint.save(state(nested={"list": [1, 2.5, "x", None, True]}))
    loaded = checkpoint.load(CONFIG, CPU)
    assert loaded is not None
    assert torch.equal(loaded["weights"], torch.arange(50.0))
    assert loaded["step"] == 7
    assert loaded["nested"] == {"list": [1, 2.5, "x", None, True]}


def test_later_save_replaces_the_earlier_and_leaves_one_file(checkpoint: Checkpoint) -> None:
    for step in (1, 2, 3):
        checkpoint.save(state(step=step))
    loaded = checkpoint.load(CONFIG, CPU)
    assert loaded is not None
    assert loaded["step"] == 3
    assert files_beside(checkpoint) == ["checkpoint.pt"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")]
)
def test_failing_write_leaves_the_former_file_whole_and_no_other(
    error: Exception, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(state(step=1))
    before = checkpoint.path.read_bytes()

    def half(content: Any, file: Any) -> None:
        file.write(before[: len(before) // 2])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt' cannot be written: .*(No|Py)"):
            checkpoint.save(state(step=2))
    assert checkpoint.path.read_bytes() == before
    assert files_beside(checkpoint) == ["checkpoint.pt"]


def test_file_is_on_disk_before_it_takes_its_place(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(state(step=1))
    before = checkpoint.path.read_bytes()
    flushed: list[int] = []
    real = os.fsync

    def flush(descriptor: int) -> None:
        assert checkpoint.path.read_bytes() == before
        flushed.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    checkpoint.save(state(step=2))
    assert flushed == [checkpoint.path.stat().st_size]


def test_crash_before_the_rename_leaves_the_former_file(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(state(step=1))

    def crash(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(CheckpointError, match="Input/output error"):
        checkpoint.save(state(step=2))
    loaded = checkpoint.load(CONFIG, CPU)
    assert loaded is not None
    assert loaded["step"] == 1
    assert files_beside(checkpoint) == ["checkpoint.pt"]


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file.run.checkpoint\.pt' cannot be written"):
        Checkpoint(tmp_path / "file" / "run" / "checkpoint.pt").save(state())


def test_folder_in_place_of_the_file_is_an_error(checkpoint: Checkpoint) -> None:
    checkpoint.path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(state())
    assert files_beside(checkpoint) == ["checkpoint.pt"]
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(CONFIG, CPU)


def test_file_cut_short_is_refused_wherever_the_cut(checkpoint: Checkpoint) -> None:
    checkpoint.save(state())
    whole = checkpoint.path.read_bytes()
    for length in (1, 2, 3, 4, 10, *range(50, len(whole), 97), len(whole) - 1):
        checkpoint.path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cannot be read: .+ Delete it to train from"):
            checkpoint.load(CONFIG, CPU)


class Malicious:
    """Makes a file when it is unpickled as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch, old format"])
def test_code_in_a_checkpoint_is_never_run(
    how: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trace = tmp_path / "code was run"
    content = state(format=FORMAT, weights=Malicious(trace))
    checkpoint.path.parent.mkdir()
    if how == "pickle":
        checkpoint.path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, checkpoint.path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(CONFIG, CPU)
    assert not trace.exists()
    if how != "pickle":  # the trap itself works
        torch.load(checkpoint.path, weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize(
    "foreign", [{"format": FORMAT + 1}, {"weights": torch.zeros(2)}, [1, 2], torch.zeros(3)]
)
def test_file_of_another_kind_is_refused(foreign: Any, checkpoint: Checkpoint) -> None:
    checkpoint.path.parent.mkdir()
    torch.save(foreign, checkpoint.path)
    with pytest.raises(CheckpointError, match=f"not a checkpoint of format {FORMAT} of impon-hpo"):
        checkpoint.load(CONFIG, CPU)


def test_foreign_settings_are_listed_with_their_values(checkpoint: Checkpoint) -> None:
    other = training_config({"lr": 0.3, "sampler": "impon", "sampler_options": {"bank_size": 150}})
    checkpoint.save(state(config=other.identity()))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(CONFIG, CPU)
    message = str(caught.value)
    assert (
        "is of a run with lr = 0.3, sampler = 'impon', sampler_options = {'bank_size': 150}."
        in (message)
    )
    assert "epochs" not in message


def test_setting_that_the_checkpoint_does_not_know_is_listed(checkpoint: Checkpoint) -> None:
    older = CONFIG.identity()
    del older["label_smoothing"]
    checkpoint.save(state(config=older))
    with pytest.raises(CheckpointError, match="of a run with label_smoothing = None"):
        checkpoint.load(CONFIG, CPU)


def test_setting_that_only_the_checkpoint_knows_is_listed(checkpoint: Checkpoint) -> None:
    checkpoint.save(state(config=training_config({"metric": "balanced-accuracy"}).identity()))
    with pytest.raises(CheckpointError, match="of a run with metric = 'balanced-accuracy'"):
        checkpoint.load(CONFIG, CPU)
    checkpoint.save(state())
    with pytest.raises(CheckpointError, match="of a run with metric = None"):
        checkpoint.load(CONFIG.model_copy(update={"metric": "balanced-accuracy"}), CPU)


def test_place_of_the_data_and_device_do_not_matter(checkpoint: Checkpoint) -> None:
    checkpoint.save(state())
    moved = training_config({"data_dir": "/elsewhere", "download": True, "device": "cpu"})
    assert checkpoint.load(moved, CPU) is not None


def test_tensors_come_to_the_device_asked_for(checkpoint: Checkpoint) -> None:
    checkpoint.save(state())
    loaded = checkpoint.load(CONFIG, torch.device("meta"))
    assert loaded is not None
    assert loaded["weights"].device.type == "meta"
