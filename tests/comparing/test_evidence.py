"""The evidence: fixed once, gathered whole or in part, continued, refused where it is another's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from impon_hpo.comparing.evidence import digest, fix, gather, read_fixed, runs_to_adopt
from impon_hpo.comparing.recordings_table import ABOUT, TABLE, Recordings, read_recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.errors import ConfigError, NothingYetError, StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import COMPARED, compared_study
from tests.comparing.tiny import (
    ONLY_IMPON,
    TINY,
    gathered,
    record,
    tiny_study,
    trials_of,
    without_seconds,
)

HOME = Path("runs/small/compare")
POLICIES = "compare.policies=[{}, {schedule='constant', weights='ema'}]"


def trainings(recordings: Recordings) -> set[str]:
    return {training for training, _, _ in recordings.runs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tiny comparison of impon is recorded whole."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        record(tiny_study(*ONLY_IMPON), command="first")
    return home


@pytest.fixture
def here(whole: Path) -> Path:
    """A copy of it, as the working directory."""
    shutil.copytree(whole, ".", dirs_exist_ok=True)
    return Path()


# What is fixed, and when.


def test_all_that_is_recorded_is_gathered(here: Path) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    recordings = gathered(study_file)
    assert trainings(recordings) == {"uniform cosine", "placebo cosine", "impon cosine"}
    assert len(recordings.runs) == 3 * 2 * 2
    (environment,) = recordings.about["environments"]
    assert environment["threads"] == 1
    assert recordings.about["command"] == "first"
    kept = read_recordings(HOME)
    assert (kept.rows, kept.about) == (recordings.rows, recordings.about)


def test_part_of_a_recording_is_gathered_as_it_is() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    with pytest.raises(NothingYetError):
        gathered(study_file)
    part = record(study_file, "uniform")
    assert trainings(part) == {"uniform cosine"}
    more = record(study_file)
    assert trainings(more) == {"uniform cosine", "placebo cosine", "impon cosine"}
    assert part.runs.items() <= more.runs.items()


def test_same_recording_gives_the_same_bytes(here: Path) -> None:
    gathered(tiny_study(*ONLY_IMPON))
    before = {name: (HOME / name).read_bytes() for name in (TABLE, ABOUT)}
    gathered(tiny_study(*ONLY_IMPON))
    assert {name: (HOME / name).read_bytes() for name in (TABLE, ABOUT)} == before


def test_first_of_several_workers_fixes_the_protocol() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    storage = open_storage("study.journal", create=True)
    assert read_fixed(study_file, storage) is None
    first = fix(study_file, storage, command="first")
    assert first.digest == digest(study_file)
    assert first.protocol == json.loads(json.dumps(study_file.protocol.identity()))
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    again = open_storage("study.journal", create=True)
    assert fix(changed, again, command="second") == first == read_fixed(changed, again)


def test_two_that_fix_at_the_same_moment_agree_on_the_first() -> None:
    """Both look, and both find nothing: the storage numbers what they write."""
    study_file = tiny_study(*ONLY_IMPON)
    storage = open_storage("study.journal", create=True)
    fix(study_file, storage, command="first")
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    (note,) = study.trials
    note.user_attrs["impon:protocol"]["command"] = "second"
    study.add_trial(note)
    fixed = read_fixed(study_file, storage)
    assert fixed is not None
    assert fixed.command == "first"


def test_study_of_that_name_that_is_not_ours_is_refused() -> None:
    storage = open_storage("study.journal", create=True)
    foreign = optuna.create_study(study_name="small-compare-protocol", storage=storage)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StorageError, match="did not make"):
        record(tiny_study(*ONLY_IMPON))


def test_study_file_that_is_changed_after_recording_has_another_digest(here: Path) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    before = gathered(study_file)
    assert before.about["digest"] == before.about["fixed_digest"] == digest(study_file)
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    for later in (gathered(changed), record(changed, command="second")):
        assert later.about["digest"] == digest(changed) != digest(study_file)
        assert later.about["fixed_digest"] == digest(study_file)
        assert (later.about["command"], later.rows) == ("first", before.rows)


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


def test_pruner_of_the_comparison_decides_and_not_that_of_the_study() -> None:
    table = "{name='promote'}"
    promoted = digest(compared_study("pruner=" + table))
    assert promoted != digest(compared_study())
    assert digest(compared_study("compare.pruner=" + table)) == promoted
    assert digest(compared_study("pruner=" + table, "compare.pruner=" + table)) == promoted
    with pytest.raises(ConfigError, match="Unknown pruner 'none'"):
        compared_study("compare.pruner={name='none'}")


def test_digest_does_not_change_with_where_it_is_recorded() -> None:
    assert digest(tiny_study("data_dir=elsewhere", "run.device=cuda")) == digest(tiny_study())


# A table that is continued.


def cut(folder: Path, n_runs: int) -> None:
    """Leave the first runs of a table only."""
    table = read_recordings(folder)
    kept = list(table.runs)[:n_runs]
    rows = [
        row for row in table.rows if (row["training"], row["block"], row["configuration"]) in kept
    ]
    Recordings(rows, table.about).write(folder)


def test_incomplete_table_is_continued_without_training_again_what_it_has(here: Path) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    everything = gathered(study_file)
    shutil.copytree(HOME, "kept")
    shutil.rmtree("runs")
    cut(Path("kept"), 5)
    later = record(study_file, storage="other.journal", recordings="kept")
    assert without_seconds(later.rows) == without_seconds(everything.rows)
    assert later.rows[:10] == everything.rows[:10]  # even the seconds: they come from the table
    assert len(trials_of(study_file, "other.journal")) == 12 - 5

    # And in pieces: the same command again trains nothing, and needs the table.
    assert record(study_file, storage="other.journal", recordings="kept").rows == later.rows
    with pytest.raises(StorageError, match="continues a table that is not here"):
        gathered(study_file, "other.journal")
    for name in (TABLE, ABOUT):
        (Path("kept") / name).rename(Path("small") / name)
    assert gathered(study_file, "other.journal").rows == later.rows


def test_teacher_is_trained_again_where_one_that_it_teaches_is_missing() -> None:
    study_file = tiny_study('compare.arms=["memory"]', "compare.epoch_fractions=[1]")
    everything = record(study_file)
    shutil.copytree(HOME, "kept")
    kept = Recordings(
        [r for r in everything.rows if r["training"] != "memory cosine" or r["block"] == 0],
        everything.about,
    )
    kept.write(Path("kept"))
    lacking = set(everything.runs) - runs_to_adopt(study_file, Path("kept"))
    assert lacking == {("memory cosine", 1, 1), ("uniform cosine", 1, 0)}
    later = record(study_file, storage="other.journal", recordings="kept")
    assert without_seconds(later.rows) == without_seconds(everything.rows)


def test_table_of_another_protocol_is_not_continued(here: Path) -> None:
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    with pytest.raises(StorageError, match="are of another protocol"):
        record(changed, storage="other.journal", recordings=str(HOME))
    assert not Path("other.journal").exists() or not optuna.get_all_study_names(
        open_storage("other.journal", create=False)
    )


# What is refused.


def test_nothing_recorded_is_nothing_yet() -> None:
    with pytest.raises(NothingYetError, match="Nothing of study 'small' is recorded yet: run"):
        gather(tiny_study(), None)


def test_mistakes_of_the_study_come_before_nothing_is_there() -> None:
    with pytest.raises(ConfigError, match=r"arms\.memory\.run\.lr: all arms"):
        gather(tiny_study("arms.memory.run.lr=0.3"), None)


def kept_beside(where: str = "small") -> None:
    """Keep of the recording no more than the table, beside the study file."""
    gathered(tiny_study(*ONLY_IMPON))
    Path(where).mkdir(exist_ok=True)
    for name in (TABLE, ABOUT):
        (HOME / name).rename(Path(where) / name)
    shutil.rmtree("runs")
    Path("study.journal").rename("elsewhere.journal")


def test_table_beside_the_study_file_is_read_where_nothing_is_recorded_here(here: Path) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    before = gathered(study_file)
    kept_beside()
    later = gather(study_file, None)
    assert (later.rows, later.about) == (before.rows, before.about)
    fix(study_file, open_storage("study.journal", create=True), command="begun")
    assert gathered(study_file).rows == before.rows  # begun here, but nothing is done


def test_what_is_recorded_here_goes_before_the_table(here: Path) -> None:
    study_file = tiny_study(*ONLY_IMPON)
    before = gathered(study_file)
    kept_beside()
    part = record(study_file, "uniform")
    assert gathered(study_file).rows == part.rows != before.rows


def test_table_keeps_what_was_fixed_and_says_what_is_asked_now(here: Path) -> None:
    before = digest(tiny_study(*ONLY_IMPON))
    kept_beside()
    changed = tiny_study(*ONLY_IMPON, "compare.margin=9.0")
    about = gather(changed, None).about
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
def test_table_of_other_runs_is_refused(here: Path, settings: list[str], complaint: str) -> None:
    kept_beside("kept")
    with pytest.raises(StorageError, match="The recordings in 'kept' ") as caught:
        gather(tiny_study(*ONLY_IMPON, *settings), None, Path("kept"))
    assert complaint in str(caught.value)


def test_table_of_other_arms_is_of_use_for_those_it_has(here: Path) -> None:
    kept_beside()
    study_file = tiny_study("compare.claim=impon")
    recordings = gather(study_file, None)
    assert "memory" in {arm.partition("@")[0] for arm in study_file.protocol.policies[0].arms}
    assert trainings(recordings) == {"uniform cosine", "placebo cosine", "impon cosine"}


def test_report_can_be_made_where_the_hidden_test_was_looked_at_last_only() -> None:
    study_file = tiny_study(*ONLY_IMPON, "compare.test_epochs=last")
    summary = summarise_comparison(study_file, record(study_file), other_pruners=False)
    assert summary["verdict"]["word"] == "inconclusive"
