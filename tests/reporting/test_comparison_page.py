"""The report of a comparison: self-contained, escaped, the same every time, verdict first."""

from __future__ import annotations

import base64
import json
import math
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from impon_hpo.comparing.curves import curves_of
from impon_hpo.errors import StorageError
from impon_hpo.reporting.chart import CONTROL
from impon_hpo.reporting.comparison_charts import comparison_charts, curves_chart, views
from impon_hpo.reporting.comparison_page import (
    HEADINGS,
    SHORT,
    arms_table,
    html,
    in_hand_table,
    markdown,
    policies_table,
    pruners_table,
    warnings,
    with_headings,
    write_curves,
    write_report,
)
from tests.comparing.test_curves import UNIFORM, run
from tests.reporting.comparison import N_BLOCKS, NASTY, summary_of


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("summary"))
        return summary_of(f"question={NASTY}", pruners=True)


def test_everything_is_written_and_opens_with_the_card(summary: dict[str, Any]) -> None:
    page = write_report(Path("report"), summary)
    assert page == Path("report/index.html")
    written = {path.name for path in Path("report").iterdir()}
    assert {"index.html", "report.md", "summary.json", "arms.csv", "pruners.csv"} <= written
    for chart in comparison_charts(summary):
        assert (Path("report") / f"{chart.key}.png").read_bytes()[:4] == b"\x89PNG"
    lines = Path("report/report.md").read_text().splitlines()
    assert lines[2].startswith("**Answer:** Yes: with impon@1/2, a study costs 0.3")
    assert lines[4].startswith("**What to do:** Tune with impon@1/2, then `train` its pick")
    assert any(line.startswith("**Supported: under SuccessiveHalving") for line in lines)
    text = page.read_text()
    assert (
        text.index("Yes: with impon@1/2") < text.index("Supported: under") < text.index("<figure>")
    )
    first = {path.name: path.read_bytes() for path in Path("report").iterdir()}
    write_report(Path("report"), summary)
    assert {path.name: path.read_bytes() for path in Path("report").iterdir()} == first


