"""The evidence that is committed: each table is replayed, and says what its page prints."""

from __future__ import annotations

import pytest

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.evidence import read_committed
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.summary import summarise_comparison
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
