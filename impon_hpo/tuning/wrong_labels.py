"""Wrong labels: which images look mislabelled, by what a training run saw of them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import optuna
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError, describing
from impon_hpo.files import csv_text, write_file
from impon_hpo.sampling.doubts import SEPARATION, doubts_of
from impon_hpo.sampling.reference import Reference
from impon_hpo.settings import metric_words
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import LABELS, LABELS_PICTURE
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.reference_folder import KeptReference, References
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits, load_splits
from impon_hpo.training.training_run import TrainingRun, epochs_left
from impon_hpo.tuning.artifacts import upload
from impon_hpo.tuning.contact_sheet import png, sheet
from impon_hpo.tuning.study_file import StudyFile

log = logging.getLogger("impon_hpo")

PICTURED = 40
"""Images on the contact sheet."""

COLUMNS = ("file", "given", "likely", "wrong_probability", "label")


@dataclass(frozen=True)
class Judgement:
    """Which of n labels look wrong.

    Args:
        probability: (n,) float32, 0 … 1, of each label to be wrong.
        likely: (n,) int64, the most probable class other than the given one.
        order: (n,) int64, the rows, worst first.
        separation: Ashman's D of the two Gaussians.
        noticed: Whether the losses have two peaks, and those of the upper one are of wrong labels.
        share: Estimated share of wrong labels, 0 … 1.
        error: Its standard error.
    """

    probability: Tensor
    likely: Tensor
    order: Tensor
    separation: float
    noticed: bool
    share: float
    error: float

    @property
    def tells(self) -> bool:
        """Whether wrong labels can be told from hard images: they are noticed, and their share is
        greater than its error."""
        return self.noticed and self.share > self.error


def judge(reference: Reference, labels: Tensor) -> Judgement:
    """Judge the labels (n,) of rows by what a run saw of them.

    `doubts_of` says how probably each label is wrong (Arazo et al., 2019, for the mixture). A row
    of which the net finds the given class the most probable all the same is hard and not wrong. The
    share is the middle between what that counts, and what confident learning counts; how far they
    lie apart, and how many hard rows the upper group has beside, is the greater part of the error
    that is told.

    Example:
        >>> import torch
        >>> from impon_hpo import Reference
        >>> from impon_hpo.tuning.wrong_labels import judge
        >>> labels = torch.arange(100) % 2
        >>> shown = torch.where(torch.arange(100) >= 90, 1 - labels, labels)  # ten labels are wrong
        >>> surely = torch.linspace(0.8, 0.95, 100)
        >>> probabilities = torch.stack([surely, surely], dim=1)
        >>> probabilities[torch.arange(100), 1 - shown] = 1 - surely
        >>> loss = -probabilities[torch.arange(100), labels].log()
        >>> judgement = judge(Reference(loss, probabilities), labels)
        >>> judgement.tells, round(judgement.share, 2), sorted(judgement.order[:10].tolist())
        (True, 0.1, [90, 91, 92, 93, 94, 95, 96, 97, 98, 99])
    """
    doubts = doubts_of(reference, labels)
    of_given = reference.probabilities.gather(1, labels[:, None])
    highest, likely = reference.probabilities.scatter(1, labels[:, None], -1.0).max(1)
    probability = torch.where(highest > of_given[:, 0], doubts.probability, 0.0)
    by_loss = reference.loss.argsort(descending=True, stable=True)
    order = by_loss[probability[by_loss].argsort(descending=True, stable=True)]
    counted = float(probability.double().mean())
    confident = confident_share(reference.probabilities, labels)
    share = (counted + confident) / 2
    by_chance = math.sqrt(share * (1 - share) / max(1, len(labels)))
    return Judgement(
        probability=probability,
        likely=likely,
        order=order,
        separation=float(doubts.separation),
        noticed=bool(doubts.noticed),
        share=share,
        error=math.hypot(by_chance, (confident - counted) / 2, float(doubts.share) - counted),
    )


def confident_share(probabilities: Tensor, labels: Tensor) -> float:
    """Return the share of labels (n,) that confident learning counts as wrong (Northcutt et al.,
    2021): those of rows that are at least as surely of another class as the rows of that class are
    on average. `probabilities` are (n, n_classes)."""
    n_rows = labels.bincount(minlength=probabilities.shape[1])
    of_given = probabilities.gather(1, labels[:, None])[:, 0]
    usual = torch.zeros_like(probabilities[0]).index_add_(0, labels, of_given) / n_rows
    # A class without rows has no mean, and nothing is as sure of it.
    surely = torch.where(probabilities >= usual, probabilities, -1.0)
    highest, other = surely.max(1)
    return float(((highest >= 0) & (other != labels)).double().mean())


def find_wrong_labels(
    study_file: StudyFile, config: TrainingConfig, *, every: bool = False, n_shown: int = 20
) -> dict[str, Any]:
    """Judge the labels of a study, write `labels.csv` and `labels.png` into its folder in `runs`,
    and return the facts as plain JSON values.

    What the first trial of an arm with a memory saw of the training rows is used where it is kept.
    Otherwise `config` is trained first, uniformly; that run judges the validation rows, too. The
    same call continues it, and finds it when it is finished.

    Args:
        study_file: The study.
        config: The run that is trained if need be.
        every: List all rows, not only those that look wrong.
        n_shown: How many rows, worst first, are among the facts.

    Raises:
        ConfigError: `labels.csv` has been edited: it would be lost.
        ImponHpoError: The data or the settings are wrong, or training diverged.
    """
    table = study_file.runs / "labels.csv"
    _check_not_edited(table)
    splits = load_splits(config, find_device(config.device))
    kept = _kept_reference(study_file, splits)
    if kept is None:
        source = f"a uniform run of {config.epochs} epochs"
        parts = [splits.train, splits.validation]
        reference = watch(uniformly(config), splits, study_file.runs)
    else:
        source, parts, reference = "the study's first complete trial", [splits.train], kept
    labels = torch.cat([part.labels for part in parts])
    names = [name for part in parts for name in part.names]
    judgement = judge(reference, labels)
    probability = judgement.probability.tolist()
    worst = judgement.order.tolist()
    if not every:
        worst = [row for row in worst if judgement.tells and probability[row] > 0.5]
    given = [splits.class_names[label] for label in labels.tolist()]
    likely = [splits.class_names[label] for label in judgement.likely.tolist()]
    looks_wrong = [given[row] for row in worst if probability[row] > 0.5]
    unlearnt = _unlearnt(looks_wrong, given) if judgement.tells else set(given)
    lines = [
        {
            "file": names[row],
            "given": given[row],
            "likely": likely[row],
            "wrong_probability": None if given[row] in unlearnt else round(probability[row], 4),
            "label": given[row],
        }
        for row in worst
    ]
    write_file(table, csv_text(lines, COLUMNS))
    facts: dict[str, Any] = {
        "study": study_file.name,
        "judged_by": source,
        "training_rows": len(splits.train),
        "validation_rows": len(labels) - len(splits.train),
        "separation": judgement.separation,
        "tells": judgement.tells,
        "share": judgement.share if judgement.tells else None,
        "share_error": judgement.error if judgement.tells else None,
        "listed": len(worst),
        "csv": str(table),
        "picture": None,
        "worst": lines[:n_shown],
    }
    facts["sentence"] = _sentence(facts, judgement)
    if judgement.tells and unlearnt:
        listed = ", ".join(f"'{name}'" for name in sorted(unlearnt))
        facts["sentence"] += (
            f" Of class {listed} more than half look wrong: perhaps the net has not learnt it."
        )
    picture = study_file.runs / LABELS_PICTURE
    picture.unlink(missing_ok=True)  # an old one would show what is not listed
    if worst:
        with describing(f"Picture '{picture}' could not be drawn", "The table stands."):
            captions = list(zip(given, likely, names, strict=True))
            _draw(study_file.name, picture, parts, worst, captions)
            facts["picture"] = str(picture)
    return facts


def attach(study: optuna.Study, facts: dict[str, Any], store: ArtifactStore) -> None:
    """Leave the finding and its picture with an arm's study, for the note of the dashboard."""
    artifact = None
    if facts["picture"] is not None:
        picture = Path(facts["picture"])
        artifact = upload(study, store, picture.name, "image/png", picture.read_bytes())
    study.set_user_attr(LABELS, {"sentence": facts["sentence"], "artifact": artifact})


