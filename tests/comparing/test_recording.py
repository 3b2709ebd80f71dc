"""The cell: one run, trained once by one process, with all that a comparison asks of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from impon_hpo.comparing.cell import Cell, read_cell, train_cell
from impon_hpo.comparing.grid import run_grid
from impon_hpo.comparing.record_study import wanted_cells

from impon_hpo.comparing import cell as module
from impon_hpo.comparing import grid
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Split
from impon_hpo.tuning.space import with_settings
from tests.comparing.other_process import CELLS, OtherProcess, fake
from tests.comparing.tiny import ONLY_IMPON, cell_of, tiny_study

BOTH = "compare.policies=[{}, {weights='ema'}]"


def one_cell(*settings: str, training: str = "uniform cosine") -> Cell:
    return cell_of(tiny_study(*ONLY_IMPON, *settings), training)


def trained(cell: Cell, folder: Path = CELLS) -> dict[str, Any]:
    assert train_cell(cell, folder) is not None
    return read_cell(cell, folder)


def fail(*_: object) -> dict[str, Any]:
    pytest.fail("trained again")


def everything() -> list[Cell]:
    """Return the runs of the tiny comparison, with those that teach and those that are taught."""
    return wanted_cells(tiny_study())


# Names.


def test_name_changes_with_what_decides_the_numbers() -> None:
    cell = one_cell(BOTH)
    changes: list[dict[str, Any]] = [
        {},
        {"arm": "other"},
        {"config": with_settings(cell.config, {"lr": 0.123})},
        {"config": with_settings(cell.config, {"seed": 9})},
        {"config": with_settings(cell.config, {"epoch_fraction": 0.5})},
        {"config": with_settings(cell.config, {"sampler": "impon"})},
        {"config": with_settings(cell.config, {"sampler_options": {}, "eval_weights": "last"})},
        {"school": "other"},
        {"weights": ("last",)},
        {"test_size": 10},
        {"test_size": 0},
        {"test_epochs": "last"},
    ]
    names = [dataclasses.replace(cell, **change).name for change in changes]
    assert len(set(names)) == len(names)


def test_name_does_not_change_with_where_the_data_lie_or_where_it_is_trained() -> None:
    cell = one_cell()
    elsewhere = {"data_dir": "elsewhere", "download": True, "device": "cuda"}
    moved = dataclasses.replace(cell, config=with_settings(cell.config, elsewhere))
    assert moved.name == cell.name


def test_name_is_a_file_name() -> None:
    study_file = tiny_study("compare.policies=[{schedule='rungs'}]")
    cells = wanted_cells(study_file)
    assert "memory@1/2 rungs" in {cell.arm for cell in cells}
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert not set(cell.name) & set(" /\\:*?\0")
        assert cell.path(CELLS).parent == CELLS


# One result, written once and whole.


def test_result_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = one_cell()
    monkeypatch.setattr(module, "_train", fake)
    assert train_cell(cell, CELLS) == f"uniform cosine lr={cell.params['lr']:.4g} seed=1: 0.5000"
    written = cell.path(CELLS).read_bytes()
    monkeypatch.setattr(module, "_train", fail)
    assert train_cell(cell, CELLS) is None
    assert cell.path(CELLS).read_bytes() == written
    assert [path.name for path in CELLS.iterdir()] == [f"{cell.name}.json"]


def test_result_that_was_not_written_to_its_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = one_cell()

    def cut_short(result: Any, file: IO[str]) -> None:
        file.write(json.dumps(result)[:10])
        file.flush()
        assert not cell.path(CELLS).exists()
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "_train", fake)
    with monkeypatch.context() as patch:
        patch.setattr("impon_hpo.comparing.cell.json.dump", cut_short)
        with pytest.raises(StorageError, match="No space left"):
            train_cell(cell, CELLS)
    assert not cell.path(CELLS).exists()
    assert trained(cell) == fake(cell, CELLS)


def test_run_that_failed_can_be_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = one_cell()

    def mistaken(*_: object) -> dict[str, Any]:
        raise ConfigError("no such device")

    monkeypatch.setattr(module, "_train", mistaken)
    with pytest.raises(ConfigError, match="no such device"):
        train_cell(cell, CELLS)
    assert not cell.path(CELLS).exists()
    monkeypatch.setattr(module, "_train", fake)
    assert trained(cell) == fake(cell, CELLS)


def test_folder_that_cannot_be_written_is_named() -> None:
    Path("file").write_text("")
    with pytest.raises(StorageError, match=r"'file/.*\.lock' cannot be written"):
        train_cell(one_cell(), Path("file"))


@pytest.mark.parametrize("content", ["", "{", "\0\1\2"])
def test_result_that_cannot_be_read_is_named(content: str) -> None:
    cell = one_cell()
    CELLS.mkdir()
    cell.path(CELLS).write_text(content)
    with pytest.raises(StorageError, match=rf"{cell.name}\.json' cannot be read: .* made anew"):
        read_cell(cell, CELLS)


# Several processes.


@pytest.fixture(scope="module")
def second() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.kill()


def test_grid_that_is_started_twice_trains_every_run_once(
    second: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_train", fake)
    monkeypatch.setattr(grid, "POLL_SECONDS", 0.05)
    wanted = everything()
    second.ask("share", wanted)
    theirs = [second.line()]  # it is at it
    ours: list[str] = []
    results = run_grid(wanted, CELLS, n_workers=1, say=ours.append)
    while theirs[-1] != "done":
        theirs.append(second.line())
    done = [line for line in (*ours, *theirs) if line.startswith("[")]
    runs = [line.partition("] ")[2] for line in done]
    assert len(set(runs)) == len(runs) == len(wanted)
    assert len({result["by"] for result in results}) == 2
    assert [result["arm"] for result in results] == [cell.arm for cell in wanted]
    assert {path.name for path in CELLS.iterdir()} == {f"{cell.name}.json" for cell in wanted}


def test_nobody_learns_before_all_teachers_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_train", fake)
    wanted = everything()
    said: list[str] = []
    run_grid(wanted, CELLS, n_workers=1, say=said.append)
    teachers = [cell for cell in wanted if cell.teaches]
    assert {cell.arm for cell in teachers} == {"uniform cosine", "uniform-fraction@1/2 cosine"}
    assert [line.partition("] ")[2].rpartition(":")[0] for line in said[: len(teachers)]] == [
        f"{cell.arm} lr={cell.params['lr']:.4g} seed={cell.seed}" for cell in teachers
    ]


def test_grid_waits_for_a_run_in_other_hands(
    second: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = everything()[0]
    second.ask("train slowly", [cell])
    assert second.line() == "training"
    monkeypatch.setattr(module, "_train", fail)
    monkeypatch.setattr(grid, "POLL_SECONDS", 0.05)
    (result,) = run_grid([cell], CELLS, n_workers=1, say=pytest.fail)
    assert result["by"] != os.getpid()
    assert second.line().startswith("[1/1] uniform cosine ")
    assert second.line() == "done"


def test_run_is_left_to_the_process_that_is_at_it_until_that_is_killed(
    second: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = everything()[0]
    second.ask("train for ever", [cell])
    assert second.line() == "training"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", fail)
        assert train_cell(cell, CELLS) is None
    assert not cell.path(CELLS).exists()
    second.kill()
    monkeypatch.setattr(module, "_train", fake)
    assert trained(cell)["by"] == os.getpid()


# What a result says.


def looked_at(result: dict[str, Any], weights: str = "last") -> list[bool]:
    return [f"test_accuracy_{weights}" in epoch for epoch in result["epochs"]]


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
    assert looked_at(trained(one_cell(*settings))) == looks


def test_hidden_test_is_not_looked_at_in_a_grid() -> None:
    result = trained(dataclasses.replace(one_cell(), test_size=0))
    assert looked_at(result) == [False, False]


@pytest.fixture
def tests_seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The images of the hidden test of every run that follows."""
    seen: list[torch.Tensor] = []
    evaluate = TrainingRun.evaluate

    def watched(run: TrainingRun, split: Split, weights: str | None = None) -> tuple[float, float]:
        if split is not run.splits.validation:
            seen.append(split.images)
        return evaluate(run, split, weights)

    monkeypatch.setattr(TrainingRun, "evaluate", watched)
    return seen


