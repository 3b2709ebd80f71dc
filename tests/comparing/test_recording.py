"""Recording: which configurations are trained in which arms, and the table that comes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from impon_hpo.comparing import recording
from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.cell import Cell, read_cell
from impon_hpo.comparing.grid import run_grid
from impon_hpo.comparing.record_study import wanted_cells
from impon_hpo.comparing.recording import configurations, recorded_rows, recording_cells
from impon_hpo.errors import ConfigError
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import COMPARED, compared_study, quiet
from tests.comparing.tiny import tiny_study

EMA = "compare.policies=[{}, {weights='ema'}]"
RUNGS = "compare.policies=[{}, {schedule='rungs'}]"


# Configurations.


@pytest.mark.parametrize(
    ("key", "entry", "middle"),
    [
        ("momentum", '{ type = "float", low = 0.0, high = 0.9 }', 0.45),
        ("lr", '{ type = "float", low = 1e-4, high = 1e-2, log = true }', 1e-3),
        ("momentum", '{ type = "float", low = 0.1, high = 0.9, step = 0.2 }', 0.5),
        ("width", '{ type = "int", low = 4, high = 16 }', 10),
        ("width", '{ type = "int", low = 4, high = 16, log = true }', 8),
        ("width", '{ type = "int", low = 4, high = 20, step = 8 }', 12),
        ("width", '{ type = "int", low = 4, high = 12, step = 8 }', 4),
        ("optimizer", '{ type = "categorical", choices = ["adam", "sgd"] }', "adam"),
        ("batch_size", '{ type = "categorical", choices = [32, 16] }', 32),
    ],
)
def test_first_configuration_is_the_middle_of_the_space(
    key: str, entry: str, middle: object
) -> None:
    study_file = tiny_study(f"space={{ {key} = {entry} }}")
    first = configurations(study_file, 2)[0]
    assert first == {key: pytest.approx(middle) if isinstance(middle, float) else middle}
    assert type(first[key]) is type(middle)


@given(st.floats(1e-6, 1e3), st.floats(0, 1e3), st.booleans())
def test_middle_of_numbers_is_within_their_bounds(low: float, width: float, log: bool) -> None:
    space = FloatDistribution(low, low + width, log=log)
    assert space.low <= recording._middle(space) <= space.high


@given(st.integers(-20, 20), st.integers(0, 50), st.sampled_from([0.25, 0.5, 3.0]))
def test_middle_of_numbers_with_a_step_is_one_of_them(low: int, n_steps: int, step: float) -> None:
    space = FloatDistribution(low * step, (low + n_steps) * step, step=step)
    assert recording._middle(space) / step in range(low, low + n_steps + 1)


@given(st.integers(1, 1000), st.integers(0, 1000), st.booleans(), st.integers(1, 7))
def test_middle_of_whole_numbers_is_one_of_them(
    low: int, n_steps: int, log: bool, step: int
) -> None:
    step = 1 if log else step
    high = low + n_steps * step
    space = IntDistribution(low, high, log=log, step=step)
    assert recording._middle(space) in range(low, high + 1, step)


def test_configurations_are_the_same_for_the_same_seed() -> None:
    study_file = tiny_study()
    found = configurations(study_file, 6)
    assert configurations(tiny_study("run.seed=7", "run.lr=0.2"), 6) == found
    assert configurations(study_file, 3) == found[:3]
    other = configurations(compared_study(text=COMPARED.replace("seed = 1", "seed = 2")), 6)
    assert other[0] == found[0]
    assert not [params for params in other[1:] if params in found]


def test_configurations_are_of_the_space() -> None:
    study_file = tiny_study("space.batch_size={ type = 'categorical', choices = [16, 32] }")
    found = configurations(study_file, 12)
    assert all(set(params) == {"lr", "batch_size"} for params in found)
    assert all(1e-3 <= params["lr"] <= 0.3 for params in found)
    assert {params["batch_size"] for params in found} == {16, 32}


SIX = (
    "space={ optimizer = { type = 'categorical', choices = ['sgd', 'adam', 'adamw'] }, "
    "nesterov = { type = 'categorical', choices = [false] }, "
    "width = { type = 'int', low = 4, high = 5 } }"
)


def test_no_configuration_comes_twice() -> None:
    found = configurations(tiny_study(SIX, "compare.configurations=6"), 6)
    assert len({tuple(params.values()) for params in found}) == 6


@pytest.mark.parametrize(("space", "n"), [(SIX, 6), ("space={}", 1)])
def test_space_that_has_not_so_many_is_refused(space: str, n: int) -> None:
    complaint = rf"compare\.configurations must be at most {n}, .* but got {n + 1}\."
    with pytest.raises(ConfigError, match=complaint):
        configurations(tiny_study(space), n + 1)


# Cells.


def cells_of(study_file: StudyFile, training: str) -> list[Cell]:
    return [cell for cell in wanted_cells(study_file) if cell.arm == training]


def numbered(study_file: StudyFile, cells: list[Cell]) -> list[tuple[int, int]]:
    """Return block and configuration of each."""
    params = configurations(study_file, study_file.protocol.n_configurations)
    return [(cell.seed - study_file.seed, params.index(cell.params)) for cell in cells]


def test_every_training_has_every_configuration_in_every_block() -> None:
    study_file = tiny_study("compare.blocks=3", "compare.configurations=4")
    everything = [(block, number) for block in range(3) for number in range(4)]
    for arm in arms_of(study_file):
        found = numbered(study_file, cells_of(study_file, arm.training))
        wanted = [pair for pair in everything if pair[1] > 0 or not arm.taught]
        assert found == wanted


def test_taught_arm_begins_with_its_teacher() -> None:
    study_file = tiny_study()
    taught = [arm for arm in arms_of(study_file) if arm.taught]
    assert [arm.name for arm in taught] == ["placebo", "placebo@1/2", "memory", "memory@1/2"]
    for arm in taught:
        own = cells_of(study_file, arm.training)
        assert numbered(study_file, own) == [(0, 1), (1, 1)]
        teachers = [cell for cell in cells_of(study_file, arm.teacher) if cell.teaches]
        assert numbered(study_file, teachers) == [(0, 0), (1, 0)]
        assert [cell.school for cell in own] == [cell.school for cell in teachers]


def test_school_is_of_one_teacher() -> None:
    """So that a run at half an epoch does not learn from one at a whole epoch, nor from another
    block."""
    teachers = [cell for cell in wanted_cells(tiny_study(RUNGS)) if cell.teaches]
    assert len({cell.school for cell in teachers}) == len(teachers) == 2 * 2 * 2


def test_first_uniform_run_teaches_even_if_nobody_learns_yet() -> None:
    """Or an arm that is added later finds its teacher trained already, and no reference."""
    alone = tiny_study('compare.arms=["impon"]')
    before = {cell.name: cell.teaches for cell in wanted_cells(alone)}
    later = {cell.name: cell.teaches for cell in wanted_cells(tiny_study())}
    kept = before.keys() & later.keys()
    assert len(kept) == 2 * 2 * 5  # uniform, fraction, short, and impon at both shares
    assert {name: before[name] for name in kept} == {name: later[name] for name in kept}


def test_settings_are_those_of_arm_configuration_and_seed() -> None:
    study_file = tiny_study()
    arms = {arm.training: arm for arm in arms_of(study_file)}
    for cell in wanted_cells(study_file):
        config = arms[cell.arm].config.model_copy(update=cell.params | {"seed": cell.seed})
        assert cell.config == config
        assert (cell.test_size, cell.test_epochs) == (None, "all")


def test_policies_that_differ_in_weights_share_their_runs() -> None:
    one, two = wanted_cells(tiny_study()), wanted_cells(tiny_study(EMA))
    assert [(cell.arm, cell.params, cell.seed) for cell in two] == [
        (cell.arm, cell.params, cell.seed) for cell in one
    ]
    assert {cell.weights for cell in one} == {("last",)}
    assert {(cell.weights, cell.config.eval_weights) for cell in two} == {(("ema", "last"), "ema")}


def test_arm_that_only_one_policy_has_is_evaluated_as_that_one_asks() -> None:
    policies = "compare.policies=[{arms=['impon']}, {weights='ema', arms=['memory']}]"
    found = {cell.arm: cell.weights for cell in wanted_cells(tiny_study(policies))}
    assert found["impon cosine"] == ("last",)
    assert found["memory cosine"] == ("ema",)
    assert found["uniform cosine"] == ("ema", "last")


def test_first_policy_is_recorded_first_and_then_the_others_block_by_block() -> None:
    constant = "{schedule='constant', weights='ema'}"
    found = wanted_cells(tiny_study(RUNGS.replace("]", f", {constant}]")))
    order = [(cell.config.schedule, cell.seed) for cell in found]
    assert [part for part, _ in itertools.groupby(order)] == [
        ("cosine", 1),
        ("cosine", 2),
        ("rungs", 1),
        ("constant", 1),
        ("rungs", 2),
        ("constant", 2),
    ]


def test_hidden_test_is_looked_at_as_the_protocol_says() -> None:
    study_file = tiny_study("compare.test_size=20", "compare.test_epochs=last")
    found = {(cell.test_size, cell.test_epochs) for cell in wanted_cells(study_file)}
    assert found == {(20, "last")}


# The table.

SCORING = ("arms.memory.sampler=selective-backprop", 'compare.arms=["memory"]')


def recorded(*settings: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train a comparison; return the results of its cells and the table."""
    study_file = tiny_study(*settings)
    cells = wanted_cells(study_file)
    results = run_grid(cells, Path("cells"), n_workers=1, say=quiet)
    return results, recorded_rows(study_file, configurations(study_file, 2), results)