def _sentence(facts: dict[str, Any], judgement: Judgement) -> str:
    rows = facts["training_rows"] + facts["validation_rows"]
    if judgement.tells:
        return (
            f"About {judgement.share:.1%} (± {judgement.error:.1%}) of {rows:,} labels look wrong, "
            f"by {facts['judged_by']}; {facts['listed']:,} rows are listed, hard ones among them."
        )
    if judgement.separation <= SEPARATION:
        reason = (
            "the losses of wrong and right labels would have two peaks, but theirs lie only "
            f"{judgement.separation:.2f} apart (needed: {SEPARATION:g})"
        )
    elif judgement.noticed:
        reason = f"the share of wrong ones would be {judgement.share:.1%} ± {judgement.error:.1%}"
    else:
        reason = "of the rows with high losses it finds no other class much more likely"
    return (
        f"Nothing can be told of {rows:,} labels by {facts['judged_by']}: {reason}. Either few "
        "labels are wrong, or the net is too weak."
        + ("" if facts["listed"] else " No label is called wrong; --all lists every row.")
    )


def _unlearnt(wrong: Sequence[str], given: Sequence[str]) -> set[str]:
    """Return the classes of which most rows look wrong."""
    sizes = Counter(given)
    return {name for name, count in Counter(wrong).items() if count > sizes[name] / 2}


