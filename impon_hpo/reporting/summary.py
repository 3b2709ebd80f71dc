"""The summary of one arm: trials by state, best configuration, cost, and what pruning saved."""

from __future__ import annotations

import shlex
from typing import Any

from impon_hpo.storage.trials import StudyRecord


def summarise(record: StudyRecord) -> dict[str, Any]:
    """Return the plain facts of one arm, ready for JSON."""
    done = [trial for trial in record.trials if trial.state in ("COMPLETE", "PRUNED", "FAIL")]
    epochs = sum(len(trial.epochs) for trial in done)
    # A reference is paid once, with pruning and without.
    references = sum(reference["cost"] for reference in record.references.values())
    cost = references + sum(trial.cost for trial in done)
    unpruned = references + sum(trial.unpruned_cost for trial in done)
    best = record.best
    facts: dict[str, Any] = {
        "study": record.identity["study"],
        "arm": record.identity["arm"],
        "question": record.question,
        "trials": {
            state.lower(): record.count(state)
            for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
        },
        "finished": record.n_finished,
        "epochs": epochs,
        "epochs_without_pruning": sum(trial.unpruned_epochs for trial in done),
        "cost": cost,
        "cost_without_pruning": unpruned,
        "cost_ratio": cost / unpruned if unpruned else None,
        "references": [
            {
                "key": key,
                "maker": reference["maker"],
                "cost": reference["cost"],
                "settings": reference["settings"],
                "trials": [trial.number for trial in record.trials if trial.reference == key],
            }
            for key, reference in record.references.items()
        ],
        "best": None,
        "continue": tune_command(record),
        "dashboard": dashboard_command(record),
    }
    if best is not None:
        facts["best"] = {
            "trial": best.number,
            "val_accuracy": best.value,
            "params": best.params,
            "retrain": train_command(record, best.params),
        }
    return facts


def train_command(record: StudyRecord, params: dict[str, Any]) -> str:
    """Return the command that trains a configuration of this arm again."""
    settings = record.command["settings"] + [
        f"{key}={_toml(value)}" for key, value in params.items()
    ]
    return _command("train", record, settings, storage=None)


def tune_command(record: StudyRecord) -> str:
    """Return the command that continues this arm."""
    return _command("tune", record, record.command["settings"], record.command["storage"])


def dashboard_command(record: StudyRecord) -> str:
    """Return the command that opens the dashboard on this arm's storage."""
    words = ["impon-hpo", "dashboard", record.command["study"]]
    if record.command["storage"]:
        words += ["--storage", record.command["storage"]]
    return shlex.join(words)


def _command(name: str, record: StudyRecord, settings: list[str], storage: str | None) -> str:
    words = ["impon-hpo", name, record.command["study"], "--arm", record.identity["arm"]]
    if storage:
        words += ["--storage", storage]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def summary_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of one arm as (what, how much) for people."""
    trials = facts["trials"]
    said = [f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed"]
    said += [f"{trials[state]} {state}" for state in ("running", "waiting") if trials[state]]
    rows = [("trials", ", ".join(said))]
    best = facts["best"]
    if best is None:
        rows.append(("best", "no trial is complete yet"))
    else:
        rows.append(("best validation accuracy", f"{best['val_accuracy']:.4f}"))
        rows.append(("best trial", str(best["trial"])))
        for key, value in best["params"].items():
            rows.append((f"best {key}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    ratio = "" if facts["cost_ratio"] is None else f" ({facts['cost_ratio']:.0%})"
    rows += [
        ("epochs spent", f"{facts['epochs']} of {facts['epochs_without_pruning']} without pruning"),
        (
            "cost spent",
            f"{facts['cost']:,.0f} of {facts['cost_without_pruning']:,.0f} forward-equivalents "
            f"without pruning{ratio}",
        ),
    ]
    for reference in facts["references"]:
        settings = ", ".join(f"{key} {value}" for key, value in reference["settings"].items())
        how = f" ({settings})" if settings else ""
        rows.append(
            (
                f"reference {reference['key'][:8]}",
                f"{reference['maker']}{how}, cost {reference['cost']:,} included above, used by "
                f"{len(reference['trials'])} trials",
            )
        )
    return rows


def summary_commands(facts: dict[str, Any]) -> list[str]:
    """Return the commands that follow from the facts of one arm, each with what it does."""
    best = facts["best"]
    retrain = [] if best is None else [f"retrain the best: {best['retrain']}"]
    return [*retrain, f"open the dashboard: {facts['dashboard']}"]
