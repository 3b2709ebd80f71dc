"""Tests of the study file: what it says, how settings change it, and how its mistakes are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.space import suggest
from impon_hpo.tuning.study_file import read_study_file
from tests.conftest import STUDIES
from tests.studies import SMALL, small_study, write_study


def test_a_study_file_is_read_whole() -> None:
    study = small_study()
    assert (study.name, study.question, study.n_trials, study.seed) == (
        "small",
        "Does it run?",
        3,
        1,
    )
    assert study.storage == "sqlite:///runs/small/study.db"
    assert list(study.arms) == ["impon", "uniform"]
    assert study.arms["impon"].sampler == "impon"
    assert study.arms["impon"].seed == 1, "the study's seed, since [run] is silent"
    assert dict(study.space) == {
        "lr": FloatDistribution(1e-3, 0.3, log=True),
        "batch_size": CategoricalDistribution([16, 32]),
    }
    assert study.arm(None) == "impon"


@pytest.mark.parametrize("name", ["quickstart", "cifar10-cpu", "cifar10"])
def test_every_study_of_the_project_is_valid(name: str) -> None:
    assert read_study_file(str(STUDIES / name)).name == name


def test_a_study_is_found_by_folder_by_file_and_by_name(tmp_path: Path) -> None:
    write_study(name="other")
    Path("studies").mkdir()
    write_study(name="studies/mine")
    for given in ("other", "other/study.toml", "mine", str(Path("other").resolve())):
        assert read_study_file(given).question == "Does it run?"


def test_settings_change_run_tables_and_top_level_keys() -> None:
    study = small_study(
        "lr=0.25",
        "optimizer=adam",
        "nesterov=false",
        "arms.impon.bank_size=64",
        "pruner.min_resource=2",
        "n_trials=7",
        'question="Another?"',
        "space.lr.high=0.1",
    )
    assert study.arms["uniform"].lr == 0.25
    assert study.arms["impon"].optimizer == "adam"
    assert study.arms["impon"].sampler_options == {"bank_size": 64}
    assert study.pruner["min_resource"] == 2
    assert study.n_trials == 7
    assert study.question == "Another?"
    assert study.space["lr"] == FloatDistribution(1e-3, 0.1, log=True)


def test_an_arm_can_change_the_run() -> None:
    study = small_study(text=SMALL + "\n[arms.uniform.run]\nepoch_fraction = 0.5\n")
    assert study.arms["uniform"].epoch_fraction == 0.5
    assert study.arms["impon"].epoch_fraction == 1.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("n_trials = 3", "n_trails = 3", "Unknown key 'n_trails'. Did you mean 'n_trials'?"),
        ("n_trials = 3", "n_trials = 0", "n_trials = 0: Input should be greater than"),
        ("n_trials = 3", "", "'n_trials' is missing"),
        ("epochs = 3", "epoch = 3", "Unknown key 'run.epoch'. Did you mean 'epochs'?"),
        ("epochs = 3", "epochs = -3", "run.epochs = -3: Input should be greater than"),
        ("epochs = 3", "sampler = 'impon'", "run.sampler belongs in an arm"),
        ("width = 4", "width = 0", "run.width = 0"),
        ("batch_size = 32", "batch_size = 0", "run.batch_size = 0"),
        ('"impon"', '"impno"', "arms.impon: Unknown batch sampler 'impno'. Did you mean 'impon'"),
        ('sampler = "impon"', "bank_size = 9", "arms.impon: sampler must name a batch sampler"),
        ('"impon"', '"impon"\nbank = 9', "arms.impon: Batch sampler 'impon' has no option 'bank'"),
        ('"impon"', '"impon"\nbank_size = "9"', "Option 'bank_size' of batch sampler 'impon'"),
        ("SuccessiveHalvingPruner", "HalvingPruner", "Unknown pruner 'HalvingPruner'"),
        ("RandomSampler", "RandmSampler", "Did you mean 'RandomSampler'"),
        ("low = 1e-3", "low = 0", "space.lr"),
        ("lr = {", "lrate = {", "Unknown key 'space.lrate'"),
        ("batch_size = {", "width = 8\nbatch_size = {", "space.width = 8 is a single value"),
        (
            "batch_size = {",
            'optimizer = ["sgd", "adam"]\nnesterov = [true, false]\nbatch_size = {',
            'nesterov = { …, when = { optimizer = "sgd" } }',
        ),
        (
            "batch_size = {",
            'nesterov = { choices = [true, false], when = { optimizer = "adam" } }\nbatch_size = {',
            'optimizer = "adam", never holds, since optimizer is "sgd" and not searched over',
        ),
        ("epochs = 3", "epochs = = 3", "Invalid value"),
        ("[arms.impon]", "[armz.impon]", "Unknown key 'armz'. Did you mean 'arms'?"),
    ],
)
def test_a_mistake_names_file_key_and_what_would_be_right(old: str, new: str, said: str) -> None:
    assert old in SMALL
    folder = write_study(SMALL.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_study_file(str(folder))
    assert said in str(caught.value)
    assert "small/study.toml" in str(caught.value)


CONDITIONAL = SMALL.replace(
    "batch_size = {",
    'nesterov = { choices = [true, false], when = { optimizer = "sgd" } }\n'
    'optimizer = ["sgd", "adam"]\nbatch_size = {',
)


def test_a_setting_may_have_a_condition_which_is_part_of_the_identity() -> None:
    study = small_study(text=CONDITIONAL)
    assert study.space.conditions == {"nesterov": {"optimizer": ("sgd",)}}
    identity = study.identity("impon")["space"]
    assert identity == json.loads(json.dumps(identity)), "plain JSON"
    other = small_study("space.nesterov.when.batch_size=16", text=CONDITIONAL)
    changed = other.identity("impon")["space"]
    assert {key for key in changed if changed[key] != identity[key]} == {"nesterov"}
    assert identity["batch_size"] == small_study().identity("impon")["space"]["batch_size"]


def test_a_condition_may_name_the_batch_sampler_of_an_arm() -> None:
    text = SMALL.replace(
        "[space]", "[space]\nlr_head = { choices = [0.1], when = { sampler = 'impon' } }"
    )
    study = small_study(text=text)
    for arm, keys in (
        ("impon", {"lr", "batch_size", "lr_head"}),
        ("uniform", {"lr", "batch_size"}),
    ):
        params = suggest(optuna.create_study().ask(), study.space, study.arms[arm])
        assert set(params) == keys


def test_a_list_is_a_choice_and_continues_the_study_that_spelt_it_out() -> None:
    long = 'batch_size = { type = "categorical", choices = [16, 32] }'
    assert long in SMALL
    short = small_study(text=SMALL.replace(long, "batch_size = [16, 32]"))
    by_option = small_study("space.batch_size=[16, 32]")
    assert short.identity("impon") == by_option.identity("impon") == small_study().identity("impon")


def test_a_mistake_in_run_is_told_once_and_not_for_every_arm() -> None:
    with pytest.raises(ConfigError) as caught:
        small_study("lr=-1")
    assert len(str(caught.value).splitlines()) == 1
    assert "with --set lr=-1" in str(caught.value)


@pytest.mark.parametrize("setting", ["lr", "=3", "run.lr.low=3"])
def test_a_malformed_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="set"):
        small_study(setting)


def test_an_unknown_study_lists_those_that_are_here() -> None:
    Path("studies").mkdir()
    write_study(name="studies/mine")
    Path("studies/question").mkdir()
    write_study(name="studies/question/world")
    with pytest.raises(
        ConfigError, match=r"no study 'studies/mime'.*'mine'.*studies/mine"
    ) as caught:
        read_study_file("studies/mime")
    assert "studies/question/world" in str(caught.value)
    assert read_study_file("question/world").name == "world"


def test_an_unknown_arm_lists_the_arms() -> None:
    with pytest.raises(ConfigError, match=r"no arm 'unifrom'. Did you mean 'uniform'\?"):
        small_study().arm("unifrom")


def test_reading_leaves_the_path_of_modules_as_it_is() -> None:
    before = list(sys.path)
    assert small_study("model=nets_beside_the_study:linear").arms["impon"].model
    assert sys.path == before


def test_batch_samplers_are_not_checked_where_nobody_trains() -> None:
    folder = write_study(SMALL.replace('"impon"', '"my_samplers:Mine"\nstrength = 3'))
    with pytest.raises(ConfigError, match="'my_samplers:Mine' cannot be imported"):
        read_study_file(str(folder))
    study = read_study_file(str(folder), check_samplers=False)
    assert study.arms["impon"].sampler_options == {"strength": 3}
    with pytest.raises(ConfigError, match=r"run\.lr = -1"):
        read_study_file(str(folder), ["lr=-1"], check_samplers=False)


def test_key_of_an_arms_own_run_is_named_as_it_stands_in_the_file() -> None:
    wrong = "\n[arms.uniform.run]\nepoch_fraction = 2.0\nlrr = 1\n"
    with pytest.raises(ConfigError) as caught:
        small_study(text=SMALL + wrong)
    first, second = str(caught.value).splitlines()
    assert "arms.uniform.run.epoch_fraction = 2.0: Input should be less than" in first
    assert "Unknown key 'arms.uniform.run.lrr'. Did you mean 'lr'?" in second


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("folder = 'elsewhere'\n" + SMALL, "Unknown key 'folder'"),
        ("name = 'other'\n" + SMALL, "Unknown key 'name'"),
        (SMALL.replace("seed = 1", "seed = -1"), "seed = -1: Input should be greater than"),
        (SMALL.replace("[run]", "[ran]"), "Unknown key 'ran'. Did you mean 'run'?"),
        (SMALL + "\n[compare]\nblocks = 1\n", "compare.blocks = 1: Input should be greater"),
        (SMALL + "\n[arms]\nmine = 3\n", "arms.mine = 3: Input should be a table."),
        (SMALL.replace("[arms.impon]", "[arms.'-x']"), "an arm's name becomes part of file names"),
    ],
)
def test_every_mistake_is_told_once(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_study(text=text)
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_hyperband_over_several_arms_is_warned_of() -> None:
    assert small_study().warnings() == []
    hyperband = SMALL.replace("SuccessiveHalvingPruner", "HyperbandPruner")
    assert "not pruned alike" in small_study(text=hyperband).warnings()[0]


def test_a_file_of_weights_lies_in_the_working_directory_or_beside_the_study_file() -> None:
    write_study()
    beside = Path("small/weights.pth")
    beside.write_bytes(b"one")
    study = small_study("weights_file=weights.pth")
    assert study.arms["impon"].weights_file == str(beside.resolve())
    identity = study.identity("impon")
    beside.write_bytes(b"other")
    assert small_study("weights_file=weights.pth").identity("impon") != identity


def test_a_file_of_corrections_lies_in_the_working_directory_or_beside_the_study_file() -> None:
    write_study()
    beside, here = Path("small/labels.csv"), Path("labels.csv")
    beside.write_text("file,label\n5,3\n")
    study = small_study("relabel=labels.csv")
    assert study.run.relabel == str(beside.resolve())
    assert study.arms["impon"].relabel == str(beside.resolve())
    identity = study.identity("impon")
    assert identity["run"]["relabel"] != "labels.csv"
    here.write_text("file,label\n5,4\n")
    study = small_study("relabel=labels.csv")
    assert study.run.relabel == "labels.csv"
    assert study.identity("impon") != identity
    with pytest.raises(
        ConfigError, match=r"small/study\.toml.*exclude = 'gone\.csv' must be a CSV"
    ):
        small_study("exclude=gone.csv")
