"""Replay and a live study give the same decisions: the same runs, pruned after the same epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.grid import configurations
from impon_hpo.comparing.outcomes import curves_of_arm
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.replay import STUDY_NAME, replay, replay_promotion
from impon_hpo.storage.trials import COST, epochs_of
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.reference_folder import References
from impon_hpo.tuning.algorithms import make_pruner
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.job import Job
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.promotion import promotion_of
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.standings import Standings
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.worker import work
from tests.comparing.comparisons import compared_study
from tests.comparing.tiny import record

PRUNERS: list[dict[str, Any]] = [
    {"name": "SuccessiveHalvingPruner", "reduction_factor": 2},
    {"name": "HyperbandPruner", "reduction_factor": 2},
    {"name": "MedianPruner", "n_startup_trials": 1},
    {"name": "NopPruner"},
]
LEARNING = "space.lr.low=0.01"  # so that the first trial learns enough to teach
TRAINED = ("uniform", "uniform-short@1/2", "impon", "memory@1/2", "placebo")


def live(
    study_file: StudyFile, arm: Arm, pruner: dict[str, Any], block: int
) -> list[optuna.trial.FrozenTrial]:
    """Run the study that a replay stands for."""
    config = with_settings(arm.config, {"seed": study_file.seed + block})
    study = optuna.create_study(
        study_name=STUDY_NAME,
        direction="maximize",
        pruner=make_pruner(pruner, epochs=config.epochs),
    )
    for params in configurations(study_file, study_file.protocol.n_configurations):
        study.enqueue_trial(params)
    folder = Path(f"live-{arm.name}-{pruner['name']}".replace("/", "_"))
    objective = Objective(config, study_file.space, references=References(folder))
    study.optimize(objective, n_trials=study_file.protocol.n_configurations)
    return study.trials


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFile, Recordings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("recorded"))
        study_file = compared_study(LEARNING, "compare.policies=[{}, {weights='ema'}]")
        only = [*TRAINED, "uniform (cosine, ema)"]
        return study_file, record(study_file, *only)


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["name"])
@pytest.mark.parametrize("name", ["uniform", "memory@1/2"])
def test_same_decisions_as_a_live_study(
    name: str, pruner: dict[str, Any], recorded: tuple[StudyFile, Recordings]
) -> None:
    check(name, pruner, *recorded)


@pytest.mark.parametrize("name", [*TRAINED[1:3], "placebo", "uniform (cosine, ema)"])
def test_same_decisions_in_every_kind_of_arm(
    name: str, recorded: tuple[StudyFile, Recordings]
) -> None:
    check(name, PRUNERS[0], *recorded)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("uniform", "sync"), ("memory@1/2", "async"), ("uniform (cosine, ema)", "async")],
)
def test_same_decisions_under_halving_that_promotes(
    name: str, mode: str, recorded: tuple[StudyFile, Recordings]
) -> None:
    study_file, found = recorded
    (arm,) = [arm for arm in arms_of(study_file) if arm.name == name]
    n = study_file.protocol.n_configurations
    table = {"name": "promote", "reduction_factor": 2, "mode": mode}
    promotion = promotion_of(table, epochs=arm.config.epochs)
    assert promotion is not None
    curves = curves_of_arm(found, arm, 1, n)
    replayed = replay_promotion(curves, list(range(n)), promotion, taught=arm.taught)
    config = with_settings(arm.config, {"seed": study_file.seed + 1})
    study = optuna.create_study(study_name="live", direction="maximize")
    for params in configurations(study_file, n):
        study.enqueue_trial(params)
    checkpoints = Checkpoints(Path("checkpoints"))
    objective = Objective(
        config, study_file.space, references=References(Path("live")), checkpoints=checkpoints
    )
    standings = Standings(study, promotion, checkpoints, untaught=lambda: objective.untaught(study))
    job = Job(name, study, objective, n, standings=standings)
    work([job], progress=RecordingOnly(), checkpoints=checkpoints)
    trials = study.trials
    assert [replayed.stopped[number] for number in range(n)] == [
        len(epochs_of(trial.user_attrs)) for trial in trials
    ]
    assert replayed.cost == sum(trial.user_attrs[COST] for trial in trials)
    assert replayed.pick == study.best_trial.number
    assert TrialState.PRUNED in {trial.state for trial in trials}


class RecordingOnly:
    """Shows nothing."""

    def start(self, jobs: Sequence[Job]) -> None: ...
    def begin(self, job: Job, trials: Sequence[FrozenTrial]) -> None: ...
    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None: ...
    def pause(self, job: Job, trial: FrozenTrial) -> None: ...
    def end(self, job: Job, trial: FrozenTrial) -> None: ...
    def note(self, line: str) -> None: ...


def check(name: str, pruner: dict[str, Any], study_file: StudyFile, found: Recordings) -> None:
    (arm,) = [arm for arm in arms_of(study_file) if arm.name == name]
    n = study_file.protocol.n_configurations
    curves = curves_of_arm(found, arm, 1, n)
    replayed = replay(curves, list(range(n)), make_pruner(pruner, epochs=arm.config.epochs))
    trials = live(study_file, arm, pruner, block=1)
    assert [replayed.stopped[number] for number in range(n)] == [
        len(epochs_of(trial.user_attrs)) for trial in trials
    ]
    for number, trial in enumerate(trials):
        reported = list(trial.intermediate_values.values())
        assert reported == list(curves[number].accuracy[: len(reported)])
    assert replayed.cost == sum(trial.user_attrs[COST] for trial in trials)
    complete = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.value or 0.0)
    assert replayed.pick == best.number
    if pruner["name"] != "NopPruner":
        assert len(complete) < n
