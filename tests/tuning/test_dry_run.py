"""Tests of the plan: what it promises, and what it finds before anything is spent."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch

from impon_hpo.errors import ConfigError, DataError, StorageError
from impon_hpo.tuning.dry_run import plan, plan_rows
from impon_hpo.tuning.study_file import read_study_file
from tests.conftest import STUDIES
from tests.studies import SMALL, small_study, untrained_study

ADDRESS = "sqlite:///runs/small/study.db"


def test_a_plan_counts_epochs_and_cost_and_runs_nothing() -> None:
    facts = plan(small_study(), "impon", 3, ADDRESS)
    assert facts["epochs_at_most"] == 9
    assert facts["rows"]["train"] == 240
    assert facts["steps_per_epoch"] == 7  # floor(240 / 32)
    assert facts["cost_at_most"] == 9 * (3 * 7 * 32 + 100)
    assert facts["pruner"]["min_resource"] == 1
    assert facts["missing_here"] == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("address", "artifacts"),
    [
        ("sqlite:////proc/nowhere/study.db", "artifacts"),
        ("/proc/nowhere/study.journal", "artifacts"),
        (ADDRESS, "/proc/nowhere/artifacts"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(address: str, artifacts: str) -> None:
    study_file = small_study(f"artifacts={artifacts}")
    with pytest.raises(StorageError, match="cannot be made: nothing can be written in '/proc'"):
        plan(study_file, "impon", 3, address)
    assert not Path("runs").exists()


def test_a_plan_knows_what_is_finished_already() -> None:
    study_file = small_study()
    assert plan(study_file, "impon", 3, ADDRESS)["finished_already"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("compile", ["auto", "graph", "off"])
def test_the_full_size_study_is_checked_without_gpu_and_without_data(compile: str) -> None:
    study_file = read_study_file(str(STUDIES / "cifar10"), [f"compile={compile}"])
    facts = plan(study_file, "impon", study_file.n_trials, study_file.storage)
    assert facts["parameters"] == 11_173_962
    assert facts["epochs_at_most"] == 900
    assert len(facts["missing_here"]) == 2
    assert "does not have device 'cuda'" in facts["missing_here"][0]
    assert "CIFAR-10 is not in" in facts["missing_here"][1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("arms.impon.bank_size=24", r"bank_size must be between batch_size \(32\)"),
        ("arms.impon.bank_size=241", r"number of training rows \(240\)"),
        ("model=nowhere:net", "cannot be imported"),
    ],
)
def test_a_plan_finds_what_does_not_fit_the_data(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(small_study(setting), "impon", 3, ADDRESS)


def test_every_choice_of_the_space_is_checked_and_not_only_the_default() -> None:
    # batch_size = 32 fits a bank of 40, but the space allows 64, too.
    study_file = small_study("arms.impon.bank_size=40", "space.batch_size.choices=[32, 64]")
    with pytest.raises(ConfigError, match=r"bank_size must be between batch_size \(64\)"):
        plan(study_file, "impon", 3, ADDRESS)


def test_a_conditional_setting_is_checked_beside_what_it_needs() -> None:
    # The other model has no such layers, and is that of [run].
    models = "model = ['resnet18', 'tests.training.nets:dropping']"
    layers = "train_layers = { choices = ['blocks, fc']%s }"
    other = "model=tests.training.nets:dropping"
    condition = ", when = { model = 'resnet18' }"
    conditional = f"space={{ {models}, {layers % condition} }}"
    facts = plan(small_study(conditional, other), "uniform", 3, ADDRESS)
    assert facts["space"]["train_layers"] == (
        "categorical choices ['blocks, fc'], when model is resnet18"
    )
    with pytest.raises(ConfigError, match="blocks"):
        plan(small_study(f"space={{ {models}, {layers % ''} }}", other), "uniform", 3, ADDRESS)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('space.augment={type="categorical", choices=["crop", "resized-crop"]}', "is the least"),
        ('space.augment={type="categorical", choices=["crop", "no_module:f"]}', "be imported"),
        (
            'space.augment_options.resized-crop.scale={type="categorical", choices=[0.5]}',
            "augment_options.resized-crop.scale = 0.5: Input should be a list",
        ),
    ],
)
def test_every_choice_of_augment_is_tried_on_an_image(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(small_study(setting), "impon", 3, ADDRESS)


def test_a_plan_tells_what_is_done_to_images() -> None:
    assert plan(small_study("augment=auto+erase"), "impon", 3, ADDRESS)["rows"]["augmentation"] == (
        "crop+erase"
    )


def test_a_plan_finds_that_the_storage_cannot_be_opened() -> None:
    with pytest.raises(StorageError, match="nonsense"):
        plan(small_study(), "impon", 3, "nonsense://x")


def test_rows_of_a_plan_are_flat() -> None:
    rows = dict(plan_rows(plan(small_study(), "uniform", 3, ADDRESS)))
    assert rows["run: width"] == "4"
    assert rows["space: lr"] == "float low 0.001, high 0.3, log True"


def test_optuna_still_has_what_a_plan_describes() -> None:
    assert {"_min_resource", "_reduction_factor"} <= set(
        vars(optuna.pruners.SuccessiveHalvingPruner())
    )


@pytest.mark.parametrize(
    "sampler", ["rho-loss", "impon-paced", "impon-trusted", "impon-memory", "proxy-filter"]
)
def test_sampler_that_wants_a_reference_is_checked_before_there_is_one(sampler: str) -> None:
    study_file = small_study(f"arms.impon.sampler={sampler}")
    assert plan(study_file, "impon", 3, study_file.storage)["batch_sampler"] == {"name": sampler}


def test_its_options_are_checked_too() -> None:
    broken = small_study("arms.impon.sampler=proxy-filter", "arms.impon.keep=0.0")
    with pytest.raises(ConfigError, match="keep must be above 0"):
        plan(broken, "impon", 3, broken.storage)


def test_reference_that_does_not_exist_is_told_before_anything_is_spent() -> None:
    study_file = small_study("arms.impon.sampler=rho-loss", "run.reference=crossfitt")
    with pytest.raises(ConfigError, match="Did you mean 'crossfit'"):
        plan(study_file, "impon", 3, study_file.storage)


def test_data_that_are_there_and_broken_are_not_taken_for_missing() -> None:
    """A script that checks first and trains then must stop at the check."""
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for number in range(3):
            Path("pets", name, f"{number}.png").write_bytes(b"hello")
    study_file = small_study("dataset=folder", "data_dir=pets")
    with pytest.raises(DataError, match=r"0\.png: is no picture that can be read"):
        plan(study_file, "impon", 3, ADDRESS)
    study_file = small_study("dataset=folder", "data_dir=nowhere")
    assert "There is no folder" in plan(study_file, "impon", 3, ADDRESS)["missing_here"][0]


def test_a_plan_shows_the_pruners_and_samplers_within_others() -> None:
    text = SMALL.replace(
        'name = "SuccessiveHalvingPruner"\nreduction_factor = 3',
        'name = "PatientPruner"\npatience = 1\n'
        'wrapped_pruner = { name = "ThresholdPruner", lower = 0.2 }',
    ).replace(
        'name = "RandomSampler"',
        'name = "PartialFixedSampler"\nfixed_params = { batch_size = 16 }\n'
        'base_sampler = "RandomSampler"',
    )
    rows = plan_rows(plan(small_study(text=text), "impon", 3, ADDRESS))
    assert ("pruner: wrapped_pruner.name", "ThresholdPruner") in rows
    assert ("pruner: wrapped_pruner.lower", "0.2") in rows
    assert ("study sampler: base_sampler.name", "RandomSampler") in rows
    assert ("study sampler: fixed_params", "{'batch_size': 16}") in rows


@pytest.mark.parametrize("setting", ["storage=sqlite:///~nobody-of-this-name/study.db"])
def test_home_folder_of_nobody_is_refused_in_a_sentence(setting: str) -> None:
    study_file = small_study(setting)
    with pytest.raises(ConfigError, match="begins with the home folder of a user, which is not"):
        plan(study_file, "impon", 3, study_file.storage)


def test_a_plan_says_where_there_is_nothing() -> None:
    assert plan_rows({"enqueued": {}}) == [("enqueued", "nothing")]


def test_a_plan_names_the_waiting_trials_that_will_fail() -> None:
    study_file = small_study()
    study = untrained_study(ADDRESS, [0.5])
    for params in ({"lr": -1}, {"lr": 0.01}, {"lrr": 0.01}):
        study.enqueue_trial(params)
    will_fail = plan(study_file, "impon", 3, ADDRESS)["will_fail"]
    assert will_fail.keys() == {"trial 1", "trial 3"}
    assert will_fail["trial 1"] == "lr must be a number from 0.001 to 0.3, but got -1."
