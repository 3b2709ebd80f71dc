"""Tests of the files that a trial leaves: what they say is what was trained."""

from __future__ import annotations

import csv
import io
import os
import resource
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import optuna
import pytest
import torch
from optuna.artifacts import get_all_artifact_meta
from optuna.distributions import FloatDistribution
from optuna.testing.pruners import DeterministicPruner
from PIL import Image

from impon_hpo.storage.connect import ArtifactStore, artifact_store
from impon_hpo.storage.trials import CLASS_PICKS, COST, IMAGES, USED
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.splits import Splits, split_data
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.artifacts import (
    CURVE,
    SETTINGS,
    Checkpoints,
    picks_of,
    settings_text,
    upload_files,
)
from impon_hpo.tuning.objective import Objective
from tests.settings import training_config
from tests.tuning.forks import Forked

SPACE = {"lr": FloatDistribution(1e-2, 1e-1, log=True)}
KINDS = {
    CURVE: "text/csv",
    SETTINGS: "text/plain",
    IMAGES: "image/png",
    CLASS_PICKS: "text/csv",
}


@pytest.mark.parametrize("prune", [False, True])
def test_complete_and_pruned_trials_leave_their_files(
    tiny_config: TrainingConfig, tiny_splits: Splits, prune: bool
) -> None:
    study = optuna.create_study(direction="maximize", pruner=DeterministicPruner(prune))
    store = artifact_store("artifacts")
    impon = tiny_config.model_copy(update={"sampler": "impon"})
    study.optimize(Objective(impon, SPACE, splits=tiny_splits, artifact_store=store), n_trials=1)
    trial = study.trials[0]
    metas = {meta.filename: meta for meta in get_all_artifact_meta(trial, storage=study._storage)}
    assert {name: meta.mimetype for name, meta in metas.items()} == KINDS
    read = {
        name: (Path("artifacts") / meta.artifact_id).read_bytes() for name, meta in metas.items()
    }
    rows = list(csv.DictReader(io.StringIO(read[CURVE].decode())))
    assert [float(row["val_accuracy"]) for row in rows] == list(trial.intermediate_values.values())
    assert "class_balance" in rows[0]
    said = tomllib.loads(read[SETTINGS].decode())
    assert said["lr"] == trial.params["lr"]
    assert said["sampler"] == "impon"
    Image.open(io.BytesIO(read[IMAGES])).verify()
    classes = list(csv.DictReader(io.StringIO(read[CLASS_PICKS].decode())))
    assert len(classes) == 10
    assert list(classes[0])[2:] == [f"epoch_{row['epoch']}" for row in rows]
    assert sum(map(len, read.values())) < 150_000