def test_commands_begin_as_the_reader_began(
    summary: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = summary["card"]["command"]
    assert f"`{command}`" in markdown(summary)
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    write_report(Path("report"), summary)
    assert f"`uv run {command}`" in Path("report/report.md").read_text()
    assert f"uv run {command}" in unescape(Path("report/index.html").read_text())
    assert json.loads(Path("report/summary.json").read_text())["card"]["command"] == command


def test_report_says_which_accuracy_it_is(summary: dict[str, Any]) -> None:
    assert "hidden-test accuracy after" in markdown(summary)
    balanced = summary_of("metric=balanced-accuracy")
    text = markdown(balanced)
    assert "hidden-test balanced accuracy after" in text
    assert "agreement of validation balanced accuracy and truth" in text
    for chart in comparison_charts(balanced):
        words = " ".join((chart.title, chart.x, chart.y)).lower()
        assert words.count("accuracy") == words.count("balanced accuracy")
    results = curves_of([UNIFORM], chance=0.0)
    chart = curves_chart(results, control="uniform", metric="balanced accuracy")
    assert chart.y.startswith("validation balanced accuracy")


def test_the_picture_of_wrong_labels_is_in_the_page_where_there_is_one(
    summary: dict[str, Any],
) -> None:
    folder = Path("runs/small/report")
    assert "look wrong" not in write_report(folder, summary).read_text()
    (folder.parent / "labels.png").write_bytes(b"\x89PNG of labels")
    page = write_report(folder, summary).read_text()
    picture = base64.b64encode(b"\x89PNG of labels").decode()
    assert f'src="data:image/png;base64,{picture}"' in page
    assert "Images whose labels look wrong" in page


def test_page_needs_no_network_and_runs_nothing_it_was_given(summary: dict[str, Any]) -> None:
    page = html(summary)
    assert "<link" not in page
    assert 'src="http' not in page
    assert NASTY not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_numbers_are_json(summary: dict[str, Any]) -> None:
    never = json.loads(json.dumps(summary)) | {}
    never["arms"][1]["cost_to_reach"]["2"] = math.inf
    write_report(Path("report"), never)
    read = json.loads(Path("report/summary.json").read_text())
    assert read["arms"][1]["cost_to_reach"]["2"] is None
    assert "| never |" in markdown(never)


def test_charts_show_what_was_measured(summary: dict[str, Any]) -> None:
    charts = {chart.key: chart for chart in comparison_charts(summary)}
    assert set(charts) == {
        "regret-against-cost",
        "accuracy-against-cost",
        "tau-against-cost",
        "forest-cost",
        "forest-loss",
        "pruned-when",
        "seconds-by-phase",
        "learning-rates",
        "pareto",
    }
    arms = [row["arm"] for row in summary["arms"]]
    accuracy = charts["accuracy-against-cost"]
    assert [series.name for series in accuracy.series] == arms
    uniform = accuracy.series[0]
    assert uniform.x[0] == 1.0  # in epochs of uniform sampling
    assert all(
        low <= mean <= high
        for low, mean, high in zip(uniform.low or [], uniform.y, uniform.high or [], strict=True)
    )
    # Half of the points cost what the world says.
    impon = accuracy.series[arms.index("impon@1/2")]
    assert impon.x[0] == pytest.approx(0.375)
    assert list(charts["learning-rates"].series[0].x) == [0.003, 0.01, 0.03, 0.1, 0.3]
    truth = [float(value) for value in charts["pruned-when"].series[0].x]
    assert truth == sorted(truth)
    assert [limit for _, limit, _ in charts["forest-cost"].limits] == [0.5]
    assert len(charts["forest-loss"].series[0].y) == N_BLOCKS


def test_each_arm_has_one_colour(summary: dict[str, Any]) -> None:
    colours: dict[str, set[str]] = {}
    for chart in comparison_charts(summary):
        for series in chart.series:
            if series.name in {row["arm"] for row in summary["arms"]}:
                colours.setdefault(series.name, set()).add(series.colour)
    assert all(len(shades) == 1 for shades in colours.values())
    assert len({next(iter(shades)) for shades in colours.values()}) == len(colours)


def test_table_has_bounds_and_one_policy_has_no_table(summary: dict[str, Any]) -> None:
    rows = {row["arm"]: row for row in arms_table(summary)}
    assert rows["uniform"]["cost_ratio"] == "1"
    point, bounds = rows["impon@1/2"]["cost_ratio"].split(" ", 1)
    low, high = (float(bound) for bound in bounds.strip("[]").split(", "))
    assert low <= float(point) <= high < 0.5
    assert rows["impon@1/2"]["verdict"] == "supported"
    assert rows["impon@1/2"]["credit"] == "importance"
    assert policies_table(summary) == []
    assert list(views(summary).values()) == [set(rows)]
    two = summary_of("compare.policies=[{}, {schedule='constant'}]")
    assert [row["policy"] for row in policies_table(two)] == ["cosine, last", "constant, last"]
    first, second = views(two)
    assert (first, second) == ("1/2 of an epoch (cosine, last)", "1/2 of an epoch (constant, last)")
    assert not any("constant" in name for name in views(two)[first])
    assert all("constant" in name for name in views(two)[second])
    assert f"<option>{second}</option>" in html(two)
    assert "<select" not in html(summary)


HELD = ('compare.endpoint="in-hand"', 'compare.epoch_fractions=[1, "1/2"]')


def test_report_of_what_one_holds_in_the_end() -> None:
    summary = summary_of(*HELD, 'compare.claim="uniform-short@1/2 then impon"', pruners=True)
    rows = {row["way"]: row for row in in_hand_table(summary)}
    assert rows["uniform"] == {
        "way": "uniform",
        "cost_ratio": "1.00",
        "accuracy": rows["uniform"]["accuracy"],
        "gain": "0",
        "ratio": "1",
        "verdict": "",
    }
    assert {"impon", "impon@1/2", "uniform-short@1/2 then uniform"} <= rows.keys()
    charts = {chart.key: chart for chart in comparison_charts(summary)}
    assert {series.name for series in charts["in-hand"].series} == {
        "uniform",
        "uniform-short@1/2 then impon",
        *(entry["way"] for entry in summary["verdict"]["controls"]),
    }
    assert len(charts["forest-gain"].series[0].y) == N_BLOCKS
    text, page = markdown(summary), html(summary)
    assert text.splitlines()[2].startswith("**Answer:** ")
    assert "## What one holds in the end" in text
    assert "What one holds in the end" in page
    assert "the model in hand is more than 0 points better than that of uniform sampling" in page
    # Under each pruner the claim has its gain in hand, too.
    gains = [row["gain"] for row in pruners_table(summary) if row["arm"] == "uniform-short@1/2"]
    assert len(gains) > 5
    assert all("[" in gain for gain in gains)


def test_keys_are_identifiers_and_people_see_headings(summary: dict[str, Any]) -> None:
    two = summary_of("compare.policies=[{}, {schedule='constant'}]")
    held = summary_of(*HELD)
    tables = [arms_table(summary), pruners_table(summary), policies_table(two), in_hand_table(held)]
    keys = {key for rows in tables for key in rows[0]}
    assert all(key.isidentifier() for key in keys)
    assert set(HEADINGS) <= keys
    short = with_headings(arms_table(summary), SHORT)
    assert list(short[0])[2:5] == ["cost ratio", "loss (points)", "gain at the budget"]
    page, text = html(summary), markdown(summary)
    for heading in ("cost (uniform epochs)", "τ-b first", "to epoch 2", "top 3 pruned"):
        assert f"<th>{heading}</th>" in page
        assert f"| {heading} |" in text
    assert "cost_ratio" not in text


def test_reader_is_warned(summary: dict[str, Any]) -> None:
    assert warnings(summary) == []
    changed = summary | {"recordings": summary["recordings"] | {"digest": "b"}}
    assert "was changed after recording had begun" in warnings(changed)[0]
    assert "<strong>Warning:</strong> the study file was changed" in html(changed)
    assert "Warning: the study file was changed" in markdown(changed)
    missing = summary | {"protocol": summary["protocol"] | {"n_blocks": 9}}
    assert f"some arms have {N_BLOCKS} of 9 blocks" in warnings(missing)[0]


def test_folder_that_cannot_be_made_is_told(summary: dict[str, Any]) -> None:
    Path("report").write_text("in the way")
    with pytest.raises(StorageError, match="'report"):
        write_report(Path("report"), summary)


def test_a_picture_that_cannot_be_written_costs_no_other_file(
    summary: dict[str, Any], said: list[str]
) -> None:
    write_report(Path("whole"), summary)
    names = {path.name for path in Path("whole").iterdir()}
    Path("report/pareto.png").mkdir(parents=True)
    write_report(Path("report"), summary)
    assert {path.name for path in Path("report").iterdir() if path.is_file()} == (
        names - {"pareto.png"}
    )
    (line,) = said
    assert line.startswith("Picture 'report/pareto.png' could not be drawn: 'report/pareto.png'")


def test_page_of_compare_samplers_has_its_table_and_its_chart(tmp_path: Path) -> None:
    curves = curves_of([UNIFORM, run("<new>", [0.1, 0.2, 0.3, 0.4])], chance=0.0)
    rows = [{"arm": "uniform", "cost_of_step": 1.0}]
    path = tmp_path / "deep" / "p.html"
    write_curves(path, curves, rows, control="uniform", title="a study", metric="accuracy")
    page = path.read_text()
    assert "<h1>a study</h1>" in page
    assert "<th>cost of step</th>" in page
    assert "<new>" not in page  # written into the page as data, not as markup
    assert 'src="http' not in page
    assert "Data and settings" not in page
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_curves(
            tmp_path / "file" / "p.html", curves, rows, control="uniform", title="", metric=""
        )


def test_cost_is_in_epochs_of_the_control_and_bands_are_of_the_mean() -> None:
    results = [
        run("uniform", [0.1, 0.2, 0.3, 0.4]),
        run("uniform", [0.3, 0.2, 0.3, 0.4], seed=1),
        run("dear", [0.2, 0.3, 0.4, 0.5], cost=150.0),
    ]
    uniform, dear = curves_chart(
        curves_of(results, chance=0.0), control="uniform", metric="accuracy"
    ).series
    assert uniform.x == [1.0, 2.0, 3.0, 4.0]
    assert dear.x == [1.5, 3.0, 4.5, 6.0]
    assert uniform.y == pytest.approx([0.2, 0.2, 0.3, 0.4])
    # Spread of 0.1 and 0.3: √0.02; of the mean of two: 0.1.
    assert uniform.high == pytest.approx([0.396, 0.2, 0.3, 0.4])
    assert uniform.low == pytest.approx([0.004, 0.2, 0.3, 0.4])
    assert dear.low == dear.y == dear.high
    assert uniform.colour == CONTROL != dear.colour


def test_many_arms_of_compare_samplers_can_be_told_apart() -> None:
    results = [run(f"arm {number}", [0.1, 0.2, 0.3, 0.4]) for number in range(18)]
    chart = curves_chart(curves_of(results, chance=0.0), control="arm 0", metric="accuracy")
    assert len({(series.colour, series.dash) for series in chart.series}) == 18
