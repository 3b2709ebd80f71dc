"""Recording: what is kept of every run of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from optuna.artifacts import FileSystemArtifactStore
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.comparing.evidence import recorded_rows
from impon_hpo.comparing.grid import PlannedRun, comparison_grid
from impon_hpo.comparing.outcomes import curves_of_arm
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.replay import Curve
from impon_hpo.errors import CheckpointError
from impon_hpo.storage.trials import COST, RECORDED, epochs_of
from impon_hpo.training.splits import Split
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.tiny import ONLY_IMPON, arms_by_name, record, tiny_study, trials_of

BOTH = "compare.policies=[{}, {weights='ema'}]"


def only_uniform(*settings: str) -> dict[str, Any]:
    """Record uniform sampling alone, and return the epochs of its first run."""
    study_file = tiny_study(*ONLY_IMPON, *settings)
    record(study_file, "uniform")
    return epochs(study_file, "uniform cosine")


def epochs(study_file: StudyFile, training: str) -> dict[str, Any]:
    trial = trials_of(study_file)[training, 0, 0]
    kept = list(epochs_of(trial.user_attrs).values())
    return {key: [epoch.get(key) for epoch in kept] for key in kept[-1]}


@pytest.mark.parametrize(
    ("settings", "looks"),
    [
        ([], [True, True]),
        (["compare.test_epochs=last"], [False, True]),
        (["compare.test_epochs=last", "compare.test_size=20"], [False, True]),
    ],
)
def test_hidden_test_is_looked_at_after_the_epochs_asked_for(
    settings: list[str], looks: list[bool]
) -> None:
    accuracies = only_uniform(*settings)["test_accuracy_last"]
    assert [accuracy is not None for accuracy in accuracies] == looks


@pytest.fixture
def tests_seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The images of the hidden test of every run that follows."""
    seen: list[torch.Tensor] = []
    evaluate = TrainingRun.evaluate

    def watched(run: TrainingRun, split: Split, weights: str | None = None) -> tuple[float, float]:
        if split is not run.splits.validation:
            seen.append(split.images[:])
        return evaluate(run, split, weights)

    monkeypatch.setattr(TrainingRun, "evaluate", watched)
    return seen


def test_hidden_test_rows_are_the_same_for_all_arms_of_a_seed(
    tests_seen: list[torch.Tensor],
) -> None:
    record(tiny_study(*ONLY_IMPON, "compare.test_size=30", "compare.test_epochs=last"))
    assert [len(images) for images in tests_seen] == [30] * (3 * 2 * 2)
    first, of_another_seed = tests_seen[0], tests_seen[-1]
    assert all(torch.equal(first, images) for images in tests_seen[: 3 * 2])
    assert all(torch.equal(of_another_seed, images) for images in tests_seen[3 * 2 :])
    assert not torch.equal(first, of_another_seed)


def test_whole_test_split_is_looked_at_unless_a_part_is_asked_for(
    tests_seen: list[torch.Tensor],
) -> None:
    only_uniform("compare.test_epochs=last")
    assert {len(images) for images in tests_seen} == {180}


def test_both_weights_are_recorded_as_if_each_were_alone() -> None:
    both = only_uniform(BOTH, "space.lr.low=0.05")
    for weights in ("last", "ema"):
        alone = only_uniform(f"run.eval_weights={weights}", "space.lr.low=0.05")
        assert both[f"val_accuracy_{weights}"] == alone["val_accuracy"]
        for split in ("val", "test"):
            key = f"{split}_accuracy_{weights}"
            assert both[key] == alone[key]
        # Validating twice is the comparison's affair: a study would do it once, and pay for once.
        assert both["cost"] == alone["cost"]
    assert both["val_accuracy_last"] != both["val_accuracy_ema"]
    assert not set(alone) & {"val_accuracy_last", "test_accuracy_last"}


def test_balanced_accuracy_is_recorded_in_the_same_columns() -> None:
    plain = only_uniform(BOTH, "space.lr.low=0.05")
    balanced = only_uniform(BOTH, "space.lr.low=0.05", "metric=balanced-accuracy")
    assert set(plain) == set(balanced)
    assert balanced["val_accuracy"] in (balanced["val_accuracy_last"], balanced["val_accuracy_ema"])
    for key in plain:
        if key.startswith(("val_accuracy", "test_accuracy")):
            assert balanced[key] != plain[key]
            assert balanced[key] == pytest.approx(plain[key], abs=0.05)  # classes are alike here
    assert balanced["val_loss"] == plain["val_loss"]


def test_trial_says_which_run_it_is_and_what_was_paid() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    record(study_file, "uniform")
    grid = comparison_grid(study_file)
    for (training, block, number), trial in trials_of(study_file).items():
        assert training == "uniform cosine"
        assert trial.params == grid.params[number]
        assert trial.user_attrs[RECORDED] == {
            "block": block,
            "configuration": number,
            "reference_cost": 0,
            "steps_per_epoch": 4,  # 128 rows in batches of 32
        }
        kept = epochs_of(trial.user_attrs)
        assert list(kept) == list(trial.intermediate_values) == [1, 2]
        assert [epoch["cost"] for epoch in kept.values()] == [3 * 128 + 60] * 2
        assert trial.user_attrs[COST] == 2 * (3 * 128 + 60)


