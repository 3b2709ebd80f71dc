"""The evidence of studies/pays: its committed table is replayed, and says what its page prints."""

from __future__ import annotations

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.record_study import gather
from impon_hpo.comparing.recordings import Recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.tuning.study_file import read_study_file
from tests.conftest import STUDIES

PAGE = (STUDIES / "pays" / "README.md").read_text()
SAID = " ".join(PAGE.split())


def test_committed_table_gives_the_printed_verdict() -> None:
    study_file = read_study_file(str(STUDIES / "pays"))
    whole = gather(study_file, STUDIES / "pays")
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
    assert f"**{verdict['word'].capitalize()}" in SAID
    assert " ".join(verdict["sentence"].split()) in SAID
    assert " ".join(verdict["credit_sentence"].split()) in SAID


def test_protocol_was_fixed_before_the_recording() -> None:
    study_file = read_study_file(str(STUDIES / "pays"))
    about = gather(study_file, STUDIES / "pays").about
    assert about["digest"] == about["fixed_digest"]
    assert about["digest"] in PAGE
