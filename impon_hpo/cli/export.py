"""The command `export`: the model that a study found, as one file that needs torch only."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.cli.options import (
    Arm,
    Format,
    Formatted,
    Set,
    Storage,
    Study,
    interrupted,
    read_study,
)
from impon_hpo.console import loading, print_json, print_line, print_rows, say
from impon_hpo.errors import CheckpointError, ConfigError, NothingYetError, as_typed
from impon_hpo.files import readable_bytes
from impon_hpo.settings import metric_words

if TYPE_CHECKING:
    from impon_hpo.storage.trials import StudyRecord, TrialRecord
    from impon_hpo.tuning.study_file import StudyFile


def export(
    study: Study,
    to: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, such as model.pt2.")],
    arm: Arm = None,
    trial: Annotated[str, typer.Option(metavar="N", help="Number of a trial, or best.")] = "best",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Any checkpoint instead, such as `train` names it."),
    ] = None,
    storage: Storage = None,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """Write the model of a study's best trial to one file, which any program with torch can load.

    `torch.export.load("model.pt2").module()` takes images (N, C, H, W) uint8, normalises them, and
    returns logits. The file is loaded and run again before this command ends.
    """
    if to.suffix != ".pt2" or to.is_dir():
        raise ConfigError(
            f"--to must name a file that ends with .pt2, as torch.export.load wants it, but got "
            f"'{to}'."
        )
    study_file = read_study(study, settings, check_samplers=False)
    facts: dict[str, Any] = {"study": study_file.name}
    with loading():
        from impon_hpo.training.model_export import export_model, n_bytes
        from impon_hpo.training.trained_model import load_model

        if checkpoint is None:
            record = _record_of(study_file, study_file.arm(arm), storage)
            chosen = _trial_of(record, trial)
            facts |= {
                "arm": record.identity["arm"],
                "trial": chosen.number,
                "params": chosen.params,
            }
            checkpoint = _checkpoint_of(study_file, record, chosen, to)
        facts["checkpoint"] = str(checkpoint)
        model = load_model(checkpoint)
    title = f"{study_file.name}, {_named(facts)}"
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"Exporting {title}: {n_weights:,} weights, at least {readable_bytes(n_bytes(model))}. It "
        "takes seconds, of a large model minutes."
    )
    if model.epoch < model.config.epochs:
        say(f"Warning: it was trained for {model.epoch} of {model.config.epochs} epochs.")
    begun = time.perf_counter()
    try:
        facts = export_model(model, to, facts)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    size = to.stat().st_size
    say(f"Done in {time.perf_counter() - begun:.1f} s, loaded again and compared.")
    if format is Format.json:
        print_json(facts | {"file": str(to), "bytes": size})
        return
    shape = ", ".join(map(str, facts["input"]["shape"]))
    value = f"{facts['value']:.4f} after epoch {facts['epoch']}"
    rows = [
        ("file", f"{to}, {readable_bytes(size)}"),
        ("takes", f"images ({shape}) uint8, 0 … 255, any number of them"),
        ("returns", f"logits (N, {len(facts['classes'])}) float32"),
        ("classes", _listed(facts["classes"])),
        (f"validation {metric_words(facts['metric'])}", value),
    ]
    print_rows(title, rows)
    print_line(f"use it: torch.export.load({str(to)!r}).module()(images)")


def _named(facts: dict[str, Any]) -> str:
    if "trial" in facts:
        return f"arm {facts['arm']}, trial {facts['trial']}"
    return f"checkpoint {facts['checkpoint']}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" … ({len(names)} in all)" if len(names) > 10 else "")


def _record_of(study_file: StudyFile, arm: str, address: str | None) -> StudyRecord:
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_studies

    opened = open_storage(address or study_file.storage, create=False)
    records = {record.identity["arm"]: record for record in read_studies(opened, study_file.name)}
    if arm not in records:
        raise NothingYetError(
            f"The storage holds nothing of arm '{arm}' yet; it has: {', '.join(records)}. Name one "
            "of them with --arm."
        )
    return records[arm]


def _trial_of(record: StudyRecord, trial: str) -> TrialRecord:
    from impon_hpo.reporting.status import tune_command

    arm = record.identity["arm"]
    if trial == "best":
        if record.best is None:
            raise NothingYetError(
                f"No trial of arm '{arm}' is complete yet. Continue the study: "
                f"`{as_typed(tune_command(record))}`."
            )
        return record.best
    if not trial.isdecimal():
        raise ConfigError(f"--trial takes the number of a trial, or best, but got '{trial}'.")
    if int(trial) >= len(record.trials):
        raise ConfigError(
            f"Arm '{arm}' has no trial {trial}: it has {len(record.trials)} trials, numbered from "
            "0."
        )
    chosen = record.trials[int(trial)]
    if not chosen.finished:
        raise ConfigError(
            f"Trial {trial} of arm '{arm}' is not finished: it is {chosen.fate}. Export one that "
            "is, or give a checkpoint with --checkpoint."
        )
    return chosen


def _checkpoint_of(
    study_file: StudyFile, record: StudyRecord, trial: TrialRecord, to: Path
) -> Path:
    """Return the path of a trial's checkpoint; where there is none, say how to come by one."""
    from impon_hpo.reporting.status import train_command
    from impon_hpo.storage.connect import artifact_store
    from impon_hpo.storage.trials import WORKER
    from impon_hpo.tuning.artifacts import Checkpoints
    from impon_hpo.tuning.lease import this_worker
    from impon_hpo.tuning.tune import best_folder, checkpoint_folder, has_own_place

    folder, study = best_folder(study_file), record.optuna_study
    store = artifact_store(study_file.artifacts) if has_own_place(study_file) else None
    checkpoints = Checkpoints(checkpoint_folder(study_file), best=folder, store=store)
    kept = checkpoints.of_finished(study, trial.number)
    if kept is not None:
        return kept.path
    best, arm = record.best, record.identity["arm"]
    if trial.state == "FAIL":
        because = f": {trial.reason}" if trial.reason else "."
        raise ConfigError(
            f"Trial {trial.number} of arm '{arm}' failed, so there is no model of it{because} "
            "Export another one, or give a checkpoint with --checkpoint."
        )
    why = "Of finished trials, only the checkpoint of the best complete one is kept"
    if best is not None and best.number == trial.number:
        why = f"It would be in '{folder}'"
    elif best is not None:
        why += f", which is trial {best.number}"
    signed = study.get_trials(deepcopy=False)[trial.number].user_attrs.get(WORKER) or {}
    place = signed.get("place", "")
    if place and place != this_worker()["place"]:
        why += (
            f"; the trial was trained on machine '{place.split()[0]}', or before a restart: if its "
            f"checkpoint lies there, export it there"
        )
    again = [
        "impon-hpo",
        "export",
        record.command["study"],
        "--checkpoint",
        "FILE",
        "--to",
        str(to),
    ]
    raise CheckpointError(
        f"The checkpoint of trial {trial.number} of arm '{arm}' is not here. {why}. To train it "
        f"again: `{as_typed(train_command(record, trial.params))}`, and then, with the checkpoint "
        f"that it names: `{as_typed(shlex.join(again))}`."
    )
