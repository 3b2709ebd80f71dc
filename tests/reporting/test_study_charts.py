"""Tests of the charts of a tuned study: what they show is what the trials recorded."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from impon_hpo.reporting import study_charts as module
from impon_hpo.reporting.chart import Chart, Palette
from impon_hpo.reporting.render import figure
from impon_hpo.reporting.study_charts import class_picks, study_charts
from impon_hpo.storage.trials import COST, EPOCHS, IDENTITY, StudyRecord, read_study
from tests.reporting.records import BALANCED, IDENTITY_OF_IT, LOSS, small_record


def record_of(*curves: list[float], arm: str = "impon") -> StudyRecord:
    """Return an arm whose trials are all complete, one epoch costing 10."""
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"arm": arm})
    for curve in curves:
        epochs: list[dict[str, Any]] = [
            {"epoch": at, "val_accuracy": value, "cost": 10, "diagnostics": {}}
            for at, value in enumerate(curve, start=1)
        ]
        attrs = {EPOCHS: epochs, COST: 10 * len(curve)}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=curve[-1], user_attrs=attrs))
    return read_study(study)


def charts_of(*records: StudyRecord) -> dict[str, Chart]:
    palette = Palette(["impon", "uniform", "memory"])
    return {chart.key: chart for chart in study_charts(records[0], records, palette)}


def test_every_trial_is_a_line_in_the_colour_of_its_fate() -> None:
    chart = charts_of(small_record())["accuracy-against-cost"]
    assert [series.name for series in chart.series] == ["complete (2)", "pruned (1)", "failed (1)"]
    complete, pruned, _ = chart.series
    assert list(pruned.y[:-1]) == [0.1, 0.2]
    assert list(pruned.x[:-1]) == [10, 20]
    assert sum(math.isnan(value) for value in complete.y) == 2  # between lines
    assert len({series.colour for series in chart.series}) == 3


def test_axes_say_which_accuracy_it_is() -> None:
    for record, words in (
        (small_record(), "validation accuracy"),
        (small_record(identity=BALANCED), "validation balanced accuracy"),
    ):
        charts = charts_of(record)
        for key in ("accuracy-against-cost", "pruned-when", "best-so-far"):
            assert charts[key].y.removeprefix("best ") == f"{words} (0 … 1)"
    assert charts["accuracy-against-cost"].title.startswith("Balanced accuracy against cost")


def test_axes_of_a_loss_say_that_it_is_minus_the_loss() -> None:
    charts = charts_of(small_record(identity=LOSS))
    assert charts["best-so-far"].y == "best validation minus loss"


def test_the_strip_shows_when_trials_ended() -> None:
    chart = charts_of(small_record())["pruned-when"]
    ended = {series.name: [round(float(x)) for x in series.x] for series in chart.series}
    assert ended == {"complete (2)": [9, 9], "pruned (1)": [2], "failed (1)": [1]}


def test_the_best_so_far_never_falls_and_counts_what_was_spent_before() -> None:
    arms = record_of([0.1, 0.5], [0.2, 0.4], [0.9]), record_of([0.3], arm="uniform")
    impon, uniform = charts_of(*arms)["best-so-far"].series
    assert (impon.x, impon.y) == ([20, 40, 50], [0.5, 0.5, 0.9])
    assert (uniform.x, uniform.y) == ([10], [0.3])
    spent_before = charts_of(small_record())["best-so-far"].series[0]
    assert list(spent_before.x) == [90, 110, 200, 210]  # pruned and failed trials are paid for


def test_early_judgement_is_the_rank_correlation_with_the_end() -> None:
    record = record_of([0.1, 0.1, 0.3], [0.2, 0.3, 0.2], [0.3, 0.2, 0.1])
    (series,) = charts_of(record)["early-and-final"].series
    assert series.name == "impon (3 complete trials)"
    assert list(series.x) == [1, 2]
    assert list(series.y) == [-1.0, pytest.approx(-1 / 3, abs=1e-4)]
    assert "early-and-final" not in charts_of(
        small_record()
    )  # two trials have no order to speak of


def test_diagnostics_are_charts_with_a_line_for_each_trial() -> None:
    record = record_of([0.1, 0.2], [0.3, 0.4])
    first, second = record.trials
    for epoch, fit in zip(first.epochs, (0.123456, 2.0), strict=True):
        epoch |= {"share_seen": 0.5, "diagnostics": {"fit_of_loss": fit}}
    second.epochs[1] |= {"share_seen": 0.75}  # what an epoch lacks is left out
    charts = charts_of(record)
    fit_chart = charts["diagnostic-fit-of-loss"]
    assert (fit_chart.y, fit_chart.title) == (
        "fit of loss",
        "Diagnostics: fit of loss, arm impon",
    )
    (series,) = fit_chart.series
    assert series.name == "complete (1)"
    assert list(series.x[:2]) == [1, 2]
    assert list(series.y[:2]) == [0.1235, 2.0]
    assert set(series.labels or []) == {"trial 0"}
    (seen,) = charts["diagnostic-share-seen"].series
    assert [value for value in seen.y if not math.isnan(value)] == [0.5, 0.5, 0.75]
    assert seen.x[3] == 2


def test_diagnostics_show_the_longest_trials_only() -> None:
    record = record_of(*([0.1] * length for length in range(1, 61)))
    for trial in record.trials:
        for epoch in trial.epochs:
            epoch["share_seen"] = 1.0
    (series,) = charts_of(record)["diagnostic-share-seen"].series
    assert series.name == f"complete ({module.TRIALS_DIAGNOSED})"
    assert "trial 59" in (series.labels or [])
    assert "trial 0" not in (series.labels or [])


def test_picks_by_class_are_relative_to_its_size() -> None:
    rows = [
        {"class": "small", "rows": "10", "epoch_1": "10", "epoch_2": "0"},
        {"class": "large", "rows": "100", "epoch_1": "50", "epoch_2": "25"},
    ]
    small, large = class_picks("Picks", rows).series
    assert (list(small.x), list(small.y)) == ([1, 2], [1.0, 0.0])
    assert list(large.y) == [0.5, 0.25]
    many = [{"class": f"class {at}", "rows": "1", "epoch_1": str(at)} for at in range(100)]
    names = [series.name for series in class_picks("Picks", many).series]
    assert names == [f"class {at}" for at in (*range(5), *range(95, 100))]


def test_an_arm_has_its_colour_whichever_arms_have_been_run() -> None:
    both = charts_of(record_of([0.1]), record_of([0.1], arm="memory"))["best-so-far"].series
    alone = charts_of(record_of([0.1], arm="memory"))["best-so-far"].series
    assert both[1].colour == alone[0].colour != both[0].colour


def test_a_study_without_epochs_has_no_charts() -> None:
    assert charts_of(record_of()) == {}


def test_graphs_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = [at / 31 for at in range(1, 31)]
    record = record_of(*(curve for _ in range(100)))
    charts = charts_of(record)
    assert all(len(figure(chart).to_json()) < 100_000 for chart in charts.values())
    assert "null" in figure(charts["accuracy-against-cost"]).to_json()  # what breaks the lines
    monkeypatch.setattr(module, "TRIALS_DRAWN", 60)
    assert (
        "40 trials that ended early are left out" in charts_of(record)["accuracy-against-cost"].note
    )
