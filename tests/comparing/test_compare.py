"""The grid: every run once, kept, and continued where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from impon_hpo.comparing.grid import cells, run_grid

from impon_hpo.comparing import cell, grid
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.tuning.study_file import StudyFile
from tests.studies import SMALL, small_study

GRID = (
    (
        SMALL.replace('{ type = "float", low = 1e-3, high = 0.3, log = true }', "CHOICES")
        .replace("CHOICES", '{ type = "categorical", choices = [0.01, 0.1] }')
        .replace("epochs = 3", "epochs = 2\nepoch_fraction = 0.3")
        .replace("choices = [16, 32]", "choices = [32]")
    )
    + '\n[arms.paced]\nsampler = "impon-paced"\n\n[arms.paced.run]\nreference = "crossfit"\n'
    + ("reference_options = { epochs = 1, width = 4 }\n")
)
PREQUENTIAL = ("arms.paced.run.reference=prequential", "arms.paced.run.reference_options={}")


def grid_study() -> StudyFile:
    return small_study(text=GRID)


def quiet(line: str) -> None:
    assert line


def without_seconds(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for result in results:
        del result["environment"]
        for epoch in result["epochs"]:
            for key in [key for key in epoch if key.startswith("seconds")]:
                del epoch[key]
    return results


def test_every_arm_meets_the_same_configurations_and_seeds() -> None:
    wanted = cells(grid_study(), ["impon", "uniform"], 2)
    assert len(wanted) == 2 * 2 * 2
    of_arm = [
        [(cell.params, cell.seed) for cell in wanted if cell.arm == arm]
        for arm in ("impon", "uniform")
    ]
    assert of_arm[0] == of_arm[1]
    assert {cell.seed for cell in wanted} == {1, 2}  # from the study's seed on
    assert all(cell.config.lr == cell.params["lr"] for cell in wanted)
    assert len({cell.name for cell in wanted}) == 8


def test_another_version_s_results_are_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {cell.name for cell in cells(grid_study(), ["uniform"], 1)}
    monkeypatch.setattr(cell, "versions", lambda: {"impon-hpo": "9.9"})
    assert not before & {cell.name for cell in cells(grid_study(), ["uniform"], 1)}


def test_space_that_is_no_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.lr: .*categorical"):
        cells(small_study(), ["uniform"], 1)


def test_results_are_kept_and_nothing_is_trained_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = cells(grid_study(), ["uniform", "paced"], 1)
    folder = Path("runs/small/samplers")
    first = run_grid(wanted[:3], folder, n_workers=1, say=quiet)
    said: list[str] = []
    second = run_grid(wanted, folder, n_workers=1, say=said.append)
    assert second[:3] == first
    assert len(said) == 2
    assert said[0] == "3 of 4 runs are there already."
    assert [len(result["epochs"]) for result in second] == [2] * 4
    assert [result["reference_cost"] > 0 for result in second] == [False, True, False, True]
    monkeypatch.setattr(grid, "train_cell", lambda *_: pytest.fail("trained again"))
    assert run_grid(wanted, folder, n_workers=1, say=quiet) == second


def test_workers_give_the_same_results() -> None:
    wanted = cells(grid_study(), ["uniform", "impon"], 1)
    alone = run_grid(wanted, Path("alone"), n_workers=1, say=quiet)
    together = run_grid(wanted, Path("together"), n_workers=2, say=quiet)
    assert without_seconds(together) == without_seconds(alone)


def test_diverged_run_is_a_result() -> None:
    wanted = cells(small_study("space.lr.choices=[1e30]", text=GRID), ["uniform"], 1)
    (result,) = run_grid(wanted, Path("grid"), n_workers=1, say=quiet)
    assert result["epochs"] == []
    assert "training loss of epoch 1" in result["ended"]


def test_broken_result_says_what_to_do() -> None:
    wanted = cells(grid_study(), ["uniform"], 1)
    run_grid(wanted, Path("grid"), n_workers=1, say=quiet)
    file = Path("grid") / f"{wanted[0].name}.json"
    file.write_text(file.read_text()[:50])
    with pytest.raises(StorageError, match=r"cannot be read: .* Delete it, and it is made anew"):
        run_grid(wanted, Path("grid"), n_workers=1, say=quiet)
    assert json.loads((Path("grid") / f"{wanted[1].name}.json").read_text())["arm"] == "uniform"


def test_prequential_reference_comes_from_the_middle_of_the_uniform_arm() -> None:
    study = small_study(*PREQUENTIAL, text=GRID)
    wanted = cells(study, ["uniform", "paced"], 1)
    teachers = [(cell.arm, cell.params["lr"]) for cell in wanted if cell.teaches]
    assert teachers == [("uniform", 0.1)]
    results = run_grid(wanted, Path("grid"), n_workers=1, say=quiet)
    assert len(list(Path("grid/references").rglob("*.pt"))) == 1
    assert [result["reference_cost"] for result in results] == [0, 0, 0, 0]
    assert [len(result["epochs"]) for result in results] == [2] * 4


def test_prequential_reference_needs_a_uniform_arm() -> None:
    study = small_study(*PREQUENTIAL, text=GRID)
    with pytest.raises(ConfigError, match=r"Arm 'paced': .* uniform arm .* there is none"):
        run_grid(cells(study, ["paced"], 1), Path("grid"), n_workers=1, say=quiet)
