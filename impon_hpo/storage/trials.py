"""What tuning leaves and reporting reads: a study's identity, and the record of each trial."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.errors import NothingYetError, as_typed
from impon_hpo.settings import metric_words

# User attributes of a study.
IDENTITY = "impon:identity"  # what must be the same when a study is continued
UID = "impon:uid"  # tells it from a study of the same name in another storage
QUESTION = "impon:question"
COMMAND = "impon:command"  # study, settings and storage as the user last gave them
REFERENCE = "impon:reference:"  # followed by its key: what a reference is and cost
ENVIRONMENTS = "impon:environments"  # versions and hardware, one entry for each that took part
LABELS = "impon:labels"  # what `labels` has found: a sentence, and the artifact of its picture
WANTED = "impon:wanted"  # of a comparison: how many runs a study is to have
# User attributes of a trial.
EPOCH = "impon:epoch:"  # followed by its number: the fields of EpochResult, and what was wasted
EPOCHS = "impon:epochs"  # of studies before 0.2: all epochs in one list
COST = "impon:cost"  # forward-equivalents spent, of a trial that has ended
REASON = "impon:reason"  # why a trial was pruned or failed
USED = "impon:reference"  # key of the reference that a trial used
PRUNED = "impon:pruned"  # that the pruner has decided, and why: a pruner says so only once
UNTIL = "impon:until"  # of halving that promotes: the epoch that it may train to before it waits
FROM = "impon:from"  # of a trial that was enqueued from an earlier study: its study and trial
WORKER = "impon:worker"  # which process is at it; {} when none is
RECORDED = "impon:recorded"  # of a comparison: block, configuration, reference_cost, …
WASTED = "impon:wasted"  # of studies before 0.2: epochs, cost and seconds spent again

IMAGES = "which_images.png"
"""The file of a trial that shows which images it picked most and never."""

LABELS_PICTURE = "labels.png"
"""The file, in runs/<study> and with a study, that shows the images whose labels look wrong."""

CLASS_PICKS = "class_picks.csv"
"""The file of a trial that says how often it picked each class in each epoch."""

EPOCH_SECONDS = ("seconds_drawing", "seconds_stepping", "seconds_validating")
"""The fields of an epoch that differ from machine to machine."""

INTERRUPTED = "interrupted"
"""The reason of a trial that was stopped from outside: it does not count as finished."""


NO_REASON = "no reason is recorded: it was ended from outside"
"""The reason of a trial that failed otherwise than in a worker or an `Objective`."""


@dataclass(frozen=True)
class TrialRecord:
    """What one trial was and came to.

    Args:
        number: Optuna's number.
        state: COMPLETE, PRUNED, FAIL, RUNNING or WAITING.
        params: The configuration that was tried.
        value: Validation accuracy (or what else `metric` says) after the last epoch, or None.
        epochs: One mapping an epoch, with the fields of `EpochResult`, in order.
        cost: Forward-equivalents spent.
        horizon: Epochs that it would have had without pruning.
        reason: Why it was pruned or failed, or "".
        reference: Key of the reference that it used, or "".
        seconds: From start to end, or None while it runs.
        wasted_epochs: Epochs that were lost with a checkpoint and trained again.
        wasted_cost: Forward-equivalents of those.
        wasted_seconds: Seconds of those.
        until: Of halving that promotes, the epoch that it may train to before it waits; 0: none.
        origin: The trial of an earlier study that it was enqueued from, in words, or "".
        reported: What its pruner has seen, by epoch: the accuracy, or what else `report` says.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epochs: list[dict[str, Any]]
    cost: float
    horizon: int
    reason: str
    reference: str
    seconds: float | None
    wasted_epochs: int = 0
    wasted_cost: float = 0.0
    wasted_seconds: float = 0.0
    until: int = 0
    origin: str = ""
    reported: Mapping[int, float] = field(default_factory=dict)

    @property
    def paused(self) -> bool:
        """Whether it waits at its rung until it is promoted."""
        return self.state == "WAITING" and 0 < self.until <= len(self.epochs)

    @property
    def finished(self) -> bool:
        """Whether it counts towards the number of trials asked for."""
        return _counts(self.state, self.reason)

    @property
    def fate(self) -> str:
        """What became of it: complete, pruned, diverged, failed, running or waiting."""
        if self.state == "PRUNED":
            return "pruned" if self._stopped_by_pruner else "diverged"
        return "failed" if self.state == "FAIL" else self.state.lower()

    @property
    def unpruned_epochs(self) -> int:
        """Epochs that it would have had without a pruner; diverged and failed trials would have
        ended where they did."""
        return self.horizon if self._stopped_by_pruner else len(self.epochs)

    @property
    def _stopped_by_pruner(self) -> bool:
        # The epoch in which a loss diverges has a cost, but no result.
        costs = sum(epoch["cost"] for epoch in self.epochs)
        pruned = self.state == "PRUNED" and bool(self.epochs) and costs == self.cost
        return pruned or self.paused

    @property
    def unpruned_cost(self) -> float:
        """Forward-equivalents that it would have cost without a pruner."""
        if not self._stopped_by_pruner:
            return self.cost
        return self.cost / len(self.epochs) * self.horizon


