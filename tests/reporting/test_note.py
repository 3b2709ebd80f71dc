"""Tests of the note: question, settings, cost, result and the commands to continue."""

from __future__ import annotations

import json
from pathlib import Path

from impon_hpo.reporting.note import note, read_card
from impon_hpo.storage.trials import IDENTITY, LABELS, UNTIL, read_study
from impon_hpo.tuning.lease import put_back
from tests.reporting.records import IDENTITY_OF_IT, small_record
from tests.reporting.running import add_epochs, begun_study


def test_the_note_says_what_was_run_and_how_and_what_came_of_it() -> None:
    record = small_record()
    text = note(record, [record])
    for expected in (
        "# small: arm `impon`",
        "Which one?",
        "`impon` (bank_size = 100)",
        "`MedianPruner(n_startup_trials=3)`",
        "2 trials complete, 1 pruned, 1 failed",
        "21 epochs of 28",
        "210 forward-equivalents of 280: 25% saved by pruning",
        "trial 2, with validation accuracy 0.9000",
        "impon-hpo train studies/small \\\n  --arm impon \\\n  --set ",  # long: no scrolling
        "impon-hpo tune studies/small --arm impon --set epochs=9",
        "| `impon` | 2 / 1 | 0.9000 | 2 | 210 | 75% |",
        "| width | `4` |",
        "| lr (searched) | float low 0.001, high 1.0 |",
        "torch 2.15.0; a CPU",
    ):
        assert expected in text
    assert "compare-studies" not in text
    assert "Answer" not in text


def test_arms_link_to_the_page_that_compares_them() -> None:
    impon, uniform = small_record(), small_record(arm="uniform")
    text = note(impon, [impon, uniform])
    assert "| `uniform` | 2 / 1 |" in text
    assert "(/dashboard/compare-studies?ids=0,0)" in text  # each in a storage of its own


def test_what_was_found_of_wrong_labels_is_told_with_its_picture() -> None:
    record = small_record()
    assert "## Labels" not in note(record, [record])
    record.optuna_study.set_user_attr(LABELS, {"sentence": "About <9> %.", "artifact": "ab-1"})
    text = note(read_study(record.optuna_study), [record])
    assert "## Labels\n\nAbout &lt;9&gt; %.\n" in text
    assert "(/artifacts/0/ab-1)" in text
    record.optuna_study.set_user_attr(LABELS, {"sentence": "Nothing.", "artifact": None})
    assert "/artifacts/" not in note(read_study(record.optuna_study), [record])


def test_note_opens_with_the_card_where_there_is_one() -> None:
    folder = Path("runs/small")
    assert read_card(folder) is None
    (folder / "report").mkdir(parents=True)
    summary = folder / "report" / "summary.json"
    card = {
        "answer": "Yes: it pays, at <b>last</b>.",
        "what_to_do": "Tune with memory:",
        "command": "impon-hpo tune small --arm memory",
        "how_sure": "Very.",
        "rests_on": "digits.",
        "earned": True,
    }
    summary.write_text(json.dumps({"card": card}))
    record = small_record()
    lines = note(record, [record], read_card(folder)).splitlines()
    assert lines[2:9:2] == [
        "**Answer:** Yes: it pays, at &lt;b&gt;last&lt;/b&gt;.",
        "**What to do:** Tune with memory: `impon-hpo tune small --arm memory`",
        "**How sure:** Very.",
        "**Rests on:** digits.",
    ]
    summary.write_text('{"verdict": ')
    assert read_card(folder) is None
    summary.write_text('{"views": []}')  # of something else: no verdict
    assert read_card(folder) is None


def test_note_says_who_waits_to_be_promoted() -> None:
    study = begun_study()
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"pruner": {"name": "promote"}})
    trials = [study.ask() for _ in range(3)]
    for trial, until, accuracies in zip(
        trials, (1, 3, 1), ([0.2], [0.3, 0.4, 0.6], [0.1]), strict=True
    ):
        add_epochs(trial, *accuracies)
        trial.set_user_attr(UNTIL, until)
        put_back(study, trial._trial_id)
    record = read_study(study)
    assert (
        "0 failed, 3 waiting to be promoted (the first of them: trial 1, place 1 of 1 at epoch 3)."
        in note(record, [record])
    )
    assert "waiting" not in note(small_record(), [small_record()])
