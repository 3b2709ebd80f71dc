"""Tests of the files that a trial leaves: what they say is what was trained."""

from __future__ import annotations

import csv
import io
import tomllib
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.distributions import FloatDistribution
from optuna.testing.pruners import DeterministicPruner
from PIL import Image

from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import CLASS_PICKS, IMAGES
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.artifacts import (
    CURVE,
    SETTINGS,
    picks_of,
    settings_text,
    upload_files,
)
from impon_hpo.tuning.objective import Objective
from tests.settings import training_config

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
