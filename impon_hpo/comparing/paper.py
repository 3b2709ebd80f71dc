"""The paper's figures: accuracy by epoch, training loss by iteration, accuracy by bank size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import ConfigError, NothingYetError
from impon_hpo.tuning.study_file import StudyFile

Numbers = NDArray[np.float64]
Results = Sequence[Mapping[str, Any]]
LOWEST = 0.0


def paper_summary(study_file: StudyFile, results: Results) -> dict[str, Any]:
    """Return the numbers of the paper's figures 2, 3 and 4, twice: with each arm at the learning
    rate that `[figures]` gives it, and each at its own best.

    The best one has the highest mean last validation accuracy over the seeds. Bands are the range
    of the seeds. A run that diverged keeps its last accuracy, 0 where it has none.

    Raises:
        ConfigError: `[figures]` is missing.
        NothingYetError: No run is there.
    """
    if study_file.figures is None:
        raise ConfigError("[figures] must give the learning rate at which each arm is shown.")
    if not results:
        raise NothingYetError(
            f"Nothing of study '{study_file.name}' is there yet: run `impon-hpo compare-samplers`."
        )
    given = study_file.figures
    by_arm: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
    for result in results:
        rates = by_arm.setdefault(result["arm"], {})
        rates.setdefault(result["params"]["lr"], []).append(result)
    shown = {
        "at the paper's learning rates": lambda arm, rates: given.get(arm),
        "each arm at its own best learning rate": lambda arm, rates: _best(rates),
    }
    views = [_view(study_file, title, by_arm, choose) for title, choose in shown.items()]
    environments: list[Any] = []
    for result in results:
        if result["environment"] not in environments:
            environments.append(result["environment"])
    run = study_file.run
    return {
        "study": study_file.name,
        "question": study_file.question,
        "dataset": run.dataset,
        "data": study_file.compare.get("data", ""),
        "run": run.identity(),
        "seeds": len({result["seed"] for result in results}),
        "views": views,
        "learning_rates": {
            arm: {str(rate): _last(runs).tolist() for rate, runs in sorted(rates.items())}
            for arm, rates in by_arm.items()
        },
        "environments": environments,
    }


def _last(runs: Results) -> Numbers:
    """Return the last validation accuracies in points, one a run."""
    return np.array(
        [100 * run["epochs"][-1]["val_accuracy"] if run["epochs"] else LOWEST for run in runs]
    )


def _best(rates: Mapping[float, Results]) -> float:
    return max(rates, key=lambda rate: float(_last(rates[rate]).mean()))


def _view(
    study_file: StudyFile,
    title: str,
    by_arm: Mapping[str, Mapping[float, Results]],
    choose: Callable[[str, Mapping[float, Results]], float | None],
) -> dict[str, Any]:
    lines, banks = [], []
    for arm, rates in by_arm.items():
        rate = choose(arm, rates)
        runs = rates.get(rate) if rate is not None else None
        if not runs:
            continue
        line = {"arm": arm, "lr": rate, **_accuracy(runs), **_losses(runs)}
        line["last"] = {"mean": float(_last(runs).mean()), "runs": _last(runs).tolist()}
        config = study_file.arms[arm]
        if config.sampler == "impon" and set(config.sampler_options) <= {"bank_size"}:
            banks.append({"bank_size": config.sampler_options.get("bank_size", 200), **line})
        if config.sampler != "impon" or not config.sampler_options:
            lines.append(line)
    banks.sort(key=lambda line: int(line["bank_size"]))
    return {
        "title": title,
        "lines": lines,
        "banks": [
            {
                "bank_size": line["bank_size"],
                "lr": line["lr"],
                "mean": line["last"]["mean"],
                "low": min(line["last"]["runs"]),
                "high": max(line["last"]["runs"]),
            }
            for line in banks
        ],
    }


def _band(values: Numbers) -> dict[str, list[float]]:
    return {
        "mean": values.mean(0).tolist(),
        "low": values.min(0).tolist(),
        "high": values.max(0).tolist(),
    }


def _accuracy(runs: Results) -> dict[str, Any]:
    horizon = runs[0]["horizon"]
    rows = []
    for run in runs:
        reached = [100 * epoch["val_accuracy"] for epoch in run["epochs"]]
        rows.append(reached + [reached[-1] if reached else LOWEST] * (horizon - len(reached)))
    return {"accuracy": _band(np.array(rows)), "epoch": list(range(1, horizon + 1))}


def _losses(runs: Results) -> dict[str, Any]:
    """Return training loss by iteration, over the runs that came to their end."""
    whole = [run for run in runs if len(run["epochs"]) == run["horizon"]]
    if not whole:
        return {"loss": {"mean": [], "low": [], "high": []}, "iteration": []}
    losses = np.array([np.concatenate(run["step_losses"]) for run in whole])
    n_steps = whole[0]["steps_per_epoch"] * whole[0]["horizon"]
    at = (np.arange(losses.shape[1]) + 1) * n_steps / losses.shape[1]
    return {"loss": _band(losses), "iteration": [math.floor(step) for step in at]}
