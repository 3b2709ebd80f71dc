"""An objective in people's own Optuna code: any trial, directions, threads, processes."""

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
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.study import MaxTrialsCallback
from optuna.trial import FixedTrial, TrialState

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import COST, USED, epochs_of
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.training.data import load_dataset
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.images import Images
from impon_hpo.training.reference_folder import References
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.objective import Objective
from tests.settings import training_config
from tests.training.runs import config

LR = FloatDistribution(1e-2, 1e-1, log=True)
SPACE: dict[str, BaseDistribution] = {"lr": LR, "batch_size": CategoricalDistribution([16, 32])}
CROSSFIT: dict[str, Any] = {
    "reference": "crossfit",
    "reference_options": {"epochs": 1, "width": 4, "batch_size": 32},
}
DROPPING = "tests.training.nets:dropping"

loads: list[int] = []
"""The processes that have loaded `counted_digits`, once for each time."""


def counted_digits(**given: Any) -> ImageData:
    loads.append(os.getpid())
    return load_dataset(training_config({"dataset": "digits"}))


def new_study(**given: Any) -> optuna.Study:
    arguments: dict[str, Any] = {
        "direction": "maximize",
        "sampler": optuna.samplers.RandomSampler(seed=0),
        "pruner": optuna.pruners.NopPruner(),
    }
    return optuna.create_study(**(arguments | given))


def small(**given: Any) -> TrainingConfig:
    return config(**({"epochs": 2} | given))


# Trials that are in no study, or done.


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_trial_again_and_a_fixed_one_come_to_the_same_value(
    tiny_splits: Splits, sampler: str
) -> None:
    given = small(sampler=sampler)
    if wants_reference(given):
        given = small(sampler=sampler, **CROSSFIT)
    study = new_study()
    objective = Objective(given, {"lr": LR}, splits=tiny_splits)
    study.optimize(objective, n_trials=1)
    assert objective(study.best_trial) == study.best_value
    assert objective(FixedTrial(study.best_params)) == study.best_value


@pytest.mark.parametrize("sampler", ["impon", "impon-memory"])
def test_a_trial_again_leaves_everything_as_it_was(tmp_path: Path, sampler: str) -> None:
    study = new_study(storage="sqlite:///study.db", pruner=optuna.pruners.MedianPruner(1))
    objective = Objective(
        small(sampler=sampler),
        SPACE,
        artifact_store=artifact_store("artifacts"),
        references=References(Path("references")),
        checkpoints=Checkpoints(Path("checkpoints"), keep=True),
    )
    study.optimize(objective, n_trials=2)
    trials = study.get_trials(deepcopy=False)
    attributes = study.user_attrs
    kept = copy.deepcopy(trials)
    files = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for trial in trials:
        value = objective(trial)
        assert objective(trial) == value
        assert trial.state == TrialState.PRUNED or value == trial.value
    fixed = FixedTrial({"lr": 0.05, "batch_size": 16})
    assert objective(fixed) == objective(fixed)
    assert fixed.user_attrs == {}
    assert trials == kept == study.get_trials()
    assert study.user_attrs == attributes
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == files


def test_a_trial_again_reads_the_reference_that_it_used(
    tiny_splits: Splits, said: list[str]
) -> None:
    given = config(sampler="rho-loss", epoch_fraction=1.0, epochs=4)
    study = new_study()
    objective = Objective(
        given, {"lr": LR}, splits=tiny_splits, references=References(Path("references"))
    )
    study.optimize(objective, n_trials=2)
    first, second = study.trials
    assert USED not in first.user_attrs
    assert [objective(first), objective(second)] == [first.value, second.value]
    said.clear()
    elsewhere = Objective(
        given, {"lr": LR}, splits=tiny_splits, references=References(Path("empty"))
    )
    assert elsewhere(first) == first.value
    assert said == []
    assert 0 <= elsewhere(second) <= 1
    (line,) = said
    assert line.startswith(f"The reference {second.user_attrs[USED]}, which trial 1 was trained ")
    assert list(Path("empty").glob("*.pt")) == []  # it teaches nobody


