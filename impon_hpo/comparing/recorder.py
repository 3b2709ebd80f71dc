"""The recorder: it trains the runs of a comparison as studies that never prune."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import BaseStorage

from impon_hpo.comparing.grid import Grid, Key, PlannedRun, Training, study_name
from impon_hpo.errors import CheckpointError, describing
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import RECORDED, WANTED
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.training.reference_folder import References
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits, load_splits
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.algorithms import proposing
from impon_hpo.tuning.artifacts import Checkpoints, upload
from impon_hpo.tuning.job import Job, OnEpoch
from impon_hpo.tuning.resuming import Past, resumed_run
from impon_hpo.tuning.shared_references import SharedReferences
from impon_hpo.tuning.space import suggest
from impon_hpo.tuning.study import open_any_study
from impon_hpo.tuning.trial_training import COMPLETE, DIVERGED, train_trial

STEP_LOSSES = "step_losses.json"
LOSSES_AN_EPOCH = 20
"""How many training losses of an epoch are kept."""

SAVE_SECONDS = 30.0
"""Least time between two checkpoints of a run: most runs are shorter."""


@dataclass
class Recorder:
    """Trains the runs of a grid, whichever of them a worker has claimed.

    Args:
        grid: The grid.
        studies: The study of each training, by name.
        runs: Of each training, the run of each trial number.
        device: Where training happens.
        references: Where what teachers see of the rows is kept.
        artifact_store: Where step losses go.
        checkpoints: Where runs are saved.
    """

    grid: Grid
    studies: Mapping[str, optuna.Study]
    runs: Mapping[str, list[PlannedRun]]
    device: torch.device
    references: SharedReferences
    artifact_store: ArtifactStore
    checkpoints: Checkpoints

    def __post_init__(self) -> None:
        self._loaded: tuple[Any, Splits] | None = None

    def train(self, training: Training, trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        """Train the run of a trial to its end, and record all that a comparison asks of it.

        Raises:
            optuna.TrialPruned: Its loss is no longer finite.
        """
        run = self.runs[training.name][trial.number]
        suggest(trial, self.grid.space, training.config)
        config = self.grid.config(run)
        splits = self.splits(config)
        hidden = self._hidden(splits, config.seed)
        splits, reference_cost = self._taught(run, config, splits)
        teaches = run.configuration == training.teaches
        memory = RowMemory(splits.train.labels, splits.n_classes) if teaches else None
        checkpoint = self.checkpoints.of(trial.study, trial.number)

        def begun() -> TrainingRun:
            made = resumed_run(config, splits, memory, checkpoint)
            facts = {
                "block": run.block,
                "configuration": run.configuration,
                "reference_cost": reference_cost,
                "steps_per_epoch": made.steps_per_epoch,
            }
            trial.set_user_attr(RECORDED, facts)
            return made

        def ended(made: TrainingRun, how: str) -> None:
            # It is heard in any case. Later runs are trained with it: no mere description.
            if memory is not None and how in (COMPLETE, DIVERGED):
                taught = config.model_copy(update={"reference": "prequential"})
                self.references.learn(trial.study, taught, splits, memory, teacher=config)
            what = f"{STEP_LOSSES} of run {trial.number} of {training.name}"
            with describing(f"{what} could not be attached", "The run is recorded."):
                losses = [_thinned(epoch.tolist()) for epoch in made.step_losses]
                text = json.dumps(losses)
                upload(trial, self.artifact_store, STEP_LOSSES, "application/json", text)

        made = train_trial(
            trial,
            begun,
            past=Past.of(trial),
            checkpoint=checkpoint,
            ended=ended,
            on_epoch=on_epoch,
            measure=functools.partial(self._looks, training, hidden),
            save_seconds=SAVE_SECONDS,
            prunes=False,
        )
        return made.results[-1].val_accuracy

    def _taught(
        self, run: PlannedRun, config: TrainingConfig, splits: Splits
    ) -> tuple[Splits, int]:
        """Return the data with the reference that a run reads, if it does, and what that cost."""
        if not wants_reference(config):
            return splits, 0
        teacher = self.grid.teacher(run.training, run.block)
        # What is not learnt from a run of the grid is charged to one study.
        home = self.studies[teacher.training.name if teacher else self.grid.trainings[0].name]
        settings = None if teacher is None else self.grid.config(teacher)
        kept = self.references.find(home, config, splits, teacher=settings)
        if kept is None:  # it was there when its teacher ended
            raise CheckpointError(
                f"'{run.training.name}' learns from a run that is done, but what that run has seen "
                "of the rows is neither in the folder of references nor in the artifact store. "
                "Bring them back, or record into another --storage."
            )
        return dataclasses.replace(splits, reference=kept.reference), kept.cost

    def splits(self, config: TrainingConfig) -> Splits:
        """Load the data of a seed, or return what was loaded last."""
        key = config.seed, config.image_size  # of the settings of the data, no other differs
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # both at once may be more than there is room for
            self._loaded = (key, load_splits(config, self.device))
        return self._loaded[1]

    def _hidden(self, splits: Splits, seed: int) -> Split | None:
        """Return the part of the test split that is looked at; the same for all arms."""
        if self.grid.test_size == 0:
            return None
        order = np.random.default_rng([seed, 1]).permutation(len(splits.test))
        rows = torch.from_numpy(np.sort(order[: self.grid.test_size]))
        rows = rows.to(splits.test.labels.device)
        return Split(splits.test.images.of(rows), splits.test.labels[rows])

    def _looks(
        self, training: Training, hidden: Split | None, run: TrainingRun
    ) -> dict[str, float]:
        """Return accuracies and losses after an epoch by split and weights, such as
        `val_accuracy_ema`."""
        looks: dict[str, float] = {}
        last_only = self.grid.test_epochs == "last"
        for weights in training.weights:
            if weights == run.config.eval_weights:  # judged already
                value, loss = run.results[-1].val_accuracy, run.results[-1].val_loss
            else:
                value, loss = run.evaluate(run.splits.validation, weights)
            looks |= {f"val_accuracy_{weights}": value, f"val_loss_{weights}": loss}
            if hidden is not None and not (last_only and run.epoch < run.config.epochs):
                looks[f"test_accuracy_{weights}"] = run.evaluate(hidden, weights)[0]
        return looks


def _thinned(losses: list[float]) -> list[float]:
    """Return the means of at most `LOSSES_AN_EPOCH` stretches of an epoch's steps."""
    n = min(LOSSES_AN_EPOCH, len(losses))
    ends = [len(losses) * at // n for at in range(n + 1)]
    stretches = (losses[begin:end] for begin, end in itertools.pairwise(ends))
    return [round(sum(stretch) / len(stretch), 5) for stretch in stretches]


def make_jobs(
    grid: Grid,
    storage: BaseStorage,
    *,
    recorded: Collection[Key],
    device: torch.device,
    references: References,
    artifact_store: ArtifactStore,
    checkpoints: Checkpoints,
    notes: Mapping[str, Any],
    environment: dict[str, Any],
) -> list[Job]:
    """Open the studies of a grid and return what a worker is to do, block by block.

    Which run a trial is follows from its number, so nothing has to be queued, and workers that
    begin at the same moment double nothing.

    Args:
        grid: The grid.
        storage: Where its studies are kept.
        recorded: Runs that a table has already: they are not trained.
        device: Where training happens.
        references: The folder of references on this machine.
        artifact_store: Where other machines find them; step losses go there, too.
        checkpoints: Where runs are saved.
        notes: Attributes that are kept with each study: the question, the command …
        environment: Versions and hardware of this process.
    """
    runs = {
        training.name: [run for run in grid.runs(training) if run.key not in recorded]
        for training in grid.trainings
    }
    studies = {
        training.name: open_any_study(
            storage,
            study_name(grid, training, recorded),
            grid.identity(training),
            notes={**notes, WANTED: len(runs[training.name])},
            environment=environment,
        )
        for training in grid.trainings
    }
    recorder = Recorder(
        grid,
        studies,
        runs,
        device,
        SharedReferences(references, artifact_store),
        artifact_store,
        checkpoints,
    )
    jobs = []
    for training, block in grid.stretches():
        planned = runs[training.name]
        numbers = [number for number, run in enumerate(planned) if run.block == block]
        if not numbers:
            continue
        teacher = grid.teacher(training, block)
        after = None
        if teacher is not None:
            name = teacher.training.name
            after = (studies[name], runs[name].index(teacher))
        jobs.append(
            Job(
                name=training.name,
                study=studies[training.name],
                train=functools.partial(recorder.train, training),
                begin=numbers[0],
                end=numbers[-1] + 1,
                sampler_of=lambda number, planned=planned: proposing(  # type: ignore[misc]
                    grid.params[planned[number].configuration] if number < len(planned) else {}
                ),
                after=after,
                retries=True,
            )
        )
    return jobs
