"""An objective in several threads at once, and sent to other processes."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import cloudpickle
import numpy as np
import optuna
import pytest
import torch
from joblib.externals.loky.backend.reduction import dumps as loky_dumps
from optuna.artifacts import Backoff, Boto3ArtifactStore, FileSystemArtifactStore
from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial

from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import epochs_of
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.images import Images
from impon_hpo.training.reference_folder import References
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.objective import Objective
from tests.tuning.plain import (
    COUNTED,
    CROSSFIT,
    DROPPING,
    LR,
    loads,
    new_study,
    small,
)

# Threads.


def process_wide() -> list[Any]:
    numpy: Any = np.random.get_state()
    return [
        torch.get_rng_state().tolist(),
        numpy[1].tolist(),
        numpy[2:],
        random.getstate(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        {name: logging.getLogger(name).level for name in ("", "impon_hpo", "optuna")},
        optuna.logging.get_verbosity(),
        dict(os.environ),
        threading.active_count(),
    ]


def with_each_lr(objective: Objective, n_jobs: int) -> dict[float, list[Any]]:
    study = new_study()
    for at in range(6):
        study.enqueue_trial({"lr": 0.01 * 1.4**at})
    study.optimize(objective, n_trials=6, n_jobs=n_jobs)
    seconds = "seconds_"
    return {
        trial.params["lr"]: [
            trial.value,
            [
                {key: epoch[key] for key in epoch if not key.startswith(seconds)}
                for epoch in epochs_of(trial.user_attrs).values()
            ],
        ]
        for trial in study.trials
    }


@pytest.mark.parametrize(
    "given",
    [
        {"sampler": "impon"},
        {"sampler": "lstm-loss"},
        {"sampler": "impon-memory"} | CROSSFIT,
        {"model": DROPPING, "augment": "crop+trivial+mixup", "eval_weights": "ema"},
        {"model": "tests.training.nets:DrawsInPython"},
        {"model": "tests.training.nets:DrawsWhenJudged"},
    ],
    ids=str,
)
def test_trials_in_threads_are_each_as_if_alone(
    tiny_splits: Splits, given: dict[str, Any], switching: None
) -> None:
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(3)
    before = process_wide()
    objective = Objective(small(**given), {"lr": LR}, splits=tiny_splits)
    alone = with_each_lr(objective, n_jobs=1)
    assert with_each_lr(objective, n_jobs=3) == alone
    assert process_wide() == before


@pytest.fixture
def switching() -> Iterator[None]:
    """Let Python switch threads a hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


class SlowStore(FileSystemArtifactStore):
    """Takes a while, and notes which files come to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.names: list[str] = []

    def write(self, artifact_id: str, content_body: Any) -> None:
        self.names.append(Path(content_body.name).suffix)
        time.sleep(0.2)
        super().write(artifact_id, content_body)


def test_threads_load_the_data_and_make_and_store_a_reference_once(said: list[str]) -> None:
    loads.clear()
    store = SlowStore(Path("artifacts"))
    given = small(dataset=COUNTED, sampler="impon-memory", epochs=1, **CROSSFIT)
    objective = Objective(given, {"lr": LR}, artifact_store=store)
    new_study().optimize(objective, n_trials=3, n_jobs=3)
    assert len(loads) == 1
    assert len([line for line in said if line.startswith("reference: model 1/")]) == 1
    assert store.names.count(".pt") == 1


def test_two_trials_in_two_threads_overlap(tiny_splits: Splits) -> None:
    both = threading.Barrier(2, timeout=20)
    objective = Objective(small(model=DROPPING), {"lr": LR}, splits=tiny_splits)

    def meet(trial: optuna.Trial, result: EpochResult) -> None:
        both.wait()

    study = new_study()
    study.optimize(lambda trial: objective(trial, meet), n_trials=2, n_jobs=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


# Other processes.


def sent(objective: Objective, how: Callable[[Any], bytes] = pickle.dumps) -> Any:
    data: Any = how(objective)
    return pickle.loads(data)


@pytest.mark.parametrize("how", [pickle.dumps, cloudpickle.dumps, loky_dumps])
@pytest.mark.parametrize("trained", [False, True])
def test_a_pickled_objective_loads_the_data_where_it_arrives(
    how: Callable[[Any], bytes], trained: bool
) -> None:
    objective = Objective(
        small(dataset=COUNTED, image_size=8),
        {"lr": LR, "image_size": CategoricalDistribution([8, 12])},
        artifact_store=artifact_store("artifacts"),
        references=References(Path("references")),
        checkpoints=Checkpoints(Path("checkpoints")),
        n_trials=5,
    )
    fixed = FixedTrial({"lr": 0.05, "image_size": 12})
    value = objective(fixed) if trained else None
    loads.clear()
    assert len(how(objective)) < 5000
    arrived = sent(objective, how)
    assert loads == []
    study = new_study()
    study.enqueue_trial(fixed.params or {"lr": 0.05, "image_size": 12})
    study.optimize(arrived, n_trials=1)
    assert len(loads) == 1
    assert value is None or study.best_value == value
    assert len(list(Path("artifacts").iterdir())) > 3
    assert objective(study.best_trial) == study.best_value


@pytest.mark.parametrize("copied", [sent, copy.deepcopy, copy.copy])
def test_splits_that_are_given_travel(tiny_splits: Splits, copied: Any) -> None:
    objective = Objective(small(sampler="rho-loss"), {"lr": LR}, splits=tiny_splits)
    before = objective(FixedTrial({"lr": 0.05}))
    assert copied(objective)(FixedTrial({"lr": 0.05})) == before


def test_mapped_images_travel_once(tmp_path: Path) -> None:
    path = tmp_path / "pixels"
    pixels: Any = np.memmap(path, np.uint8, "w+", shape=(60, 8, 8, 3))
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)
    pixels.flush()
    mapped = Images(np.memmap(path, np.uint8, "r", shape=(60, 8, 8, 3)))
    one, other = mapped.of(torch.arange(40)), mapped.of(torch.arange(40, 60))
    expected = one[:], other[:]
    _ = one.moments, one.fingerprint
    data = pickle.dumps((one, other))
    assert len(data) < 1.5 * pixels.nbytes
    path.unlink()
    for images, before in zip(pickle.loads(data), expected, strict=True):
        assert torch.equal(images[:], before)


def test_a_store_with_a_connection_of_its_own_is_refused(tiny_splits: Splits) -> None:
    client = boto3.client("s3", region_name="eu-north-1")
    store = Backoff(Boto3ArtifactStore("bucket", client=client))
    objective = Objective(small(), {}, splits=tiny_splits, artifact_store=store)
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(StorageError, match="holds a connection, which cannot be pickled"):
            send(objective)


def optimise(objective: Objective, storage: str, name: str) -> int:
    torch.set_num_threads(1)
    optuna.load_study(study_name=name, storage=storage).optimize(objective, n_trials=2)
    return os.getpid()


@pytest.mark.slow
def test_two_spawned_processes_work_on_one_sqlite_file(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = new_study(storage=storage, study_name="spawned")
    objective = Objective(small(dataset="digits"), {"lr": LR})
    value = objective(FixedTrial({"lr": 0.05}))
    study.enqueue_trial({"lr": 0.05})
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=optimise, args=(objective, storage, "spawned")) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert study.trials[0].value == value
