"""The files that a trial leaves in the artifact store, for people who would rather look."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import get_all_artifact_meta, upload_artifact

from impon_hpo.csv_table import csv_text
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import IMAGES, flat_epoch
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.run import TrainingRun
from impon_hpo.tuning.diagnostics_picture import diagnostics_picture
from impon_hpo.tuning.picks_picture import Picks, picks_picture

CURVE = "learning_curve.csv"
SETTINGS = "settings.txt"
DIAGNOSTICS = "sampler_diagnostics.png"


def upload_files(
    trial: optuna.Trial, store: ArtifactStore, run: TrainingRun, results: Sequence[EpochResult]
) -> None:
    """Attach what the trial has not attached already, while it is not finished yet.

    The learning curve as a table, the resolved settings, the batch sampler's diagnostics over the
    epochs, and which images were picked most and never, some 100 kB in all.

    Args:
        trial: The trial.
        store: Where the files go.
        run: Its training run.
        results: The epochs that count, at least one.
    """
    there = {meta.filename for meta in get_all_artifact_meta(trial)}
    number, sampler = trial.number, run.config.sampler
    rows = [flat_epoch(dataclasses.asdict(result)) for result in results]
    drawn = [{"share_seen": row.share_seen} | row.diagnostics for row in results]
    files: dict[str, tuple[str, Callable[[Path], object]]] = {
        CURVE: ("text/csv", lambda path: path.write_text(csv_text(rows))),
        SETTINGS: ("text/plain", lambda path: path.write_text(settings_text(run.config))),
        DIAGNOSTICS: (
            "image/png",
            diagnostics_picture(f"trial {number}: batch sampler {sampler}", drawn).save,
        ),
        IMAGES: (
            "image/png",
            picks_picture(f"trial {number}: what {sampler} has picked", picks_of(run)).save,
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, write) in files.items():
            if name not in there:
                path = Path(folder) / name
                write(path)
                upload_artifact(
                    artifact_store=store, file_path=str(path), study_or_trial=trial, mimetype=kind
                )


def picks_of(run: TrainingRun) -> Picks:
    """Return what a run has picked so far, as plain arrays; waits for the device."""
    train = run.splits.train
    return Picks(
        visits=run.sampler.visits().cpu().numpy(),
        labels=train.labels.cpu().numpy(),
        class_names=run.splits.class_names,
        class_picks=run.class_picks,
        read=lambda rows: train.images[rows.tolist()].cpu().numpy(),
    )


def settings_text(config: TrainingConfig) -> str:
    """Return settings as `[run]` of a study file would have them."""
    lines = []
    for key, value in config.model_dump().items():
        lines.append(f"# {key}: not given" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return json.dumps(value, ensure_ascii=False)
