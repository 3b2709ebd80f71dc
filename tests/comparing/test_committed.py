"""The evidence that is committed: each table is replayed, and says what its page prints."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.evidence import read_committed
from impon_hpo.comparing.outcomes import Truth, outcome
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.tuning.report_signal import MEASURED
from impon_hpo.tuning.study_file import read_study_file
from tests.conftest import STUDIES


def page(study: str) -> str:
    return " ".join((STUDIES / study / "README.md").read_text().split())


@pytest.mark.parametrize("study", ["pays", "quickstart"])
def test_committed_table_gives_the_printed_verdict(study: str) -> None:
    study_file = read_study_file(str(STUDIES / study))
    whole = read_committed(study_file, STUDIES / study)
    # The claim and what it is held against; all the rest takes a minute more.
    claim = study_file.protocol.claim
    fraction = claim.partition("@")[2]
    asked = {
        "uniform",
        claim,
        *(f"{kind}@{fraction}" for kind in ("uniform-fraction", "uniform-short", "placebo")),
    }
    trainings = {arm.training for arm in arms_of(study_file) if arm.name in asked}
    rows = [row for row in whole.rows if row["training"] in trainings]
    summary = summarise_comparison(study_file, Recordings(rows, whole.about), other_pruners=False)
    assert {row["arm"] for row in summary["arms"]} >= asked
    verdict = summary["verdict"]
    assert f"**{verdict['word'].capitalize()}" in page(study)
    assert verdict["sentence"] in page(study)
    assert verdict["credit_sentence"] in page(study)


def test_what_is_said_of_the_training_loss_as_a_signal_is_in_the_table() -> None:
    def lost_best(policy: str, *settings: str) -> float:
        study_file = read_study_file(str(STUDIES / "pays"), settings)
        arm = next(arm for arm in arms_of(study_file) if f"{arm.kind} {arm.policy}" == policy)
        protocol = study_file.protocol
        measured = outcome(
            table,
            arm,
            truth,
            protocol.pruner,
            n_trials=protocol.n_trials,
            n_orders=protocol.orders,
            budgets={},
            budget_grid=(),
        )
        return float(measured.lost_best.mean())

    study_file = read_study_file(str(STUDIES / "pays"))
    table = read_committed(study_file, STUDIES / "pays")
    uniform = arms_of(study_file)[0]
    truth = Truth(table, uniform, study_file.protocol.n_configurations)
    taus = []
    for block in truth.blocks:
        first = [table.runs[uniform.training, block, number].epochs[:1] for number in range(12)]
        accuracy = [epoch["val_accuracy_last"] for (epoch,) in first]
        minus_loss = [-epoch["train_loss"] for (epoch,) in first]
        worth = truth.of(block)
        taus.append([stats.kendalltau(seen, worth).statistic for seen in (minus_loss, accuracy)])
    of_loss, of_accuracy = np.mean(taus, axis=0)
    by_loss = lost_best("uniform cosine, last", "report=train-loss")
    averaged = lost_best("uniform cosine, ema")
    assert f"{of_loss:.2f} against {of_accuracy:.2f}" in MEASURED
    assert f"in {100 * by_loss:.0f} % of the studies, those in {100 * averaged:.0f} %" in MEASURED
    assert MEASURED.partition("one epoch than")[2].partition("(")[2] in page("pays")
    with pytest.raises(StorageError, match="no column 'val_loss' of 'uniform'"):
        lost_best("uniform cosine, last", "report=val-loss")
    with pytest.raises(ConfigError, match="'ema' needs averaged weights"):
        lost_best("uniform cosine, last", "report=ema")


@pytest.mark.parametrize("study", ["pays", "quickstart"])
def test_protocol_was_fixed_before_the_recording(study: str) -> None:
    study_file = read_study_file(str(STUDIES / study))
    about = read_committed(study_file, STUDIES / study).about
    assert about["digest"] == about["fixed_digest"]
    assert about["digest"] in page(study)


RECORDED = sorted(path.parent.name for path in (STUDIES / "wrong-labels").glob("*/*.csv.xz"))


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(study, marks=[] if study == "digits-40" else pytest.mark.slow)
        for study in RECORDED
    ],
)
def test_committed_table_gives_the_printed_answer(study: str) -> None:
    study_file = read_study_file(str(STUDIES / "wrong-labels" / study))
    recordings = read_committed(study_file, study_file.folder)
    assert recordings.about["digest"] == recordings.about["fixed_digest"]
    assert recordings.about["digest"] in page("wrong-labels")
    summary = summarise_comparison(study_file, recordings, other_pruners=False)
    assert summary["card"]["answer"] in page("wrong-labels")
    assert summary["verdict"]["credit_sentence"] in page("wrong-labels")
