"""`bench.py step`: rows per second of an epoch with validation, beside the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from benchmarks.loops import PlainEpoch, PlainLoop, RecipeLoop
from benchmarks.measure import (
    Measurement,
    SideProcess,
    alternate,
    check_rounds,
    ratios,
    spread,
    surroundings,
)
from impon_hpo import EpochResult, ImageData, Reference, Splits, TrainingConfig
from impon_hpo.training.device import find_device
from impon_hpo.training.splits import split_data
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.study_file import parse_setting

OURS = "impon-hpo"
N_CLASSES = 10


def measure_step(
    *,
    width: int,
    side: int,
    n_rows: int,
    batch_size: int,
    rounds: int,
    n_workers: Sequence[int],
    device: str = "auto",
    tried: Sequence[str] = (),
    recipes: Sequence[str] = (),
) -> Measurement:
    """Time an epoch of uniform sampling, and of the plain loop without and with workers, in turn.

    Each side has a process of its own. The first epoch, which pays for compiling and allocations,
    has a column of its own.

    Args:
        width: Channels of the model's first stage.
        side: Pixels of an image's side.
        n_rows: Training rows; a tenth of that is validated.
        batch_size: Rows a step.
        rounds: Epochs that count of each side; one more is not counted.
        n_workers: Worker processes of the plain loop's DataLoader, a side for each number.
        device: As in a study file.
        tried: "key=value" of settings, each a further side: ours with that setting changed.
        recipes: "eager", "compiled", "tuned": the recipe loop as further sides.

    Raises:
        ConfigError: A size or setting does not fit, there is no round, or there is no such device.
    """
    check_rounds(rounds)
    place = find_device(device)
    config = step_config(width=width, batch_size=batch_size, rounds=rounds)
    variants = {}
    for setting in tried:
        key, value = parse_setting(setting, "--try")
        variants[f"{OURS}, {setting}"] = with_settings(config, {key: value})
    shared = {
        "config": config,
        "n_rows": n_rows,
        "side": side,
        "device": str(place),
    }
    around = surroundings(str(place))
    with ExitStack() as stack:
        sides = {OURS: stack.enter_context(SideProcess(build_ours, shared))}
        for workers in sorted(set(n_workers)):
            process = SideProcess(build_plain, shared | {"n_workers": workers})
            sides[f"plain loop, {workers} workers"] = stack.enter_context(process)
        for recipe in dict.fromkeys(recipes):
            process = SideProcess(build_recipe, shared | {"recipe": recipe})
            sides[f"recipe loop, {recipe}"] = stack.enter_context(process)
        for name, other in variants.items():
            process = SideProcess(build_ours, shared | {"config": other})
            sides[name] = stack.enter_context(process)
        with_first = alternate(sides, rounds + 1, warm_up=0)
        peaks = {name: side.peak_gpu_bytes for name, side in sides.items()}
    seconds = {name: taken[1:] for name, taken in with_first.items()}
    sizes = {name: other.batch_size for name, other in variants.items()}
    trained = {name: n_rows - n_rows % sizes.get(name, batch_size) for name in sides}
    rows = [
        dict[str, Any](side=name)
        | spread([trained[name] / taken for taken in seconds[name]]).columns("rows_per_second")
        | ratios(seconds[name], seconds[OURS]).columns("times_ours")
        | {"first_epoch_seconds": round(with_first[name][0], 2)}
        | {"peak_gpu_mib": peaks[name] >> 20}
        for name in sides
    ]
    settings = {
        "width": width,
        "side": side,
        "rows": n_rows,
        "batch_size": batch_size,
        "rounds": rounds,
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


def build_recipe(
    *, config: TrainingConfig, n_rows: int, side: int, device: str, recipe: str
) -> Callable[[], PlainEpoch]:
    """Return what trains the next epoch of the recipe loop and validates."""
    splits = make_splits(config, n_train=n_rows, side=side, device=torch.device(device))
    return RecipeLoop(config, splits, recipe).train_epoch


def step_config(*, width: int, batch_size: int, rounds: int) -> TrainingConfig:
    """Return the settings of both sides: SGD with momentum and a cosine over all their epochs."""
    return TrainingConfig(width=width, batch_size=batch_size, epochs=rounds + 1, lr=0.05)


def make_splits(config: TrainingConfig, *, n_train: int, side: int, device: torch.device) -> Splits:
    """Make splits of random images: `n_train` rows to train on, a tenth of that to validate with.

    What the images show changes no time.

    Args:
        config: The settings; only seed and batch size are read.
        n_train: Training rows, at least a batch and 10 classes' worth.
        side: Pixels of a side.
        device: Where the splits are kept.
    """
    n_validation = max(N_CLASSES, n_train // 10)
    generator = np.random.default_rng(0)
    n = n_train + n_validation
    images = generator.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    labels = np.arange(n) % N_CLASSES
    test = slice(0, 2 * N_CLASSES)
    data = ImageData(images, labels, images[test], labels[test], augment="crop+flip")
    config = config.model_copy(update={"validation_size": n_validation, "subset": None})
    return split_data(data, config, device)


def made_reference(n_rows: int, device: torch.device) -> Reference:
    """Make a random reference of `n_rows` rows, as earlier training might have left one."""
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(n_rows, generator=generator)
    probabilities = torch.rand(n_rows, N_CLASSES, generator=generator)
    probabilities /= probabilities.sum(1, keepdim=True)
    return Reference(loss.to(device), probabilities.to(device), loss[None].to(device))