def test_what_is_attached_already_is_not_attached_again(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    """A worker may be lost between its last file and the end of its trial."""
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    run = TrainingRun(tiny_config.model_copy(update={"epochs": 1}), tiny_splits)
    run.train_epoch()
    for _ in range(2):
        upload_files(trial, artifact_store("artifacts"), run)
    metas = get_all_artifact_meta(trial)
    assert sorted(meta.filename for meta in metas) == sorted(KINDS)
    assert len(list(Path("artifacts").iterdir())) == len(KINDS)


def test_picks_are_those_of_the_run(tiny_config: TrainingConfig, tiny_splits: Splits) -> None:
    run = TrainingRun(tiny_config, tiny_splits)
    for _ in range(2):
        run.train_epoch()
    picks = picks_of(run)
    n_picked = 2 * run.steps_per_epoch * tiny_config.batch_size
    assert picks.visits.sum() == n_picked
    by_class = [int(picks.visits[picks.labels == label].sum()) for label in range(10)]
    assert [sum(counts) for counts in zip(*picks.class_picks, strict=True)] == by_class
    assert (
        picks.read(picks.labels[:2]) == tiny_splits.train.images[picks.labels[:2].tolist()].numpy()
    ).all()


def test_settings_can_be_pasted_into_a_study_file() -> None:
    options = {"bank_size": 200, "standardise": True}
    given = {"lr": 0.25, "data_dir": '/a \\ "b"', "reference_options": {"folds": 2, "width": 4}}
    config = training_config(given).model_copy(update={"sampler_options": options})
    read = tomllib.loads(settings_text(config))
    assert training_config(read | {"sampler_options": {}}) == training_config(given)
    assert read["sampler_options"] == options
    assert "# subset: not given" in settings_text(config)


ODD = ("two\nlines", "caf\udce9", "$x_{", "\U0001f600")
"""Names of folders that a disk can have."""


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_images_and_names_of_any_kind_leave_all_files(
    tiny_config: TrainingConfig, channels: int, said: list[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 8, 8, channels), dtype=np.uint8)
    data = ImageData(pixels, np.arange(200) % len(ODD), class_names=ODD)
    config = tiny_config.model_copy(update={"subset": None, "epochs": 1, "data_dir": "caf\udce9"})
    splits = split_data(data, config, torch.device("cpu"))
    study = optuna.create_study(direction="maximize")
    store = artifact_store("artifacts")
    study.optimize(Objective(config, SPACE, splits=splits, artifact_store=store), n_trials=1)
    assert study.best_value == study.trials[0].intermediate_values[1]
    assert said == []
    metas = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert {meta.filename for meta in metas} == set(KINDS)
    (table,) = (meta for meta in metas if meta.filename == CLASS_PICKS)
    text = Path("artifacts", table.artifact_id).read_text()
    names = [row["class"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert names == ["two\\nlines", "caf\\udce9", "$x_{", "\U0001f600"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bucket, and no pause before a store is asked again."""
    from moto import mock_aws

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("optuna.artifacts._backoff.time.sleep", lambda seconds: None)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="ours")
        yield "s3://ours"


def no_bucket() -> None:
    boto3.client("s3").delete_bucket(Bucket="ours")


def no_folder() -> None:
    shutil.rmtree("artifacts")
    Path("artifacts").write_text("a file where the folder was")


@pytest.mark.parametrize(
    ("place", "lose", "reason"),
    [
        ("artifacts", no_folder, "NotADirectoryError: [Errno 20]"),
        ("s3://ours", no_bucket, "NoSuchBucket: An error occurred (NoSuchBucket)"),
    ],
)
@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.usefixtures("bucket")
def test_a_store_that_is_gone_costs_no_trial(
    tiny_config: TrainingConfig,
    tiny_splits: Splits,
    place: str,
    lose: Callable[[], None],
    reason: str,
    reads: bool,
    said: list[str],
) -> None:
    store = artifact_store(place)
    lose()
    study = optuna.create_study(direction="maximize")
    sampler = "impon-memory" if reads else "uniform"
    config = tiny_config.model_copy(update={"sampler": sampler, "lr": 0.05})
    objective = Objective(config, {}, splits=tiny_splits, artifact_store=store)
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.value == trial.intermediate_values[config.epochs]
        assert trial.user_attrs[COST] > 0
        for name in KINDS:
            told = f"{name} of trial {trial.number} could not be attached: {reason}"
            assert any(line.startswith(told) for line in said), said
    assert all(line.endswith("The trial's value stands.") for line in said if "attached" in line)
    kept = [line for line in said if "could not be put into the artifact store" in line]
    assert len(kept) == reads
    assert (USED in study.trials[1].user_attrs) == reads


def test_a_disk_with_room_for_little_gets_the_small_files(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    def with_little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
        study = optuna.create_study(direction="maximize")
        store = artifact_store("artifacts")
        study.optimize(Objective(tiny_config, SPACE, splits=tiny_splits, artifact_store=store), 1)
        (trial,) = study.trials
        metas = get_all_artifact_meta(trial, storage=study._storage)
        os.write(2, f"{trial.state.name} {sorted(meta.filename for meta in metas)}".encode())

    child = Forked(with_little_room)
    assert child.wait() == 0, child.said
    assert f"{IMAGES} of trial 0 could not be attached" in child.said
    assert "File too large" in child.said
    assert f"COMPLETE {sorted(KINDS.keys() - {IMAGES})}" in child.said


def checkpoints_here(*, store: ArtifactStore | None = None, **options: Any) -> Checkpoints:
    return Checkpoints(Path("checkpoints"), best=Path("best"), store=store, **options)


def complete(study: optuna.Study, *values: float, checkpoints: Checkpoints) -> None:
    """Add complete trials of these values, each with a checkpoint."""
    for value in values:
        study.add_trial(optuna.trial.create_trial(value=value))
        checkpoints.of(study, len(study.trials) - 1).save({"value": value})


def kept_of(study: optuna.Study, checkpoints: Checkpoints) -> list[int]:
    return [at for at in range(len(study.trials)) if checkpoints.of_finished(study, at)]


def test_checkpoint_of_the_best_complete_trial_stays_until_a_better_one_is_complete() -> None:
    checkpoints, study = checkpoints_here(), optuna.create_study(direction="maximize")
    complete(study, 0.2, 0.4, 0.4, checkpoints=checkpoints)
    before = study.get_trials()
    checkpoints.delete_finished(study, before)
    assert kept_of(study, checkpoints) == [1]
    complete(study, 0.3, 0.5, checkpoints=checkpoints)
    checkpoints.delete_finished(study, study.get_trials())
    assert kept_of(study, checkpoints) == [4]
    assert not list(Path("checkpoints").iterdir())
    assert checkpoints.numbers(study) == set()  # none that would go on
    checkpoints.delete_finished(study, before)  # another worker, which has looked before
    assert kept_of(study, checkpoints) == [4]
    kept = checkpoints.of_finished(study, 4)
    assert kept is not None
    assert torch.load(kept.path)["rest"]["value"] == 0.5


def test_best_checkpoint_takes_no_room_from_those_that_wait() -> None:
    study = optuna.create_study(direction="maximize")
    checkpoints = checkpoints_here(budget=1)
    complete(study, 0.2, checkpoints=checkpoints)
    assert checkpoints.excess() > 0
    checkpoints.delete_finished(study, study.get_trials())
    assert checkpoints.excess() == -1


def test_studies_that_share_a_folder_keep_one_each_and_without_one_none_is_kept() -> None:
    checkpoints = checkpoints_here()
    studies = [optuna.create_study(direction="maximize") for _ in range(2)]
    for study in studies:
        complete(study, 0.2, 0.1, checkpoints=checkpoints)
        checkpoints.delete_finished(study, study.get_trials())
    assert [kept_of(study, checkpoints) for study in studies] == [[0], [0]]
    none = Checkpoints(Path("other"))
    complete(studies[0], 0.9, checkpoints=none)
    none.delete_finished(studies[0], studies[0].get_trials())
    assert not list(Path("other").iterdir())


def test_store_has_the_best_one_and_gives_it_to_another_machine() -> None:
    store = artifact_store("shared")
    here, study = checkpoints_here(store=store), optuna.create_study(direction="maximize")
    complete(study, 0.4, checkpoints=here)
    here.delete_finished(study, study.get_trials())
    complete(study, 0.6, checkpoints=here)
    here.delete_finished(study, study.get_trials())
    assert len(list(Path("shared").iterdir())) == 1
    there = Checkpoints(Path("there"), best=Path("there/best"), store=store)
    assert there.of_finished(study, 0) is None
    fetched = there.of_finished(study, 1)
    assert fetched is not None
    assert torch.load(fetched.path)["rest"]["value"] == 0.6


def test_best_checkpoint_that_cannot_be_kept_costs_nothing_else(said: list[str]) -> None:
    checkpoints, study = checkpoints_here(), optuna.create_study(direction="maximize")
    Path("best").write_text("in the way")
    complete(study, 0.4, checkpoints=checkpoints)
    checkpoints.delete_finished(study, study.get_trials())
    (line,) = said
    assert "The checkpoint of trial 0, the best, could not be kept" in line
    assert not list(Path("checkpoints").iterdir())