def test_diverged_run_has_a_row_with_its_cost_and_why() -> None:
    study_file = tiny_study(*ONLY_IMPON, "space.lr.low=1e30", "space.lr.high=1e31")
    record(study_file, "uniform")
    grid = comparison_grid(study_file)
    trial = trials_of(study_file)["uniform cosine", 0, 0]
    assert trial.state == TrialState.PRUNED
    run = PlannedRun(grid.training("uniform cosine"), 0, 0)
    (row,) = recorded_rows(run, grid, trial)
    assert (row["epoch"], row["cost"]) == (1, 3 * 128)  # it was not validated
    assert row["ended"].startswith("The training loss of epoch 1 is ")
    assert not [key for key in row if "accuracy" in key]


# What is taught.


@pytest.fixture(scope="module")
def taught(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[StudyFile, Recordings, dict[Any, FrozenTrial], Path]:
    """The tiny comparison of `memory`, recorded whole."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("taught")
        patch.chdir(home)
        study_file = tiny_study('compare.arms=["memory"]')
        return study_file, record(study_file), trials_of(study_file), home


def test_every_taught_run_has_the_reference_of_its_block_and_share(
    taught: tuple[StudyFile, Recordings, dict[Any, FrozenTrial], Path],
) -> None:
    _, recordings, trials, home = taught
    runs = [key for key in trials if key[0].startswith("memory")]
    assert runs
    assert all(len(recordings.runs[key].epochs) == 2 for key in runs)
    # Two shares of an epoch, two blocks: a teacher each.
    assert len(list((home / "runs/small/references").glob("*.pt"))) == 2 * 2
    for key in runs:
        teacher = "uniform cosine" if key[0] == "memory cosine" else "uniform-fraction@1/2 cosine"
        begun, ended = trials[key].datetime_start, trials[teacher, key[1], 0].datetime_complete
        assert begun is not None
        assert ended is not None
        assert begun > ended


def test_rows_add_up(
    taught: tuple[StudyFile, Recordings, dict[Any, FrozenTrial], Path],
) -> None:
    _, recordings, trials, _ = taught
    assert len(recordings.runs) == len(trials) == 2 * (3 * 2 + 4)
    for row in recordings.rows:
        assert row["cost"] == 3 * row["rows_trained"] + row["rows_scored"] + row["rows_validated"]
        assert (row["rows_validated"], row["reference_cost"]) == (60, 0)
    paid = sum(trial.user_attrs[COST] for trial in trials.values())
    assert sum(row["cost"] for row in recordings.rows) == paid


def test_placebo_pays_for_the_whole_path() -> None:
    study_file = tiny_study(
        "arms.memory.sampler=selective-backprop",
        'compare.arms=["memory"]',
        "compare.epoch_fractions=[1]",
    )
    scored = {row["training"] for row in record(study_file).rows if row["rows_scored"]}
    assert scored == {"memory cosine", "placebo cosine"}


def test_attributes_of_a_run_are_few_and_short(
    taught: tuple[StudyFile, Recordings, dict[Any, FrozenTrial], Path],
) -> None:
    _, _, trials, _ = taught
    for trial in trials.values():
        assert len(trial.user_attrs) <= 2 + 3  # epochs; cost, worker, and which run it is
        assert all(len(str(value)) < 1500 for value in trial.user_attrs.values())


def test_reference_that_is_lost_is_a_clear_error() -> None:
    study_file = tiny_study('compare.arms=["memory"]', "compare.epoch_fractions=[1]")
    record(study_file, "uniform")
    for folder in ("references", "artifacts"):
        for path in Path("runs/small", folder).iterdir():
            path.unlink()
    with pytest.raises(CheckpointError, match="cannot be fetched from the artifact store"):
        record(study_file)


def test_step_losses_that_cannot_be_stored_cost_no_run(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def full(store: FileSystemArtifactStore, name: str, file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemArtifactStore, "write", full)
    study_file = tiny_study(*ONLY_IMPON)
    record(study_file, "uniform")
    trials = trials_of(study_file).values()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    told = [line for line in said if "could not be attached" in line]
    assert len(told) == len(trials)
    assert told[0] == (
        "step_losses.json of run 0 of uniform cosine could not be attached: OSError: [Errno 28] "
        "No space left on device. The run is recorded."
    )


def test_losses_and_other_weights_are_recorded_for_a_pruner_that_sees_them() -> None:
    def curve(report: str) -> Curve:
        study_file = tiny_study(*ONLY_IMPON, "run.eval_weights=ema", f"report={report}")
        recordings = record(study_file, "uniform", storage=f"{report}.journal")
        arm = arms_by_name(study_file)["uniform"]
        rows.extend(recordings.runs[arm.training, 0, 0].epochs)
        return curves_of_arm(recordings, arm, 0, 2)[0]

    rows: list[Any] = []
    by_loss, by_last = curve("val-loss"), curve("last")
    plain, looked = rows[:2], rows[2:]
    assert by_loss.reported == tuple(-epoch["val_loss_ema"] for epoch in plain)
    assert by_loss.cost == tuple(epoch["cost"] for epoch in plain)
    assert by_loss.accuracy == by_last.accuracy
    assert by_last.reported == tuple(epoch["val_accuracy_last"] for epoch in looked)
    assert by_last.cost == tuple(epoch["cost"] + epoch["rows_validated"] for epoch in looked)
