"""Draws the paper's figures from what `impon-hpo compare-samplers studies/paper` has trained.

Accuracy by epoch (figure 2), training loss by iteration (figure 3) and accuracy by bank size
(figure 4), each twice: every arm at the learning rate of the paper, and at its own best one. Run

uv run python studies/paper/figures.py [--set KEY=VALUE]…

with the settings that were given to `compare-samplers`. The page, the pictures and the numbers go
to runs/paper/figures/<data set>.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from numpy.typing import NDArray

from impon_hpo.cli.app import main
from impon_hpo.cli.options import Format, Formatted, Set, quiet_optuna
from impon_hpo.console import finite, loading, print_json, print_line
from impon_hpo.errors import NothingYetError, as_typed
from impon_hpo.files import write_csv, write_file
from impon_hpo.reporting.chart import CONTROL, DASHES, KNOWN, OTHERS, Chart, Series

if TYPE_CHECKING:
    from impon_hpo.tuning.study_file import StudyFile

Numbers = NDArray[np.float64]
Run = Mapping[str, Any]
RunsByRate = Mapping[float, Sequence[Run]]

MOST_SEEDS = 100

PAPER_RATES = {
    "uniform": 1e-1,
    "adam": 1e-1,
    "selective-backprop": 1e-1,
    "p-sgd": 1e-1,
    "c-sgd": 1e-1,
    "impon-low": 1e-1,
    "impon": 1e-3,
    "impon-50": 1e-3,
    "impon-100": 1e-3,
    "impon-400": 1e-3,
    "impon-800": 1e-3,
    "impon-1600": 1e-3,
    "impon-3200": 1e-3,
}
"""The learning rate at which the paper's figures show each arm."""

DIVERGED_ACCURACY = 0.0
"""Accuracy of a run that diverged in its first epoch."""

COLOURS = (CONTROL, *OTHERS, *list(KNOWN.values())[1:])
TABLE_NOTE = (
    "Last validation accuracy in points, mean over seeds and their range; * marks the learning "
    "rate that the paper gives the arm."
)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def draw(settings: Set = None, format: Formatted = Format.table) -> None:
    """Draw the paper's figures from what `impon-hpo compare-samplers studies/paper` has trained.

    Give the same --set options as there.
    """
    with loading():
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(str(Path(__file__).parent), settings or [])
    summary = summarise(study_file, read_runs(study_file))
    dataset = study_file.run.dataset.replace("/", "_").replace(":", "_")
    page = write_figures(study_file.runs / "figures" / dataset, summary)
    if format is Format.json:
        print_json(summary)
    else:
        print_line(f"figures: {page}")


def read_runs(study_file: StudyFile) -> list[dict[str, Any]]:
    """Return the trained runs of the study, of whatever arms and seeds.

    This is the only place that knows where runs are kept. Each run has `arm`, `params` (with `lr`),
    `seed`, `epochs` (a mapping an epoch, with `val_accuracy` from 0 to 1), `step_losses` (a list an
    epoch of training losses), `steps_per_epoch`, `horizon` (epochs of a run that does not diverge)
    and `environments`.
    """
    from impon_hpo.comparing.compare import results
    from impon_hpo.comparing.grid import samplers_grid
    from impon_hpo.storage.connect import open_storage

    grid = samplers_grid(study_file, list(study_file.arms), MOST_SEEDS)
    try:
        storage = open_storage(study_file.storage, create=False)
    except NothingYetError:
        return []
    return results(study_file, grid, storage, losses=True)


def summarise(
    study_file: StudyFile, runs: Sequence[Run], rates: Mapping[str, float] = PAPER_RATES
) -> dict[str, Any]:
    """Return the numbers of figures 2, 3 and 4: with each arm at its rate in `rates`, and at its
    own best rate.

    The best rate has the highest mean last validation accuracy over the seeds. Bands are the range
    of the seeds. A run that diverged keeps its last accuracy.

    Raises:
        NothingYetError: There is no run.
    """
    if not runs:
        raise NothingYetError(
            f"Study '{study_file.name}' has no runs yet: "
            f"run `{as_typed('impon-hpo compare-samplers')}` with the same --set options."
        )
    by_arm: dict[str, dict[float, list[Run]]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], {}).setdefault(run["params"]["lr"], []).append(run)
    choices: dict[str, Callable[[str, RunsByRate], float | None]] = {
        "at the paper's learning rates": lambda arm, by_rate: rates.get(arm),
        "each arm at its own best learning rate": lambda arm, by_rate: best_rate(by_rate),
    }
    environments: list[Any] = []
    for run in runs:
        environments += [entry for entry in run["environments"] if entry not in environments]
    return {
        "study": study_file.name,
        "question": study_file.question,
        "dataset": study_file.run.dataset,
        "data": study_file.compare.data,
        "run": study_file.run.identity(),
        "seeds": len({run["seed"] for run in runs}),
        "views": [_view(study_file, title, by_arm, choose) for title, choose in choices.items()],
        "learning_rates": {
            arm: {str(rate): last_points(group).tolist() for rate, group in sorted(by_rate.items())}
            for arm, by_rate in by_arm.items()
        },
        "environments": environments,
    }