def _check_not_edited(table: Path) -> None:
    """Raise `ConfigError` where a person has edited the table, which would be lost."""
    try:
        rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig")))
        edited = tuple(rows.fieldnames or ()) != COLUMNS or any(
            row["label"] != row["given"] for row in rows
        )
    except FileNotFoundError:
        return
    except (UnicodeDecodeError, csv.Error):  # as a spreadsheet has saved it
        edited = True
    if edited:
        raise ConfigError(
            f"'{table}' has been edited, and would be overwritten. Move it beside study.toml, and "
            'set relabel = "labels.csv" in [run] to train with it.'
        )


def _kept_reference(study_file: StudyFile, splits: Splits) -> Reference | None:
    """Return what the first trial of an arm with a memory saw of these rows, if it is here."""
    references = References(study_file.runs / "references")
    for config in study_file.arms.values():
        if config.reference == "prequential" and wants_reference(config):
            path = references.path(references.key(config, splits))
            if path.exists():
                return KeptReference.load(path, splits).reference
    return None


class _WatchedRun(TrainingRun):
    """A run that also remembers what it predicts of the validation rows after each epoch.

    They stand behind the training rows in its memory.
    """

    memory: RowMemory

    def train_epoch(self, between_steps: Callable[[], None] | None = None) -> EpochResult:
        result = super().train_epoch(between_steps)
        validation = self.splits.validation
        logits = torch.cat([part for part, _ in self.predictions(validation)])
        rows = torch.arange(len(validation), device=self.device) + len(self.splits.train)
        self.memory.add(rows, logits)
        return result


def watch(config: TrainingConfig, splits: Splits, folder: Path) -> Reference:
    """Train `config`, or continue its run, and return what it has seen of the training rows and,
    behind them, of the validation rows.

    Args:
        config: The settings.
        splits: The data.
        folder: Where the run is saved; what other data or settings have left there is deleted.

    Raises:
        CheckpointError: The run cannot be saved or read.
        NonFiniteLossError: Training diverged.
    """
    train, validation = splits.train, splits.validation
    memory = RowMemory(torch.cat([train.labels, validation.labels]), splits.n_classes)
    run = _WatchedRun(config, splits, memory)
    data = [splits.fingerprint, dataclasses.replace(splits, train=validation).fingerprint]
    text = json.dumps([config.identity(), data], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    checkpoint = Checkpoint(folder / f"labels-{digest}.pt")
    for path in folder.glob("labels-*.pt"):
        if path != checkpoint.path:
            path.unlink()
    run.continue_from(checkpoint)
    if run.epoch < config.epochs:
        log.info(
            "No trial has kept what it saw of these rows. A uniform run of the middle "
            "configuration is trained first: %d epochs%s.",
            config.epochs,
            f", from epoch {run.epoch + 1} on" if run.epoch else "",
        )
    for result in epochs_left(run, checkpoint):
        log.info(
            f"epoch {result.epoch}/{config.epochs}  val {metric_words(config.metric)} "
            f"{result.val_accuracy:.4f}"
        )
    return memory.reference()


def _draw(
    study: str,
    path: Path,
    parts: Sequence[Split],
    worst: Sequence[int],
    captions: Sequence[tuple[str, str, str]],
) -> None:
    """Draw the worst rows, each with its given and its likely label, and its file."""
    shown = list(worst[:PICTURED])
    places = [(part, row) for part in parts for row in range(len(part))]
    images = torch.stack([places[row][0].images[places[row][1]].cpu() for row in shown]).numpy()
    below = [
        (given, f"→ {likely}", PurePath(name).name)
        for given, likely, name in (captions[row] for row in shown)
    ]
    picture = sheet(
        f"{study}: labels that look wrong", [("given label, → likely label, file", images, below)]
    )
    write_file(path, png(picture))
