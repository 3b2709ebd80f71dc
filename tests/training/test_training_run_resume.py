"""A training run that continues from its checkpoint, as if never interrupted."""

from __future__ import annotations

import shutil
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from impon_hpo.errors import CheckpointError, NonFiniteLossError
from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.training.runs import (
    CPU,
    assert_same_state,
    config,
    linear,
    numbers,
    results_of,
)

LINEAR = "tests.training.runs:linear"


def test_epoch_without_a_finite_loss_is_not_saved(tiny_splits: Splits, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt")
    with pytest.raises(NonFiniteLossError):
        list(train_epochs(config(lr=1e30), tiny_splits, checkpoint))
    assert not checkpoint.path.exists()


def stop_after_steps(n: int, given: TrainingConfig, splits: Splits, checkpoint: Checkpoint) -> None:
    """Continue a run, and press Ctrl-C while its n-th step is taken."""
    steps = 0
    step = TrainingRun.step

    def pressed(run: TrainingRun, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == n:
            signal.raise_signal(signal.SIGINT)
        return step(run, *arguments)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TrainingRun, "step", pressed)
            list(train_epochs(given, splits, checkpoint))
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == n


def assert_resumes(given: TrainingConfig, splits: Splits, folder: Path) -> None:
    whole, broken = Checkpoint(folder / "whole.pt"), Checkpoint(folder / "broken.pt")
    expected = numbers(train_epochs(given, splits, whole))
    before = numbers(list(islice(train_epochs(given, splits, broken), 1)))
    torch.manual_seed(12345)
    stop_after_steps(2, given, splits, broken)
    after = numbers(train_epochs(given, splits, broken))
    assert [one["epoch"] for one in after] == [2, 3]
    assert before + after == expected
    assert_same_state(broken.load(given, CPU), whole.load(given, CPU))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_resumed_run_is_that_without_interruption(
    sampler: str, optimizer: str, tiny_splits: Splits, tmp_path: Path
) -> None:
    lr = 0.05 if optimizer == "sgd" else 1e-3
    given = config(sampler=sampler, optimizer=optimizer, lr=lr, augment="crop+flip")
    assert_resumes(given, tiny_splits, tmp_path)


@pytest.mark.parametrize(
    ("augment", "options"),
    [
        ("auto+trivial+erase+mixup+cutmix", {"mixup": {"alpha": 0.2}}),
        ("flip+resized-crop+rand", {"resized-crop": {"scale": [0.25, 1.0]}}),
        ("tests.training.augmenting:shifted+flip", {}),
    ],
)
def test_resumed_run_goes_on_in_its_augmentation(
    augment: str, options: dict[str, Any], tiny_splits: Splits, tmp_path: Path
) -> None:
    given = config(augment=augment, augment_options=options, sampler="prioritized")
    assert_resumes(given, tiny_splits, tmp_path)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
@pytest.mark.parametrize("warmup", [0.0, 1.5])
def test_resumed_run_goes_on_in_its_schedule(
    schedule: str, optimizer: str, warmup: float, tiny_splits: Splits, tmp_path: Path
) -> None:
    given = config(schedule=schedule, optimizer=optimizer, warmup_epochs=warmup, lr=0.01)
    assert_resumes(given, tiny_splits, tmp_path)


def test_resumed_run_with_other_features_goes_on(tiny_splits: Splits, tmp_path: Path) -> None:
    for features in ("pooled", "pca"):
        given = config(sampler="impon", sampler_options={"features": features})
        folder = tmp_path / features
        folder.mkdir()
        assert_resumes(given, tiny_splits, folder)


def test_finished_run_yields_nothing_more(tiny_splits: Splits, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt")
    assert len(list(train_epochs(config(), tiny_splits, checkpoint))) == 3
    before = checkpoint.path.read_bytes()
    assert list(train_epochs(config(), tiny_splits, checkpoint)) == []
    assert checkpoint.path.read_bytes() == before


def test_checkpoint_is_saved_before_the_epoch_is_yielded(
    tiny_splits: Splits, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt")
    for result in train_epochs(config(), tiny_splits, checkpoint):
        state = checkpoint.load(config(), CPU)
        assert state is not None
        assert len(state["results"]) == result.epoch


def test_checkpoint_of_other_settings_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt")
    next(train_epochs(config(), tiny_splits, checkpoint))
    with pytest.raises(CheckpointError, match=r"of a run with lr = 0\.05"):
        next(train_epochs(config(lr=0.1), tiny_splits, checkpoint))


def test_checkpoint_changes_no_number(tiny_splits: Splits, tmp_path: Path) -> None:
    with_checkpoint = train_epochs(config(), tiny_splits, Checkpoint(tmp_path / "c.pt"))
    assert numbers(with_checkpoint) == results_of(tiny_splits)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_model_gives_the_same_losses(tiny_splits: Splits, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": LINEAR, "augment": "none", "epochs": 2}
    plain = results_of(tiny_splits, **given)
    checkpoint = Checkpoint(tmp_path / "c.pt")
    compiled = numbers(train_epochs(config(compile="inductor", **given), tiny_splits, checkpoint))
    for one, other in zip(compiled, plain, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    state = checkpoint.load(config(compile="inductor", **given), CPU)
    assert state is not None
    assert list(state["model"]) == list(linear(10).state_dict())
