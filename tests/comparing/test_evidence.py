"""A recording in its folder: fixed once, gathered whole or in part, refused where it is another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from impon_hpo.comparing.cell import Cell
from impon_hpo.comparing.record_study import (
    FIXED,
    digest,
    gather,
    record,
    recording_folder,
    wanted_cells,
)

from impon_hpo.comparing import cell as cell_module
from impon_hpo.comparing.runs_table import ABOUT, TABLE, Recordings, read_recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.errors import ConfigError, NothingYetError, StorageError
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import COMPARED, compared_study, quiet
from tests.comparing.tiny import ONLY_IMPON, TINY, tiny_study

HOME = Path("runs/small/compare")
POLICIES = "compare.policies=[{}, {schedule='constant', weights='ema'}]"


def fake(cell: Cell, folder: Path) -> dict[str, Any]:
    """Stand in for a training: what it found depends on all that it was asked for."""
    chance = int(cell.name.rpartition("-")[2], 16) / 16**12
    epoch = {
        "train_loss": 1 - chance,
        "rows_trained": 128,
        "rows_scored": 0,
        "rows_validated": 60,
        "cost": 444,
        "seconds_drawing": 0.1,
        "seconds_stepping": 0.2,
        "seconds_validating": 0.3,
    }
    for weights in cell.weights:
        epoch |= {f"val_accuracy_{weights}": chance, f"test_accuracy_{weights}": chance}
    epochs = [epoch | {"epoch": n, "val_accuracy": chance} for n in range(1, 3)]
    return {
        "arm": cell.arm,
        "params": cell.params,
        "seed": cell.seed,
        "epochs": epochs[: cell.config.epochs],
        "ended": "",
        "ended_cost": 0,
        "reference_cost": 0,
        "environment": {"cpu": "fake", "threads": 1},
    }


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "_train", fake)


def recorded(study_file: StudyFile, *only: str, command: str = "impon-hpo compare") -> Recordings:
    return record(study_file, only=list(only) or None, n_workers=1, command=command, say=quiet)


def trainings(recordings: Recordings) -> set[str]:
    return {training for training, _, _ in recordings.runs}


# Which runs.


def arms_of_cells(study_file: StudyFile, *only: str) -> set[str]:
    return {cell.arm for cell in wanted_cells(study_file, list(only) or None)}


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        (["uniform"], set()),
        (["impon"], {"impon cosine"}),
        (["impon@1/2"], {"impon@1/2 cosine"}),
        (["memory"], {"memory cosine"}),
        (["memory@1/2"], {"memory@1/2 cosine", "uniform-fraction@1/2 cosine"}),
        (["placebo@1/2"], {"placebo@1/2 cosine", "uniform-fraction@1/2 cosine"}),
        (["impon", "memory"], {"impon cosine", "memory cosine"}),
        (["impon (constant, ema)"], {"impon constant", "uniform constant"}),
        (
            ["memory@1/2 (constant, ema)"],
            {"memory@1/2 constant", "uniform-fraction@1/2 constant", "uniform constant"},
        ),
    ],
)
def test_arm_brings_uniform_sampling_and_its_teacher_along(
    only: list[str], wanted: set[str]
) -> None:
    assert arms_of_cells(tiny_study(POLICIES), *only) == {"uniform cosine", *wanted}


def test_runs_of_some_arms_are_those_of_all() -> None:
    """So that what was recorded for one arm is there when all are."""
    study_file = tiny_study(POLICIES)
    everything = wanted_cells(study_file)
    some = wanted_cells(study_file, ["memory@1/2"])
    assert some == [cell for cell in everything if cell.arm in {cell.arm for cell in some}]
    assert 0 < len(some) < len(everything)


def test_unknown_arm_is_named_and_a_known_one_suggested() -> None:
    with pytest.raises(ConfigError, match=r"no arm 'memory@1/3'\. Did you mean 'memory@1/2'\?"):
        wanted_cells(tiny_study(), ["uniform", "memory@1/3"])


# What is fixed, and when.


def test_all_that_is_recorded_is_gathered() -> None:
    study_file = tiny_study()
    found = recorded(study_file)
    assert trainings(found) == arms_of_cells(study_file)
    assert len(found.runs) == len(wanted_cells(study_file))
    assert found.about["environments"] == [{"cpu": "fake", "threads": 1}]
    assert found.about["command"] == "impon-hpo compare"
    assert recording_folder(study_file) == HOME
    kept = read_recordings(HOME)
    assert (kept.rows, kept.about) == (found.rows, found.about)


def test_part_of_a_recording_is_gathered_as_it_is() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    found = recorded(study_file, "uniform")
    assert trainings(found) == {"uniform cosine"}
    files = sorted((HOME / "cells").glob("*.json"))
    files[0].unlink()
    part = gather(study_file)
    assert len(part.runs) == len(found.runs) - 1
    assert part.runs.items() <= found.runs.items()
    more = recorded(study_file)
    assert trainings(more) == {"uniform cosine", "placebo cosine", "impon cosine"}
    assert found.runs.items() <= more.runs.items()


def test_same_recording_gives_the_same_bytes() -> None:
    study_file = tiny_study()
    recorded(study_file)
    before = {name: (HOME / name).read_bytes() for name in (TABLE, ABOUT)}
    gather(study_file)
    assert {name: (HOME / name).read_bytes() for name in (TABLE, ABOUT)} == before


def test_what_was_asked_is_noted_before_anything_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(cell_module, "_train", stopped)
    study_file = tiny_study()
    with pytest.raises(KeyboardInterrupt):
        recorded(study_file)
    fixed = json.loads((HOME / FIXED).read_text())
    assert fixed["digest"] == digest(study_file)
    assert fixed["protocol"] == json.loads(json.dumps(study_file.protocol.identity()))


def test_study_file_that_is_changed_after_recording_has_another_digest() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    found = recorded(study_file, command="first")
    assert found.about["digest"] == found.about["fixed_digest"] == digest(study_file)
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    for later in (gather(changed), recorded(changed, command="second")):
        assert later.about["digest"] == digest(changed) != digest(study_file)
        assert later.about["fixed_digest"] == digest(study_file)
        assert (later.about["command"], later.rows) == ("first", found.rows)


def changed_digests() -> dict[str, Callable[[], StudyFile]]:
    """Return study files that ask for something else than the tiny one, by what is changed."""
    text = COMPARED.replace("seed = 1", "seed = 2")
    return {
        "pruner": lambda: tiny_study("pruner.reduction_factor=3"),
        "seed": lambda: compared_study(*TINY, text=text),
        "space": lambda: tiny_study("space.lr.high=0.2"),
        "run": lambda: tiny_study("run.momentum=0.8"),
        "options of an arm": lambda: tiny_study("arms.impon.bank_size=65"),
        "reference of an arm": lambda: tiny_study("arms.memory.run.reference=crossfit"),
        "protocol": lambda: tiny_study("compare.cost_ratio=0.4"),
        "policies": lambda: tiny_study(POLICIES),
        "which policy is the truth": lambda: tiny_study(
            "compare.policies=[{schedule='constant', weights='ema'}, {}]"
        ),
    }


def test_digest_changes_with_all_that_decides_the_verdict() -> None:
    digests = {digest(tiny_study()), *(digest(made()) for made in changed_digests().values())}
    assert len(digests) == 1 + len(changed_digests())


def test_digest_does_not_change_with_where_it_is_recorded() -> None:
    assert digest(tiny_study("data_dir=elsewhere", "run.device=cuda")) == digest(tiny_study())


# What is refused.


def test_nothing_recorded_is_nothing_yet() -> None:
    with pytest.raises(NothingYetError, match="Nothing of study 'small' is recorded yet: run"):
        gather(tiny_study())


def test_mistakes_of_the_study_come_before_nothing_is_there() -> None:
    with pytest.raises(ConfigError, match=r"arms\.memory\.run\.lr: all arms"):
        gather(tiny_study("arms.memory.run.lr=0.3"))


def kept_beside(study_file: StudyFile, *, where: str = "small") -> Recordings:
    """Record a study, and keep of it no more than the table, beside the study file."""
    found = recorded(study_file)
    Path(where).mkdir(exist_ok=True)
    for name in (TABLE, ABOUT):
        (HOME / name).rename(Path(where) / name)
    shutil.rmtree("runs")
    return found


def test_table_beside_the_study_file_is_read_where_nothing_is_recorded_here() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    found = kept_beside(study_file)
    later = gather(study_file)
    assert (later.rows, later.about) == (found.rows, found.about)
    HOME.mkdir(parents=True)
    (HOME / FIXED).write_text("{}")  # begun here, but nothing is done
    assert gather(study_file).rows == found.rows


def test_what_is_recorded_here_goes_before_the_table_unless_a_folder_is_given() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    found = kept_beside(study_file)
    part = recorded(study_file, "uniform")
    assert gather(study_file).rows == part.rows != found.rows
    assert gather(study_file, Path("small")).rows == found.rows


def test_table_keeps_what_was_fixed_and_says_what_is_asked_now() -> None:
    before = digest(tiny_study(*ONLY_IMPON))
    kept_beside(tiny_study(*ONLY_IMPON))
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    about = gather(changed).about
    assert (about["fixed_digest"], about["digest"]) == (before, digest(changed))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["compare.configurations=3"], "are of other configurations than the study file asks for"),
        (["space.lr.high=0.2"], "are of other configurations"),
        (["run.epochs=3"], "'uniform' has 3 epochs, judged by its last weights, and its runs"),
        (["run.eval_weights=ema"], "'uniform' has 2 epochs, judged by its ema weights, and its"),
        (["compare.policies=[{schedule='constant'}]"], "have none of the study's arms"),
    ],
)
def test_table_of_other_runs_is_refused(settings: list[str], complaint: str) -> None:
    kept_beside(tiny_study(*ONLY_IMPON), where="kept")
    with pytest.raises(StorageError, match="The recordings in 'kept' ") as caught:
        gather(tiny_study(*ONLY_IMPON, *settings), Path("kept"))
    assert complaint in str(caught.value)


def test_table_of_other_arms_is_of_use_for_those_it_has() -> None:
    kept_beside(tiny_study(*ONLY_IMPON))
    study_file = tiny_study("compare.claim=impon")
    found = gather(study_file)
    assert "memory" in {arm.partition("@")[0] for arm in study_file.protocol.policies[0].arms}
    assert trainings(found) == {"uniform cosine", "placebo cosine", "impon cosine"}


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"digest": "abc"}'])
def test_note_that_cannot_be_read_is_named(content: str) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    recorded(study_file, "uniform")
    (HOME / FIXED).write_text(content)
    with pytest.raises(StorageError, match=r"'runs/small/compare/protocol\.json' cannot be read"):
        gather(study_file)


def test_note_that_cannot_be_written_is_named() -> None:
    Path("runs").write_text("")
    with pytest.raises(StorageError, match=r"'runs/small/compare/protocol\.json' cannot be writt"):
        recorded(tiny_study(*ONLY_IMPON))


def test_report_can_be_made_where_the_hidden_test_was_looked_at_last_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked_last(cell: Cell, folder: Path) -> dict[str, Any]:
        result = fake(cell, folder)
        for epoch in result["epochs"][:-1]:
            del epoch["test_accuracy_last"]
        return result

    monkeypatch.setattr(cell_module, "_train", looked_last)
    study_file = tiny_study(*ONLY_IMPON, "compare.test_epochs=last")
    summary = summarise_comparison(study_file, recorded(study_file), other_pruners=False)
    assert summary["verdict"]["word"] == "inconclusive"