def test_rows_add_up() -> None:
    results, rows = recorded(*SCORING, "compare.epoch_fractions=[1]")
    assert len(rows) == sum(len(result["epochs"]) for result in results) == 3 * 2 * 2 * 2
    for row in rows:
        assert row["cost"] == 3 * row["rows_trained"] + row["rows_scored"] + row["rows_validated"]
        assert (row["rows_validated"], row["reference_cost"]) == (60, 0)
    paid = sum(epoch["cost"] for result in results for epoch in result["epochs"])
    assert sum(row["cost"] for row in rows) == paid
    scored = {row["training"] for row in rows if row["rows_scored"]}
    assert scored == {"memory cosine", "placebo cosine"}  # a placebo pays for the whole path


def test_rows_say_whose_they_are() -> None:
    study_file = tiny_study("compare.epoch_fractions=[1]", 'compare.arms=["impon"]', EMA)
    (cell,) = [
        cell
        for cell in cells_of(study_file, "impon cosine")
        if numbered(study_file, [cell]) == [(1, 1)]
    ]
    (result,) = run_grid([cell], Path("cells"), n_workers=1, say=quiet)
    first, second = recorded_rows(study_file, configurations(study_file, 2), [result])
    told = ("training", "block", "configuration", "epoch", "lr")
    assert [first[key] for key in told] == ["impon cosine", 1, 1, 1, cell.params["lr"]]
    assert second["epoch"] == 2
    for row, epoch in zip((first, second), result["epochs"], strict=True):
        for split in ("val", "test"):
            for weights in ("last", "ema"):
                key = f"{split}_accuracy_{weights}"
                assert row[key] == epoch[key]
        assert row["train_loss"] == pytest.approx(epoch["train_loss"], abs=1e-4)
        assert row["seconds_stepping"] == pytest.approx(epoch["seconds_stepping"], abs=1e-4)


def test_taught_runs_learn_from_the_teacher_of_their_block_and_share() -> None:
    study_file = tiny_study('compare.arms=["memory"]')
    cells = wanted_cells(study_file)
    results = run_grid(cells, Path("cells"), n_workers=1, say=quiet)
    assert all(len(result["epochs"]) == result["horizon"] for result in results)
    teachers = [cell for cell in cells if cell.teaches]
    homes = [path.parent.name for path in Path("cells/references").rglob("*.pt")]
    assert sorted(homes) == sorted(cell.school for cell in teachers)


def test_diverged_run_has_a_row_with_its_cost_and_why() -> None:
    study_file = tiny_study("space.lr.low=1e30", "space.lr.high=1e31")
    (cell, *_) = recording_cells(study_file, arms_of(study_file), configurations(study_file, 2))
    run_grid([cell], Path("cells"), n_workers=1, say=quiet)
    result = read_cell(cell, Path("cells"))
    (row,) = recorded_rows(study_file, configurations(study_file, 2), [result])
    assert row["epoch"] == 1
    assert row["cost"] == result["ended_cost"] == 3 * 128
    assert row["ended"] == result["ended"]
    assert not [key for key in row if "accuracy" in key]