def last_points(runs: Sequence[Run]) -> Numbers:
    """Return the last validation accuracies (runs,) in points."""
    return np.array([_points(run)[-1] if run["epochs"] else DIVERGED_ACCURACY for run in runs])


def best_rate(by_rate: RunsByRate) -> float:
    """Return the learning rate with the highest mean last validation accuracy."""
    return max(by_rate, key=lambda rate: float(last_points(by_rate[rate]).mean()))


def _points(run: Run) -> list[float]:
    return [100 * epoch["val_accuracy"] for epoch in run["epochs"]]


def _view(
    study_file: StudyFile,
    title: str,
    by_arm: Mapping[str, RunsByRate],
    choose: Callable[[str, RunsByRate], float | None],
) -> dict[str, Any]:
    lines, banks = [], []
    for arm, by_rate in by_arm.items():
        rate = choose(arm, by_rate)
        runs = by_rate.get(rate) if rate is not None else None
        if not runs:
            continue
        last = last_points(runs)
        line = {"arm": arm, "lr": rate, **_accuracy(runs), **_losses(runs)}
        line["last"] = {"mean": float(last.mean()), "runs": last.tolist()}
        config = study_file.arms[arm]
        if config.sampler == "impon" and set(config.sampler_options) <= {"bank_size"}:
            banks.append(
                {
                    "bank_size": config.sampler_options.get("bank_size", 200),
                    "lr": rate,
                    "mean": float(last.mean()),
                    "low": float(last.min()),
                    "high": float(last.max()),
                }
            )
        if config.sampler != "impon" or not config.sampler_options:
            lines.append(line)
    banks.sort(key=lambda bank: int(bank["bank_size"]))
    return {"title": title, "lines": lines, "banks": banks}


def _band(values: Numbers) -> dict[str, list[float]]:
    return {
        "mean": values.mean(0).tolist(),
        "low": values.min(0).tolist(),
        "high": values.max(0).tolist(),
    }


def _accuracy(runs: Sequence[Run]) -> dict[str, Any]:
    horizon = runs[0]["horizon"]
    rows = []
    for run in runs:
        points = _points(run)
        last = points[-1] if points else DIVERGED_ACCURACY
        rows.append(points + [last] * (horizon - len(points)))
    return {"accuracy": _band(np.array(rows)), "epoch": list(range(1, horizon + 1))}


def _losses(runs: Sequence[Run]) -> dict[str, Any]:
    """Return training loss by iteration, over the runs that did not diverge."""
    complete = [run for run in runs if len(run["epochs"]) == run["horizon"]]
    if not complete:
        return {"loss": {"mean": [], "low": [], "high": []}, "iteration": []}
    losses = np.array([np.concatenate(run["step_losses"]) for run in complete])
    n_steps = complete[0]["steps_per_epoch"] * complete[0]["horizon"]
    steps = (np.arange(losses.shape[1]) + 1) * n_steps / losses.shape[1]
    return {"loss": _band(losses), "iteration": [math.floor(step) for step in steps]}


