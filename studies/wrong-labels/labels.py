"""How many flipped labels does `impon-hpo labels` find? Flips some, trains the run that it trains,
and writes what it finds beside the truth; and what confident learning finds, if cleanlab is there:

    uv run --with cleanlab python studies/wrong-labels/labels.py digits
    uv run --with cleanlab python studies/wrong-labels/labels.py folder --data-dir DIR

Each call replaces the rows of its data set and shares in labels.csv.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from impon_hpo import TrainingConfig, load_splits
from impon_hpo.cli.app import main
from impon_hpo.files import csv_text, write_csv
from impon_hpo.sampling.reference import Reference
from impon_hpo.training.crossfit import crossfit
from impon_hpo.training.images import Images
from impon_hpo.training.splits import Split
from impon_hpo.tuning.wrong_labels import judge, watch

TABLE = Path(__file__).with_name("labels.csv")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
RUN: dict[str, Any] = {
    "width": 8,
    "epochs": 9,
    "eval_weights": "ema",
    "batch_size": 64,
    "lr": 0.05,
}
SMALLER: dict[str, Any] = {"subset": 5000, "validation_size": 1000, "image_size": 16}
"""Of data sets other than the digits, which are small already."""

FOLDS = {"folds": 3, "width": 8, "epochs": 9}
"""Confident learning is meant for predictions of models that were not trained on the row."""

CPU = torch.device("cpu")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def measure(
    dataset: str, data_dir: str | None, seed: int, shares: Sequence[float], *, folds: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row for each share of flipped labels and each method."""
    settings = RUN | {"dataset": dataset, "data_dir": data_dir, "seed": seed}
    settings |= {} if dataset == "digits" else SMALLER
    clean = load_splits(TrainingConfig(**settings), CPU)
    names = clean.train.names + clean.validation.names
    truth = torch.cat([clean.train.labels, clean.validation.labels]).numpy()
    for share in shares:
        with tempfile.TemporaryDirectory() as folder:
            flips = Path(folder) / "flips.csv"
            rows = [
                {"file": names[row], "label": clean.class_names[label]}
                for row, label in flipped(truth, share, clean.n_classes, seed).items()
            ]
            flips.write_text(csv_text(rows, ["file", "label"]), encoding="utf-8")
            config = TrainingConfig(**settings, relabel=str(flips))
            splits = load_splits(config, CPU)
            reference = watch(config, splits, Path(folder))
        given = torch.cat([splits.train.labels, splits.validation.labels])
        labels = given.numpy()
        world = {"dataset": dataset, "seed": seed, "rows": len(labels), "true_share": share}
        wrong = labels != truth
        judgement = judge(reference, given)
        listed = (judgement.probability > 0.5).numpy()
        ranked = judgement.order.numpy()
        found = ranked[: wrong.sum()][wrong[ranked[: wrong.sum()]]]
        yield (
            world
            | {"method": "mixture", "separation": judgement.separation, "tells": judgement.tells}
            | precision(ranked, wrong)
            | {"estimated_share": judgement.share, "error": judgement.error}
            | _listed(listed, wrong)
            | {"likely_right": _mean(judgement.likely.numpy()[found] == truth[found])}
        )
        if find_spec("cleanlab") is not None:
            yield world | {"method": "confident learning"} | confident(labels, reference, wrong)
            if folds and seed == 0:
                held_out = config.model_copy(update={"reference_options": FOLDS})
                images = torch.cat([splits.train.images[:], splits.validation.images[:]])
                both = dataclasses.replace(splits, train=Split(Images.of_tensor(images), given))
                apart, _ = crossfit(held_out, both)
                yield (
                    world
                    | {"method": "confident learning by 3 folds"}
                    | confident(labels, apart, wrong)
                )


def flipped(truth: NDArray[np.int64], share: float, n_classes: int, seed: int) -> dict[int, int]:
    """Return other labels, at random, for a share of the rows."""
    random = np.random.default_rng([seed, 7, 1])
    rows = random.permutation(len(truth))[: round(share * len(truth))]
    return {
        int(row): int(truth[row] + random.integers(1, n_classes)) % n_classes
        for row in rows.tolist()
    }


def precision(ranked: NDArray[np.int64], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share of wrong labels among the first rows: 50, 200, and as many as are wrong."""
    return {
        "at_50": _mean(wrong[ranked[:50]]),
        "at_200": _mean(wrong[ranked[:200]]),
        "at_true_share": _mean(wrong[ranked[: wrong.sum()]]),
    }


def confident(
    labels: NDArray[np.int64], reference: Reference, wrong: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return what cleanlab finds, by its defaults."""
    find_label_issues = import_module("cleanlab.filter").find_label_issues
    get_label_quality_scores = import_module("cleanlab.rank").get_label_quality_scores
    probabilities = reference.probabilities.double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    listed = find_label_issues(labels, probabilities, n_jobs=1)
    ranked = np.argsort(get_label_quality_scores(labels, probabilities), kind="stable")
    return (
        precision(ranked, wrong)
        | {"estimated_share": float(listed.mean())}
        | _listed(listed, wrong)
    )


def _listed(listed: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "listed": int(listed.sum()),
        "precision_of_listed": _mean(wrong[listed]),
        "recall_of_listed": _mean(listed[wrong]),
    }


def _mean(values: NDArray[np.bool_]) -> float | str:
    return float(values.mean()) if len(values) else ""


@app.command()
def measure_all(
    dataset: Annotated[str, typer.Argument(help="digits, fashion-mnist, folder …")],
    data_dir: Annotated[str | None, typer.Option(help="Folder of the data.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Flips, splits and weights.")] = 2,
    share: Annotated[list[float] | None, typer.Option(help="Only these; repeated.")] = None,
    folds: Annotated[bool, typer.Option(help="Confident learning by 3 folds, too.")] = True,
) -> None:
    """Flip labels of a data set, find them, and write labels.csv."""
    torch.set_num_threads(1)
    shares = share or SHARES
    others: list[dict[str, Any]] = []
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as file:
            others = [
                row
                for row in csv.DictReader(file)
                if row["dataset"] != dataset or float(row["true_share"]) not in shares
            ]
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for row in measure(dataset, data_dir, seed, shares, folds=folds):
            short = {key: f"{row[key]:.4g}" for key in row if isinstance(row[key], float)}
            rows.append(row | short)
            write_csv(TABLE, others + rows)


if __name__ == "__main__":
    main(app)
