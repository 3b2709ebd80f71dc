"""Small training runs, and what of them is the same every time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import train_epochs
from tests.settings import training_config

CPU = torch.device("cpu")

BATCH = 32

SECONDS = ("seconds_drawing", "seconds_stepping", "seconds_validating")


def config(**given: Any) -> TrainingConfig:
    """A run of 3 epochs of 3 steps on 320 rows, unless told otherwise."""
    settings: dict[str, Any] = {
        "subset": 320,
        "width": 4,
        "epochs": 3,
        "batch_size": BATCH,
        "lr": 0.05,
        "epoch_fraction": 0.3,
    }
    return training_config(settings | given)


def numbers(results: Iterator[EpochResult] | list[EpochResult]) -> list[dict[str, Any]]:
    """Return all that is the same on every machine: everything but seconds."""
    kept = [dataclasses.asdict(result) for result in results]
    return [{key: value for key, value in one.items() if key not in SECONDS} for one in kept]


def results_of(splits: Splits, **given: Any) -> list[dict[str, Any]]:
    return numbers(train_epochs(config(**given), splits))


def results_in_threads(
    splits: Splits, seeds: Sequence[int], **given: Any
) -> dict[int, list[dict[str, Any]]]:
    """Train with each seed in a thread of its own, all at once, and return the results by seed."""
    found: dict[int, list[dict[str, Any]]] = {}
    ready = threading.Barrier(len(seeds))

    def train(seed: int) -> None:
        torch.set_num_threads(1)
        ready.wait()
        found[seed] = results_of(splits, **given, seed=seed)

    threads = [threading.Thread(target=train, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def linear(n_classes: int) -> nn.Module:
    """A user's model without normalisation, so that its losses can be worked out apart."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))


def assert_same_state(first: Any, second: Any, where: str = "") -> None:
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            if key not in SECONDS:
                assert_same_state(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for at, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same_state(one, other, f"{where}[{at}]")
    elif isinstance(first, Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where
