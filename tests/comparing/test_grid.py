"""Trainings: which configurations are trained in which arms, and what learns from what."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from impon_hpo.comparing import grid as grid_module
from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.grid import (
    Grid,
    PlannedRun,
    Training,
    comparison_grid,
    configurations,
    samplers_grid,
    study_name,
)
from impon_hpo.errors import ConfigError
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import COMPARED, GRID, PREQUENTIAL, compared_study
from tests.comparing.tiny import tiny_study
from tests.studies import small_study

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
    assert space.low <= grid_module._middle(space) <= space.high


@given(st.integers(-20, 20), st.integers(0, 50), st.sampled_from([0.25, 0.5, 3.0]))
def test_middle_of_numbers_with_a_step_is_one_of_them(low: int, n_steps: int, step: float) -> None:
    space = FloatDistribution(low * step, (low + n_steps) * step, step=step)
    assert grid_module._middle(space) / step in range(low, low + n_steps + 1)


@given(st.integers(1, 1000), st.integers(0, 1000), st.booleans(), st.integers(1, 7))
def test_middle_of_whole_numbers_is_one_of_them(
    low: int, n_steps: int, log: bool, step: int
) -> None:
    step = 1 if log else step
    high = low + n_steps * step
    space = IntDistribution(low, high, log=log, step=step)
    assert grid_module._middle(space) in range(low, high + 1, step)


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


CONDITIONAL = (
    "space={ nesterov = { choices = [true, false], when = { optimizer = 'sgd' } }, "
    "optimizer = ['sgd', 'adam', 'adamw'], lr = [0.01, 0.1] }"
)
EIGHT = [
    {"optimizer": optimizer, "lr": lr} | nesterov
    for optimizer in ("sgd", "adam", "adamw")
    for lr in (0.01, 0.1)
    for nesterov in ([{"nesterov": True}, {"nesterov": False}] if optimizer == "sgd" else [{}])
]
"""All that the conditional space has."""


def test_configurations_have_conditional_settings_only_where_they_count() -> None:
    study_file = tiny_study(CONDITIONAL, "compare.configurations=8")
    drawn = configurations(study_file, 8)
    assert drawn[0] == EIGHT[0], "the first choices"
    assert sorted(drawn, key=str) == sorted(EIGHT, key=str)
    with pytest.raises(ConfigError, match=r"must be at most 8, .* but got 9\."):
        configurations(study_file, 9)


def test_middle_of_the_space_lacks_what_its_condition_leaves_out() -> None:
    first = configurations(tiny_study(CONDITIONAL, "space.optimizer=['adam', 'sgd']"), 1)
    assert first == [{"optimizer": "adam", "lr": 0.01}]


def test_condition_on_what_a_policy_changes_is_refused() -> None:
    """All arms train the same configurations."""
    space = "space={ warmup_epochs = { choices = [0.1, 0.2], when = { schedule = 'cosine' } } }"
    assert len(comparison_grid(tiny_study(space)).params) == 2
    with pytest.raises(ConfigError, match=r"when\.schedule: .* differ in schedule .*constant"):
        comparison_grid(tiny_study(space, "compare.policies=[{schedule='constant'}]"))


# The runs of `compare`.

POLICIES = "compare.policies=[{}, {schedule='constant', weights='ema'}]"


def by_name(study_file: StudyFile, *only: str) -> dict[str, Training]:
    return {training.name: training for training in comparison_grid(study_file, only).trainings}


def pairs(grid: Grid, training: Training) -> list[tuple[int, int]]:
    return [(run.block, run.configuration) for run in grid.runs(training)]


def test_every_training_has_every_configuration_in_every_block() -> None:
    study_file = tiny_study("compare.blocks=3", "compare.configurations=4")
    grid = comparison_grid(study_file)
    everything = [(block, number) for block in range(3) for number in range(4)]
    assert {arm.training for arm in arms_of(study_file)} == set(by_name(study_file))
    for arm in arms_of(study_file):
        wanted = [pair for pair in everything if pair[1] > 0 or not arm.taught]
        assert pairs(grid, grid.training(arm.training)) == wanted


def test_taught_arm_begins_with_its_teacher() -> None:
    study_file = tiny_study()
    grid = comparison_grid(study_file)
    taught = [arm for arm in arms_of(study_file) if arm.taught]
    assert [arm.name for arm in taught] == ["placebo", "placebo@1/2", "memory", "memory@1/2"]
    for arm in taught:
        for block in range(2):
            teacher = grid.teacher(grid.training(arm.training), block)
            assert teacher == PlannedRun(grid.training(arm.teacher), block, 0)
    assert grid.teacher(grid.training("impon cosine"), 0) is None


def test_uniform_run_teaches_even_if_nobody_learns_yet() -> None:
    """Or an arm that is added later finds its teacher trained already, and no reference."""
    alone, later = by_name(tiny_study('compare.arms=["impon"]')), by_name(tiny_study())
    kept = alone.keys() & later.keys()
    assert {"uniform cosine", "uniform-short@1/2 cosine", "impon@1/2 cosine"} < kept
    kept -= {"placebo cosine", "placebo@1/2 cosine"}  # of another arm
    assert [later[name] for name in kept] == [alone[name] for name in kept]
    assert {name for name in kept if alone[name].teaches == 0} == {
        "uniform cosine",
        "uniform-fraction@1/2 cosine",
    }


def test_settings_are_those_of_arm_configuration_and_seed() -> None:
    study_file = tiny_study()
    arms = {arm.training: arm for arm in arms_of(study_file)}
    grid = comparison_grid(study_file)
    for training in grid.trainings:
        for run in grid.runs(training):
            changed = grid.params[run.configuration] | {"seed": 1 + run.block}
            wanted = arms[training.name].config.model_copy(update=changed)
            assert grid.config(run) == wanted


def test_policies_that_differ_in_weights_share_their_runs() -> None:
    one, two = comparison_grid(tiny_study()), comparison_grid(tiny_study(EMA))
    assert [t.name for t in two.trainings] == [t.name for t in one.trainings]
    assert {training.weights for training in one.trainings} == {("last",)}
    assert {(t.weights, t.config.eval_weights) for t in two.trainings} == {(("ema", "last"), "ema")}


def test_arm_that_only_one_policy_has_is_evaluated_as_that_one_asks() -> None:
    policies = "compare.policies=[{arms=['impon']}, {weights='ema', arms=['memory']}]"
    weights = {name: training.weights for name, training in by_name(tiny_study(policies)).items()}
    assert weights["impon cosine"] == ("last",)
    assert weights["memory cosine"] == ("ema",)
    assert weights["uniform cosine"] == ("ema", "last")


def test_first_policy_is_recorded_first_and_then_the_others_block_by_block() -> None:
    constant = "{schedule='constant', weights='ema'}"
    grid = comparison_grid(tiny_study(RUNGS.replace("]", f", {constant}]")))
    order = [(training.config.schedule, block) for training, block in grid.stretches()]
    assert [part for part, _ in itertools.groupby(order)] == [
        ("cosine", 0),
        ("cosine", 1),
        ("rungs", 0),
        ("constant", 0),
        ("rungs", 1),
        ("constant", 1),
    ]


def test_hidden_test_is_looked_at_as_the_protocol_says() -> None:
    grid = comparison_grid(tiny_study("compare.test_size=20", "compare.test_epochs=last"))
    assert (grid.test_size, grid.test_epochs) == (20, "last")
    assert (comparison_grid(tiny_study()).test_size, grid.n_blocks) == (None, 2)


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        (["uniform"], set()),
        (["impon"], {"impon cosine"}),
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
    assert set(by_name(tiny_study(POLICIES), *only)) == {"uniform cosine", *wanted}


def test_unknown_arm_is_named_and_a_known_one_suggested() -> None:
    with pytest.raises(ConfigError, match=r"no arm 'memory@1/3'\. Did you mean 'memory@1/2'\?"):
        comparison_grid(tiny_study(), ["uniform", "memory@1/3"])


# Studies.


def names(study_file: StudyFile, only: Sequence[str] = ()) -> dict[str, str]:
    grid = comparison_grid(study_file, only)
    return {training.name: study_name(grid, training) for training in grid.trainings}


def test_runs_of_some_arms_are_those_of_all() -> None:
    """So that what was recorded for one arm is there when all are."""
    everything, some = names(tiny_study(POLICIES)), names(tiny_study(POLICIES), ["memory@1/2"])
    assert some.items() < everything.items()


@pytest.mark.parametrize(
    "settings",
    [
        ["run.momentum=0.8"],
        ["seed=2"],
        ["space.lr.high=0.2"],
        ["compare.configurations=3"],
        ["compare.test_size=20"],
        ["compare.test_epochs=last"],
        [EMA],
        ["arms.memory.run.reference=crossfit"],
    ],
    ids=str,
)
def test_other_settings_are_recorded_in_another_study(settings: list[str]) -> None:
    before, after = names(tiny_study()), names(tiny_study(*settings))
    changed = ["memory cosine"] if "arms.memory" in settings[0] else list(before)
    for name in changed:
        assert before[name] != after[name]


def test_taught_training_is_another_one_with_another_teacher() -> None:
    grid = comparison_grid(tiny_study())
    memory = grid.training("memory cosine")
    other = grid.training("memory@1/2 cosine")
    assert grid.identity(memory)["teacher"] != grid.identity(other)["teacher"]


@pytest.mark.parametrize(
    "setting", ["run.data_dir=elsewhere", "run.device=cuda", "compare.margin=9.0", "n_trials=9"]
)
def test_what_decides_no_number_does_not_change_the_study(setting: str) -> None:
    fixed = "compare.trials=2"
    assert names(tiny_study(fixed, setting)) == names(tiny_study(fixed))


def test_more_blocks_continue_the_same_studies() -> None:
    assert names(tiny_study("compare.blocks=9")) == names(tiny_study())


def test_another_version_s_results_are_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(names(tiny_study()).values())
    monkeypatch.setattr(grid_module, "versions", lambda: {"impon-hpo": "9.9"})
    assert not before & set(names(tiny_study()).values())


# The runs of `compare-samplers`.


def test_every_arm_meets_the_same_configurations_and_seeds() -> None:
    grid = samplers_grid(small_study(text=GRID), ["impon", "uniform"], 2)
    assert len(grid.params) == 2
    assert [pairs(grid, training) for training in grid.trainings] == [
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    ] * 2
    runs = [run for training in grid.trainings for run in grid.runs(training)]
    assert {grid.config(run).seed for run in runs} == {1, 2}  # from the study's seed on
    assert {grid.config(run).lr for run in runs} == {0.01, 0.1}


def test_grid_over_conditional_settings_has_each_configuration_once() -> None:
    study = small_study(CONDITIONAL, text=GRID)
    grid = samplers_grid(study, ["impon", "uniform"], 1)
    assert sorted(grid.params, key=str) == sorted(EIGHT, key=str)
    for run in grid.runs(grid.trainings[0]):
        assert grid.config(run).nesterov == grid.params[run.configuration].get("nesterov", False)


def test_condition_on_what_differs_between_arms_is_refused() -> None:
    space = "space={ lr = { choices = [0.1], when = { sampler = 'impon' } } }"
    with pytest.raises(ConfigError, match=r"space\.lr\.when\.sampler: all arms of a comparison"):
        samplers_grid(small_study(space, text=GRID), ["impon", "uniform"], 1)
    assert samplers_grid(small_study(space, text=GRID), ["impon"], 1).params == [{"lr": 0.1}]


def test_a_loss_has_no_points_to_compare() -> None:
    with pytest.raises(ConfigError, match=r"metric = 'loss': a comparison counts points"):
        comparison_grid(small_study("metric=loss"))
    with pytest.raises(ConfigError, match=r"metric = 'loss': a comparison counts points"):
        samplers_grid(small_study("metric=loss", text=GRID), ["uniform"], 1)


def test_space_that_is_not_a_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.lr: .*categorical"):
        samplers_grid(small_study(), ["uniform"], 1)


def test_prequential_reference_comes_from_the_middle_of_the_uniform_arm() -> None:
    grid = samplers_grid(small_study(*PREQUENTIAL, text=GRID), ["paced", "uniform"], 1)
    teacher = grid.teacher(grid.training("paced"), 0)
    assert teacher is not None
    assert (teacher.training.name, grid.config(teacher).lr) == ("uniform", 0.1)


def test_prequential_reference_needs_a_uniform_arm() -> None:
    study = small_study(*PREQUENTIAL, text=GRID)
    with pytest.raises(ConfigError, match=r"Arm 'paced': .* uniform arm .* there is none"):
        samplers_grid(study, ["paced"], 1)