def epochs_of(attributes: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return what a trial's user attributes hold of its epochs, by number, in order.

    An epoch that was lost with a checkpoint and trained again has an entry `wasted`: the epochs,
    cost and seconds that this took.
    """
    listed = dict(enumerate(attributes.get(EPOCHS, ()), start=1))
    single = {
        int(key.removeprefix(EPOCH)): epoch
        for key, epoch in attributes.items()
        if key.startswith(EPOCH)
    }
    return dict(sorted((listed | single).items()))


def wasted_again(epoch: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entry `wasted` of an epoch that is trained once more; `epoch` is what is recorded
    of the time before, None where nothing is: then there is no such entry."""
    if epoch is None:
        return {}
    before = epoch.get("wasted", {"epochs": 0, "cost": 0, "seconds": 0.0})
    return {
        "wasted": {
            "epochs": before["epochs"] + 1,
            "cost": before["cost"] + epoch["cost"],
            "seconds": before["seconds"] + seconds_of(epoch),
        }
    }


def seconds_of(epoch: Mapping[str, Any]) -> float:
    """Return the seconds that an epoch took: of drawing, stepping and validating."""
    return float(sum(epoch[key] for key in EPOCH_SECONDS))


def flat_epoch(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an epoch's fields as one row of a table: each diagnostic in a column of its own."""
    nested = ("diagnostics", "wasted")
    return {key: value for key, value in epoch.items() if key not in nested} | dict(
        epoch["diagnostics"]
    )


def is_finished(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the number of trials asked for."""
    return _counts(trial.state.name, trial.user_attrs.get(REASON, ""))


def _counts(state: str, reason: str) -> bool:
    return state in ("COMPLETE", "PRUNED") or (state == "FAIL" and reason != INTERRUPTED)


def read_trial(trial: FrozenTrial, horizon: int) -> TrialRecord:
    """Read one trial of a study whose trials have `horizon` epochs."""
    recorded = epochs_of(trial.user_attrs).values()
    epochs = [{key: epoch[key] for key in epoch if key != "wasted"} for epoch in recorded]
    wasted = [epoch["wasted"] for epoch in recorded if "wasted" in epoch]
    wasted += [trial.user_attrs[WASTED]] if WASTED in trial.user_attrs else []
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        params=trial.params,
        value=_value(trial, epochs),
        epochs=epochs,
        # Written when a trial ends, since every write costs as much as deciding whether to prune.
        cost=max(trial.user_attrs.get(COST, 0), sum(epoch["cost"] for epoch in epochs)),
        horizon=horizon,
        reason=trial.user_attrs.get(REASON) or NO_REASON * (trial.state == TrialState.FAIL),
        reference=trial.user_attrs.get(USED, ""),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        wasted_epochs=sum(entry["epochs"] for entry in wasted),
        wasted_cost=sum(entry["cost"] for entry in wasted),
        wasted_seconds=sum(entry["seconds"] for entry in wasted),
        until=trial.user_attrs.get(UNTIL, 0),
        origin=_origin(trial.user_attrs.get(FROM)),
        reported=trial.intermediate_values,
    )


def _origin(earlier: Mapping[str, Any] | None) -> str:
    return "" if earlier is None else f"{earlier['study']} trial {earlier['trial']}"


def _value(trial: FrozenTrial, epochs: Sequence[Mapping[str, Any]]) -> float | None:
    # Of a pruned trial, Optuna's value is its last report, which may be a loss.
    if trial.state == TrialState.PRUNED and epochs:
        return float(epochs[-1]["val_accuracy"])
    return trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None


@dataclass(frozen=True)
class StudyRecord:
    """What one study (one arm) in a storage was and came to.

    Args:
        optuna_study: Optuna's study.
        identity: What was asked for: study, arm, seed, pruner, study sampler, run and space.
        question: What the study is to answer.
        command: `study`, `settings` (of --set) and `storage` (or None) as last given to `tune`.
        environments: Versions and hardware of those who took part.
        references: What earlier training learnt about the rows, by key: maker, cost, settings.
        trials: Its trials in the order of their numbers.
        n_wanted: Of a comparison, how many runs it is to have.
        labels: What `impon-hpo labels` has found: sentence, and id of an artifact or None; or None.
    """

    optuna_study: optuna.Study
    identity: dict[str, Any]
    question: str
    command: dict[str, Any]
    environments: list[dict[str, Any]]
    references: dict[str, dict[str, Any]]
    trials: list[TrialRecord]
    n_wanted: int = 0
    labels: dict[str, Any] | None = None

    @property
    def metric(self) -> str:
        """What its accuracies are, in words, such as "balanced accuracy" or "minus loss"."""
        return metric_words(self.identity["run"].get("metric", "accuracy"))

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the highest validation accuracy, or None."""
        complete = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return max(complete, key=_last_value, default=None)

    @property
    def n_finished(self) -> int:
        """How many trials count towards the number asked for."""
        return sum(trial.finished for trial in self.trials)

    def count(self, state: str) -> int:
        """Return how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)


def _last_value(trial: TrialRecord) -> float:
    return -math.inf if trial.value is None else trial.value


def read_studies(storage: BaseStorage, study: str) -> list[StudyRecord]:
    """Read every arm of study `study` that the storage holds.

    Raises:
        NothingYetError: It holds none.
    """
    records = _read_all(storage, study)
    if not records:
        raise NothingYetError(
            f"The storage holds nothing of study '{study}' yet: "
            f"run `{as_typed('impon-hpo tune')}` first."
        )
    return records


def read_comparison(storage: BaseStorage, study: str) -> list[StudyRecord]:
    """Read the trainings of the comparison of `study` that the storage holds, if it holds any."""
    records = _read_all(storage, f"{study} compare")
    return [record for record in records if record.n_wanted]  # others are being opened just now


def read_arms_and_comparison(
    storage: BaseStorage, study: str
) -> tuple[list[StudyRecord], list[StudyRecord]]:
    """Read every arm of study `study`, and the trainings of its comparison; either may be empty.

    Raises:
        NothingYetError: The storage holds neither.
    """
    comparison = read_comparison(storage, study)
    try:
        return read_studies(storage, study), comparison
    except NothingYetError:
        if not comparison:
            raise
        return [], comparison


def _read_all(storage: BaseStorage, study: str) -> list[StudyRecord]:
    # All attributes at once: the studies of a comparison are many, and mostly not meant.
    names = [
        summary.study_name
        for summary in storage.get_all_studies()
        if summary.user_attrs.get(IDENTITY, {}).get("study") == study
    ]
    return [read_study(optuna.load_study(study_name=name, storage=storage)) for name in names]


def read_study(study: optuna.Study, trials: Sequence[FrozenTrial] | None = None) -> StudyRecord:
    """Read one study that impon-hpo made; `trials` are its own, where they have just been read."""
    attributes = study.user_attrs  # which asks the storage every time
    if trials is None:
        trials = study.get_trials(deepcopy=False)
    identity = attributes[IDENTITY]
    horizon = identity["run"]["epochs"]
    return StudyRecord(
        optuna_study=study,
        identity=identity,
        question=attributes.get(QUESTION, ""),
        command=attributes.get(
            COMMAND, {"study": identity["study"], "settings": [], "storage": None}
        ),
        environments=attributes.get(ENVIRONMENTS, []),
        references={
            key.removeprefix(REFERENCE): value
            for key, value in attributes.items()
            if key.startswith(REFERENCE)
        },
        trials=[read_trial(trial, horizon) for trial in trials],
        n_wanted=attributes.get(WANTED, 0),
        labels=attributes.get(LABELS),
    )


def space_words(entry: str) -> str:
    """Return a setting that is searched over, given as the JSON text that an identity has of it,
    for people to read: "float low 0.001, high 0.5, log True, when optimizer is sgd or adam"."""
    words = json.loads(entry)
    listed = [
        f"{key} {value}"
        for key, value in words["attributes"].items()
        if value is not None and value is not False
    ]
    for name, values in words.get("when", {}).items():
        listed.append(f"when {name} is {' or '.join(map(str, values))}")
    kind = words["name"].removesuffix("Distribution").lower()
    return f"{kind} {', '.join(listed)}"
