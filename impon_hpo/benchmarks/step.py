"""`benchmark step`: rows per second of an epoch with validation, beside the plain loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from impon_hpo.benchmarks.made_data import make_splits
from impon_hpo.benchmarks.measure import Measurement, alternate, ratios, spread, surroundings
from impon_hpo.benchmarks.plain_loop import PlainEpoch, PlainLoop
from impon_hpo.benchmarks.side_process import SideProcess
from impon_hpo.training.config import TrainingConfig, training_config
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.run import TrainingRun

OURS = "impon-hpo"


def measure_step(
    *,
    width: int,
    side: int,
    n_rows: int,
    batch_size: int,
    rounds: int,
    n_workers: int,
    device: str = "auto",
    compile: bool = False,
) -> Measurement:
    """Time an epoch of uniform sampling, and of the plain loop without and with workers, in turn.

    Each side has a process of its own. The warm-up epoch pays for compiling and first allocations.

    Args:
        width: Channels of the model's first stage.
        side: Pixels of an image's side.
        n_rows: Training rows; a tenth of that is validated.
        batch_size: Rows a step.
        rounds: Epochs that count of each side; one more is not counted.
        n_workers: Worker processes of the plain loop's DataLoader; 0: only the loop without any.
        device: As in a study file.
        compile: Whether our side compiles the model; the time for that is not counted.

    Raises:
        ConfigError: A size does not fit, or the device is not there.
    """
    place = find_device(device)
    shared = {
        "config": step_config(width=width, batch_size=batch_size, rounds=rounds, compile=compile),
        "n_rows": n_rows,
        "side": side,
        "device": str(place),
    }
    around = surroundings(str(place))
    with ExitStack() as stack:
        sides = {OURS: stack.enter_context(SideProcess(build_ours, shared))}
        for workers in sorted({0, n_workers}):
            process = SideProcess(build_plain, shared | {"n_workers": workers})
            sides[f"plain loop, {workers} workers"] = stack.enter_context(process)
        seconds = alternate(sides, rounds)
    trained = n_rows // batch_size * batch_size
    rows = [
        dict[str, Any](side=name)
        | spread([trained / taken for taken in seconds[name]]).columns("rows_per_second")
        | ratios(seconds[name], seconds[OURS]).columns("times_ours")
        for name in sides
    ]
    settings = {
        "width": width,
        "side": side,
        "rows": n_rows,
        "batch_size": batch_size,
        "rounds": rounds,
        "compile": compile,
    }
    return Measurement("step", settings, around, rows)


def build_ours(
    *, config: TrainingConfig, n_rows: int, side: int, device: str
) -> Callable[[], EpochResult]:
    """Return what trains the next epoch of a run of ours and validates."""
    splits = make_splits(config, n_train=n_rows, side=side, device=torch.device(device))
    return TrainingRun(config, splits).train_epoch


def build_plain(
    *, config: TrainingConfig, n_rows: int, side: int, device: str, n_workers: int
) -> Callable[[], PlainEpoch]:
    """Return what trains the next epoch of the plain loop and validates."""
    splits = make_splits(config, n_train=n_rows, side=side, device=torch.device(device))
    return PlainLoop(config, splits, n_workers=n_workers).train_epoch


def step_config(
    *, width: int, batch_size: int, rounds: int, compile: bool = False
) -> TrainingConfig:
    """Return the settings of both sides: SGD with momentum and a cosine over all their epochs."""
    return training_config(
        {
            "width": width,
            "batch_size": batch_size,
            "epochs": rounds + 1,
            "lr": 0.05,
            "compile": compile,
        }
    )