@pytest.mark.parametrize("sampler", ["curriculum", "placebo"])
def test_a_first_trial_is_uniform_where_its_sampler_has_no_order_without_a_reference(
    tiny_splits: Splits, sampler: str
) -> None:
    options = {"of": "rho-loss"} if sampler == "placebo" else {}
    given = small(sampler=sampler, sampler_options=options)
    study = new_study()
    study.optimize(Objective(given, {"lr": LR}, splits=tiny_splits), n_trials=1)
    uniform = Objective(small(), {"lr": LR}, splits=tiny_splits)
    assert uniform(study.best_trial) == study.best_value


def test_a_pruned_trial_again_goes_to_its_end(tiny_splits: Splits) -> None:
    study = new_study(pruner=optuna.pruners.ThresholdPruner(lower=1.1))
    objective = Objective(small(), {"lr": LR}, splits=tiny_splits)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert objective(trial) == objective(FixedTrial(trial.params)) != trial.value


def test_a_fixed_trial_that_diverges_is_pruned_as_in_a_study(tiny_splits: Splits) -> None:
    objective = Objective(small(), {"lr": CategoricalDistribution([1e30])}, splits=tiny_splits)
    with pytest.raises(optuna.TrialPruned, match="training loss of epoch"):
        objective(FixedTrial({"lr": 1e30}))


# Directions.


@pytest.mark.parametrize(
    ("given", "values", "line"),
    [
        ({}, ("metric",), 'Use optuna.create_study(direction="maximize").'),
        ({"directions": ["maximize", "minimize"]}, ("metric",), 'direction="maximize"'),
        ({"direction": "maximize"}, ("metric", "cost"), "directions=['maximize', 'minimize']"),
        (
            {"directions": ["maximize", "minimize"]},
            ("seconds", "metric"),
            "directions=['minimize', 'maximize']",
        ),
        (
            {"directions": ["maximize", "minimize"]},
            ("metric", "cost", "parameters"),
            "directions=['maximize', 'minimize', 'minimize']",
        ),
    ],
)
def test_a_study_of_other_directions_is_refused_before_anything_is_loaded(
    given: dict[str, Any], values: tuple[str, ...], line: str
) -> None:
    loads.clear()
    study = optuna.create_study(**given)
    objective = Objective(small(dataset=f"{__name__}:counted_digits"), {"lr": LR}, values=values)
    with pytest.raises(ConfigError) as refused:
        study.optimize(objective, n_trials=1)
    assert line in str(refused.value)
    assert ("values=('metric', 'cost')" in str(refused.value)) == (
        len(values) == 1 and len(study.directions) > 1
    )
    assert loads == []


@pytest.mark.parametrize(
    "values", ["metric", (), ("cost",), ("metric", "metric"), ("metric", "costs"), ("metric", 3)]
)
def test_values_that_are_none_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="values must be"):
        Objective(small(), {}, values=values)