def write_figures(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write the page, `report.md`, a PNG a figure, `summary.json` and `arms.csv`; return the path
    of the page.

    Raises:
        StorageError: A file cannot be written.
    """
    from impon_hpo.reporting.html import markdown_table, page
    from impon_hpo.reporting.render import png

    charts = figures(summary)
    for chart in charts:
        write_file(folder / f"{chart.key}.png", png(chart))
    rows = arms_table(summary)
    write_csv(folder / "arms.csv", rows)
    write_file(folder / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
    title = f"{summary['study']}: {summary['dataset']}"
    lead = _lead(summary)
    facts = _facts(summary)
    text = [f"# {title}", "", lead, "", *markdown_table(rows), ""]
    for chart in charts:
        text += [f"![{chart.title}]({chart.key}.png)", ""]
    text += [f"- {name}: `{value}`" for name, value in facts]
    write_file(folder / "report.md", "\n".join(text) + "\n")
    path = folder / "index.html"
    write_file(
        path,
        page(
            title=title,
            lead=lead,
            paragraphs=[summary["question"]],
            tables=[("The arms at each learning rate", rows, TABLE_NOTE)],
            charts=charts,
            facts=facts,
        ),
    )
    return path


def figures(summary: Mapping[str, Any]) -> list[Chart]:
    """Return figures 2, 3 and 4, each in both views."""
    charts = []
    for number, view in enumerate(summary["views"], start=1):
        where = f"{summary['dataset']}, {view['title']}"
        charts.append(
            Chart(
                key=f"figure-2-accuracy-{number}",
                title=f"Figure 2: validation accuracy ({where})",
                x="epoch",
                y="validation accuracy (points)",
                series=_lines(view, "epoch", "accuracy"),
                note="Lines: mean over seeds; bands: their range.",
            )
        )
        charts.append(
            Chart(
                key=f"figure-3-loss-{number}",
                title=f"Figure 3: training loss ({where})",
                x="iteration",
                y="training loss of the rows picked",
                series=_lines(view, "iteration", "loss"),
                note="Each sampler's loss is that of the rows it picked, so the rows differ.",
            )
        )
        if len(view["banks"]) > 1:
            charts.append(
                Chart(
                    key=f"figure-4-bank-{number}",
                    title=f"Figure 4: bank size ({where})",
                    x="bank size (rows)",
                    y="last validation accuracy (points)",
                    series=[_bank_series(view["banks"])],
                    x_log=True,
                )
            )
    return charts


def _lines(view: Mapping[str, Any], x: str, y: str) -> list[Series]:
    return [
        Series(
            f"{line['arm']}, lr {line['lr']:g}",
            line[x],
            line[y]["mean"],
            line[y]["low"],
            line[y]["high"],
            colour=COLOURS[position % len(COLOURS)],
            dash=DASHES[position // len(COLOURS) % len(DASHES)],
        )
        for position, line in enumerate(view["lines"])
        if line[x]
    ]


def _bank_series(banks: Sequence[Mapping[str, Any]]) -> Series:
    return Series(
        "impon",
        [bank["bank_size"] for bank in banks],
        [bank["mean"] for bank in banks],
        [bank["low"] for bank in banks],
        [bank["high"] for bank in banks],
        colour=OTHERS[0],
    )


def arms_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row an arm: last accuracy at each learning rate."""
    paper_rates = {line["arm"]: line["lr"] for line in summary["views"][0]["lines"]}
    by_arm = summary["learning_rates"]
    rates = sorted({float(rate) for by_rate in by_arm.values() for rate in by_rate})
    rows = []
    for arm, by_rate in by_arm.items():
        row = {"arm": arm}
        for rate in rates:
            points = by_rate.get(str(rate))
            mark = " *" if paper_rates.get(arm) == rate else ""
            row[f"lr {rate:g}"] = (
                f"{sum(points) / len(points):.2f} [{min(points):.2f}, {max(points):.2f}]{mark}"
                if points
                else ""
            )
        rows.append(row)
    return rows


def _lead(summary: Mapping[str, Any]) -> str:
    sentences = []
    for view in summary["views"]:
        ranked = sorted(view["lines"], key=lambda line: -line["last"]["mean"])
        arms = "; ".join(
            f"{line['arm']} {line['last']['mean']:.1f} (lr {line['lr']:g})" for line in ranked
        )
        title = view["title"].capitalize()
        sentences.append(f"{title}, last validation accuracy in points: {arms}.")
    return " ".join(sentences)


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    from impon_hpo.reporting.html import versions_of

    run = summary["run"]
    settings = ", ".join(
        f"{key} {run[key]}"
        for key in ("model", "width", "epochs", "batch_size", "subset", "image_size", "schedule")
    )
    return [
        ("data set", summary["dataset"]),
        ("data", summary["data"] or "as the study file names them"),
        ("settings", settings),
        ("seeds", str(summary["seeds"])),
        *(("made with", versions_of(environment)) for environment in summary["environments"]),
    ]


if __name__ == "__main__":
    main(app)
