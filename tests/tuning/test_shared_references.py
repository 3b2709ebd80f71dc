"""The references of a study: made once, charged once, found by workers elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.testing.pruners import DeterministicPruner

from impon_hpo.errors import CheckpointError
from impon_hpo.reporting.status import summarise, summary_rows
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import COST, IDENTITY, USED, epochs_of, read_study
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.reference_folder import KeptReference, References
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits, load_splits
from impon_hpo.training.training_run import train_epochs
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.space_syntax import parse_space
from tests.command import run
from tests.studies import SMALL, write_study
from tests.training.runs import CPU, config

SPACE = {"lr": optuna.distributions.FloatDistribution(0.01, 0.1, log=True)}
CROSSFIT: dict[str, Any] = {
    "reference": "crossfit",
    "reference_options": {"epochs": 1, "width": 4, "batch_size": 32},
}
WITH_REFERENCE = (
    SMALL
    + """
[arms.memory]
sampler = "impon-memory"

[arms.memory.run]
reference = "crossfit"
reference_options = { epochs = 1, width = 2, batch_size = 32 }
"""
)


def memory_config(**given: Any) -> TrainingConfig:
    return config(sampler="impon-memory", **({"epochs": 2} | given))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(config(), CPU)


def objective(given: TrainingConfig, splits: Splits, folder: str = "here") -> Objective:
    return Objective(
        given,
        SPACE,
        splits=splits,
        artifact_store=artifact_store(str(Path("artifacts"))),
        references=References(Path(folder)),
    )


def new_study(given: TrainingConfig) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), pruner=None
    )
    study.set_user_attr(IDENTITY, {"study": "s", "arm": "memory", "run": given.identity()})
    return study


def attributes(study: optuna.Study, name: str) -> list[Any]:
    return [trial.user_attrs.get(name) for trial in study.trials]


def test_crossfit_is_made_once_charged_once_and_used_by_all(splits: Splits) -> None:
    given = memory_config(**CROSSFIT)
    study = new_study(given)
    study.optimize(objective(given, splits), n_trials=3)
    record = read_study(study)
    ((key, reference),) = record.references.items()
    assert reference["maker"] == "crossfit"
    assert reference["settings"]["epochs"] == 1
    assert reference["cost"] == 3 * (2 * 5 * 32) + 320
    assert attributes(study, USED) == [key] * 3
    facts = summarise(record)
    assert facts["cost"] == sum(attributes(study, COST)) + reference["cost"]
    assert facts["references"][0]["trials"] == [0, 1, 2]
    (row,) = [how for what, how in summary_rows(facts) if what.startswith("reference")]
    assert "crossfit (folds 2, width 4" in row
    assert f"cost {reference['cost']:,} included above, used by 3 trials" in row


def test_prequential_comes_free_from_the_first_trial(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "impon_hpo")
    given = memory_config(epoch_fraction=1.0, epochs=4)
    study = new_study(given)
    study.optimize(objective(given, splits), n_trials=3)
    assert [line for line in caplog.messages if "has no reference yet" in line] == [
        "trial 0 has no reference yet: it is trained with 'impon-memory', and what it sees of the "
        "rows is the reference of later ones"
    ]
    first, *later = attributes(study, USED)
    assert first is None
    assert len(set(later)) == 1
    (reference,) = read_study(study).references.values()
    assert (reference["maker"], reference["cost"]) == ("prequential", 0)
    ranks = [
        epochs_of(trial.user_attrs)[4]["diagnostics"].get("rank_correlation")
        for trial in study.trials
    ]
    assert ranks[0] is None  # nothing was predicted without a reference
    assert None not in ranks[1:]


def test_trial_that_diverges_teaches_nobody(splits: Splits) -> None:
    given = memory_config(epoch_fraction=1.0, epochs=4)
    study = new_study(given)
    for lr in (1e30, 0.05, 0.04):
        study.enqueue_trial({"lr": lr})
    wide = objective(given, splits)
    wide.space = parse_space({"lr": optuna.distributions.FloatDistribution(0.01, 1e30)})
    study.optimize(wide, n_trials=1)
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert read_study(study).references == {}
    study.optimize(wide, n_trials=2)
    assert [used is None for used in attributes(study, USED)] == [True, True, False]


def test_reference_comes_from_the_first_trial_that_was_not_pruned(splits: Splits) -> None:
    given = memory_config(epoch_fraction=1.0, epochs=4)
    study = new_study(given)
    study.pruner = DeterministicPruner(True)
    study.optimize(objective(given, splits), n_trials=1)
    study.pruner = optuna.pruners.NopPruner()
    study.optimize(objective(given, splits), n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "COMPLETE"]
    (key,) = read_study(study).references
    assert attributes(study, USED) == [None, None, key]
    memory = RowMemory(splits.train.labels, splits.n_classes)
    list(train_epochs(given.model_copy(update=study.trials[1].params), splits, memory=memory))
    kept = KeptReference.load(Path("here") / f"{key}.pt", splits)
    assert torch.equal(kept.reference.loss, memory.reference().loss)


def test_first_trial_is_uniform_where_the_sampler_cannot_do_without(splits: Splits) -> None:
    given = config(sampler="rho-loss", epoch_fraction=1.0, epochs=4)
    study = new_study(given)
    study.optimize(objective(given, splits), n_trials=2)
    first, second = study.trials
    uniform = config(epoch_fraction=1.0, epochs=4, **first.params)
    expected = [result.val_accuracy for result in train_epochs(uniform, splits)]
    assert list(first.intermediate_values.values()) == expected
    assert USED not in first.user_attrs
    assert USED in second.user_attrs
    assert all(epoch["rows_scored"] == 0 for epoch in epochs_of(first.user_attrs).values())
    assert all(epoch["rows_scored"] > 0 for epoch in epochs_of(second.user_attrs).values())


def test_status_says_what_the_reference_was_and_cost(
    splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(WITH_REFERENCE)
    assert run("tune", "small", "--arm", "memory", "--trials", "2") == 0
    capsys.readouterr()
    assert run("status", "small") == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("  reference ")]
    assert run("status", "small", "--format", "json") == 0
    (facts,) = json.loads(capsys.readouterr().out)
    (reference,) = facts["references"]
    assert reference["maker"] == "crossfit"
    assert reference["trials"] == [0, 1]
    assert line.startswith(f"  reference {reference['key'][:8]}: crossfit (folds 2, width 2")
    assert line.endswith(f"cost {reference['cost']:,} included above, used by 2 trials")


def test_worker_elsewhere_fetches_it_from_the_artifact_store(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = memory_config(**CROSSFIT)
    study = new_study(given)
    study.optimize(objective(given, splits, "here"), n_trials=1)
    monkeypatch.setattr(
        "impon_hpo.training.reference_folder.crossfit", lambda *_, **__: pytest.fail("made again")
    )
    study.optimize(objective(given, splits, "elsewhere"), n_trials=1)
    here, there = (sorted(Path(name).glob("*.pt")) for name in ("here", "elsewhere"))
    assert [path.name for path in here] == [path.name for path in there]
    assert here[0].read_bytes() == there[0].read_bytes()
    assert len(read_study(study).references) == 1


def test_artifact_that_is_gone_is_a_clear_error(splits: Splits) -> None:
    given = memory_config(**CROSSFIT)
    study = new_study(given)
    study.optimize(objective(given, splits, "here"), n_trials=1)
    shutil.rmtree("artifacts")
    Path("artifacts").mkdir()
    with pytest.raises(CheckpointError, match="cannot be fetched from the artifact store"):
        study.optimize(objective(given, splits, "elsewhere"), n_trials=1)
    assert not list(Path("elsewhere").glob("*.pt"))


def test_artifact_that_is_cut_short_is_rebuilt_and_replaced(
    splits: Splits, caplog: pytest.LogCaptureFixture
) -> None:
    given = memory_config(**CROSSFIT)
    study = new_study(given)
    study.optimize(objective(given, splits, "here"), n_trials=1)
    (reference,) = read_study(study).references.values()
    artifact = Path("artifacts") / reference["artifact"]
    artifact.write_bytes(artifact.read_bytes()[:100])
    study.optimize(objective(given, splits, "elsewhere"), n_trials=1)
    assert any("It is rebuilt." in line for line in caplog.messages)
    assert study.trials[1].state == optuna.trial.TrialState.COMPLETE
    (renewed,) = read_study(study).references.values()
    assert renewed["artifact"] != reference["artifact"]
    study.optimize(objective(given, splits, "third"), n_trials=1)
    assert [path.suffix for path in sorted(Path("third").iterdir())] == [".lock", ".pt"]


def test_library_use_needs_no_folder(splits: Splits, tmp_path: Path) -> None:
    given = memory_config(**CROSSFIT)
    study = new_study(given)
    study.optimize(Objective(given, SPACE, splits=splits), n_trials=1)
    assert len(read_study(study).references) == 1
    assert list((tmp_path / "cache" / "impon-hpo" / "references").glob("*.pt"))