def test_hidden_test_rows_are_the_same_for_all_arms_of_a_seed(
    tests_seen: list[torch.Tensor],
) -> None:
    study_file = tiny_study(*ONLY_IMPON, "compare.test_size=30", "compare.test_epochs=last")
    for training in ("uniform cosine", "impon cosine", "placebo cosine"):
        trained(cell_of(study_file, training))
    trained(cell_of(study_file, "uniform cosine", block=1))
    first, second, third, of_another_seed = tests_seen
    assert len(first) == 30
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, of_another_seed)


def test_whole_test_split_is_looked_at_unless_a_part_is_asked_for(
    tests_seen: list[torch.Tensor],
) -> None:
    trained(one_cell("compare.test_epochs=last"))
    assert [len(images) for images in tests_seen] == [180]


def of_epochs(result: dict[str, Any], key: str) -> list[float]:
    return [epoch[key] for epoch in result["epochs"]]


def test_both_weights_are_recorded_as_if_each_were_alone() -> None:
    both = trained(one_cell(BOTH, "space.lr.low=0.05"), Path("both"))
    alone = {
        weights: trained(
            one_cell(f"run.eval_weights={weights}", "space.lr.low=0.05"), Path(weights)
        )
        for weights in ("last", "ema")
    }
    for weights, result in alone.items():
        assert of_epochs(both, f"val_accuracy_{weights}") == of_epochs(result, "val_accuracy")
        for split in ("val", "test"):
            key = f"{split}_accuracy_{weights}"
            assert of_epochs(both, key) == of_epochs(result, key)
    assert of_epochs(both, "val_accuracy_last") != of_epochs(both, "val_accuracy_ema")
    # Validating twice is the comparison's affair: a study would do it once, and pays for once.
    assert of_epochs(both, "cost") == of_epochs(alone["last"], "cost")
    assert set(alone["last"]["epochs"][0]) & {"val_accuracy_ema", "test_accuracy_ema"} == set()


