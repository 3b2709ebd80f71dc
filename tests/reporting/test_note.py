"""Tests of the note: question, settings, cost, result and the commands to continue."""

from __future__ import annotations

import json
from pathlib import Path

from impon_hpo.reporting.note import note, read_verdict
from tests.reporting.records import small_record


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
    assert "Verdict" not in text


def test_arms_link_to_the_page_that_compares_them() -> None:
    impon, uniform = small_record(), small_record(arm="uniform")
    text = note(impon, [impon, uniform])
    assert "| `uniform` | 2 / 1 |" in text
    assert "(/dashboard/compare-studies?ids=0,0)" in text  # each in a storage of its own


def test_a_verdict_is_told_where_there_is_one() -> None:
    folder = Path("runs/small")
    assert read_verdict(folder) is None
    (folder / "report").mkdir(parents=True)
    summary = folder / "report" / "summary.json"
    verdict = {"sentence": "Supported: it pays.", "credit_sentence": "By importance."}
    summary.write_text(json.dumps({"verdict": verdict}))
    record = small_record()
    assert "**Supported: it pays.** By importance." in note(record, [record], read_verdict(folder))
    summary.write_text('{"verdict": ')
    assert read_verdict(folder) is None
    summary.write_text('{"views": []}')  # of something else: no verdict
    assert read_verdict(folder) is None