def test_several_values_are_returned_in_their_order(tiny_splits: Splits, said: list[str]) -> None:
    values = ("parameters", "metric", "cost", "seconds")
    study = optuna.create_study(
        directions=["minimize", "maximize", "minimize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(seed=0),
    )
    space = {"width": CategoricalDistribution([4, 8])}
    objective = Objective(small(), space, splits=tiny_splits, values=values)
    for width in (4, 8):
        study.enqueue_trial({"width": width})
    study.optimize(objective, n_trials=2)
    one = Objective(small(), space, splits=tiny_splits)
    for trial in study.trials:
        parameters, metric, cost, seconds = trial.values
        assert metric == one(trial)
        assert cost == trial.user_attrs[COST]
        epochs = epochs_of(trial.user_attrs).values()
        assert seconds == sum(
            epoch[key] for epoch in epochs for key in epoch if key.startswith("seconds_")
        )
        assert trial.intermediate_values == {}
        again = objective(trial)
        assert isinstance(again, tuple)
        assert again[:3] == (parameters, metric, cost)
    assert 3.5 < study.trials[1].values[0] / study.trials[0].values[0] < 4.5
    assert said == [
        "MedianPruner has no effect: Optuna prunes only where a trial has one value. "
        "create_study(…, pruner=optuna.pruners.NopPruner()) says so, too."
    ]
    assert study.best_trials


def test_a_run_that_diverges_is_pruned_where_it_has_several_values(tiny_splits: Splits) -> None:
    study = new_study(direction=None, directions=["maximize", "minimize"])
    space = {"lr": CategoricalDistribution([1e30])}
    objective = Objective(small(), space, splits=tiny_splits, values=("metric", "cost"))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED


def test_ask_and_tell(tiny_splits: Splits) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    study = new_study()
    for _ in range(2):
        trial = study.ask()
        study.tell(trial, objective(trial))
    optimised = new_study()
    optimised.optimize(objective, n_trials=2)
    assert [trial.params for trial in study.trials] == [trial.params for trial in optimised.trials]
    assert [trial.value for trial in study.trials] == [trial.value for trial in optimised.trials]


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
    given = small(
        dataset=f"{__name__}:counted_digits", sampler="impon-memory", epochs=1, **CROSSFIT
    )
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
        small(dataset=f"{__name__}:counted_digits", image_size=8),
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


# What else people do with an objective.

SAMPLERS_OF_OPTUNA: list[Callable[[], BaseSampler]] = [
    optuna.samplers.CmaEsSampler,
    optuna.samplers.GPSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.NSGAIIISampler,
    optuna.samplers.QMCSampler,
    optuna.samplers.TPESampler,
    lambda: optuna.samplers.GridSampler({"lr": [0.02, 0.05], "batch_size": [16]}),
    lambda: optuna.samplers.PartialFixedSampler({"lr": 0.05}, optuna.samplers.RandomSampler(0)),
]
PRUNERS_OF_OPTUNA: list[Callable[[], BasePruner]] = [
    optuna.pruners.MedianPruner,
    lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=2, reduction_factor=2),
    lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(1), patience=1),
    lambda: optuna.pruners.PercentilePruner(50.0, n_startup_trials=1),
    optuna.pruners.SuccessiveHalvingPruner,
    lambda: optuna.pruners.ThresholdPruner(lower=0.0),
    optuna.pruners.WilcoxonPruner,
]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", SAMPLERS_OF_OPTUNA)
def test_every_study_sampler_proposes_for_it(
    tiny_splits: Splits, sampler: Callable[[], BaseSampler]
) -> None:
    objective = Objective(small(epochs=1), SPACE, splits=tiny_splits)
    study = new_study(sampler=sampler())
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert objective(study.best_trial) == study.best_value


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pruner", PRUNERS_OF_OPTUNA)
def test_every_pruner_judges_its_epochs(
    tiny_splits: Splits, pruner: Callable[[], BasePruner]
) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    study = new_study(pruner=pruner())
    study.optimize(objective, n_trials=4)
    for trial in study.trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        assert trial.value == trial.intermediate_values[trial.last_step or 0]


def test_a_function_around_it_has_suggestions_and_a_verdict_of_its_own(
    tiny_splits: Splits,
) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    other = Objective(small(seed=1), SPACE, splits=tiny_splits)

    def mean(trial: Any) -> float:
        share = trial.suggest_float("share", 0, 1)
        value: Any = share * objective(trial) + (1 - share) * other(trial)
        trial.set_user_attr("share", share)
        if value > 1:
            raise optuna.TrialPruned
        return float(value)

    study = new_study(storage=JournalStorage(JournalFileBackend("journal.log")))
    study.enqueue_trial({"share": 0.5})
    study.optimize(
        mean,
        n_trials=3,
        timeout=100,
        catch=(RuntimeError,),
        gc_after_trial=True,
        callbacks=[MaxTrialsCallback(2, states=(TrialState.COMPLETE,))],
    )
    study.optimize(mean, n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.trials[0].user_attrs["share"] == 0.5
    assert mean(study.best_trial) == study.best_value