def test_result_says_what_was_paid_and_where() -> None:
    cell = one_cell()
    result = trained(cell)
    assert (result["arm"], result["params"], result["seed"]) == (cell.arm, cell.params, 1)
    assert (result["horizon"], result["steps_per_epoch"]) == (2, 4)  # 128 rows in batches of 32
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2]
    assert of_epochs(result, "cost") == [3 * 128 + 60] * 2
    assert [len(losses) for losses in result["step_losses"]] == [4, 4]
    assert (result["ended"], result["ended_cost"], result["reference_cost"]) == ("", 0, 0)
    assert set(result["environment"]) >= {"versions", "cpu", "device", "threads"}


def test_diverged_run_is_recorded_with_its_cost() -> None:
    cell = one_cell()
    diverging = dataclasses.replace(
        cell, config=with_settings(cell.config, {"lr": 1e30}), params={"lr": 1e30}
    )
    line = train_cell(diverging, CELLS)
    result = read_cell(diverging, CELLS)
    assert result["epochs"] == []
    assert result["ended"].startswith("The training loss of epoch 1 is ")
    assert result["ended_cost"] == 3 * 128  # it was not validated
    assert line == f"uniform cosine lr=1e+30 seed=1: {result['ended']}"


def test_taught_run_without_a_teacher_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'memory cosine': .* a uniform arm .* there is none"):
        train_cell(cell_of(tiny_study(), "memory cosine"), CELLS)
