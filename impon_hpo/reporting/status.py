"""What a study has come to: the facts of each arm, its tables, and the disk that it uses."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from impon_hpo.errors import as_typed, describing
from impon_hpo.files import readable_bytes, write_csv
from impon_hpo.settings import metric_words
from impon_hpo.storage.trials import StudyRecord, TrialRecord, flat_epoch
from impon_hpo.tuning.promotion import waiting_trials

REASONS = 5
"""For so many reasons trials may have failed until the rest is only counted."""

IN_STORAGE = "All that was run is in the storage."


def summarise(record: StudyRecord) -> dict[str, Any]:
    """Return the plain facts of one arm, ready for JSON: trials by state, best configuration, cost
    in forward-equivalents, and what pruning saved."""
    # One that runs has not come to what it would cost without pruning; one that waits has stopped.
    counted = [trial for trial in record.trials if trial.state != "RUNNING"]
    epochs = sum(len(trial.epochs) for trial in counted)
    # A reference is paid once, with pruning and without.
    references = sum(reference["cost"] for reference in record.references.values())
    cost = references + sum(trial.cost for trial in counted)
    unpruned = references + sum(trial.unpruned_cost for trial in counted)
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
        "failed": [
            {"trial": trial.number, "reason": trial.reason}
            for trial in record.trials
            if trial.state == "FAIL"
        ],
        "waiting_at_rungs": [
            {
                "trial": entry.trial.number,
                "epoch": entry.trial.until,
                "place": entry.place,
                "of": entry.n_come,
            }
            for entry in waiting_trials(record)
        ],
        "epochs": epochs,
        "epochs_without_pruning": sum(trial.unpruned_epochs for trial in counted),
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
        "from": [
            {"trial": trial.number, "from": trial.origin} for trial in record.trials if trial.origin
        ],
        "metric": record.identity["run"].get("metric", "accuracy"),
        "best": None,
        "continue": tune_command(record),
        "dashboard": dashboard_command(record),
    }
    if best is not None:
        facts["best"] = {
            "trial": best.number,
            "val_accuracy": best.value,
            "params": best.params,
            "from": best.origin or None,
            "retrain": train_command(record, best.params),
            "export": export_command(record),
        }
    return facts


def train_command(record: StudyRecord, params: dict[str, Any]) -> str:
    """Return the command that trains a configuration of this arm again."""
    settings = record.command["settings"] + [
        f"{key}={_toml(value)}" for key, value in params.items()
    ]
    return _command("train", record, settings, storage=None)


def export_command(record: StudyRecord) -> str:
    """Return the command that writes the model of this arm's best trial to a file."""
    command = _command("export", record, record.command["settings"], record.command["storage"])
    return f"{command} --to model.pt2"


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
    """Return the facts of one arm as (name, value) for people."""
    trials = facts["trials"]
    counts = [f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed"]
    counts += [f"{trials[state]} {state}" for state in ("running", "waiting") if trials[state]]
    rows = [("trials", ", ".join(counts))]
    rows += _failed_rows(facts["failed"])
    epochs = Counter(entry["epoch"] for entry in facts["waiting_at_rungs"])
    if epochs:
        listed = ", ".join(f"{n} at epoch {epoch}" for epoch, n in sorted(epochs.items()))
        rows.append(("waiting to be promoted", listed))
    if facts["from"]:
        listed = ", ".join(f"{entry['trial']} from {entry['from']}" for entry in facts["from"])
        rows.append(("trials of earlier studies", listed))
    best = facts["best"]
    if best is None:
        rows.append(("best", "no trial is complete yet"))
    else:
        metric = metric_words(facts["metric"])
        rows.append((f"best validation {metric}", f"{best['val_accuracy']:.4f}"))
        origin = f" (from {best['from']})" if best["from"] else ""
        rows.append(("best trial", f"{best['trial']}{origin}"))
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
        listed = f" ({settings})" if settings else ""
        rows.append(
            (
                f"reference {reference['key'][:8]}",
                f"{reference['maker']}{listed}, cost {reference['cost']:,} included above, used by "
                f"{len(reference['trials'])} trials",
            )
        )
    return rows


def _failed_rows(failed: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return each reason for which trials failed, with their numbers: the most frequent first."""
    numbers: dict[str, list[int]] = {}
    for entry in failed:
        numbers.setdefault(entry["reason"], []).append(entry["trial"])
    by_size = sorted(numbers.items(), key=lambda item: -len(item[1]))
    rows = [
        (f"trial{'s' * (len(trials) > 1)} {', '.join(map(str, trials))} failed", reason)
        for reason, trials in by_size[:REASONS]
    ]
    if len(by_size) > REASONS:
        rows.append(("others failed", f"for {len(by_size) - REASONS} reasons: see trials.csv"))
    return rows


def summary_commands(facts: dict[str, Any]) -> list[str]:
    """Return the commands that follow from the facts of one arm, each with what it does, for the
    terminal that they are printed on."""
    best = facts["best"]
    of_best = [f"{what} the best: {as_typed(best[what])}" for what in ("export", "retrain") if best]
    return [*of_best, f"open the dashboard: {as_typed(facts['dashboard'])}"]


def write_csv_files(folder: Path, records: Iterable[StudyRecord]) -> None:
    """Write `epochs.csv` (a row for each epoch) and `trials.csv` (a row for each trial) of all
    arms; one that cannot be written is logged, since the storage has it all.
    """
    arms = [(record.identity["arm"], trial) for record in records for trial in record.trials]
    epochs = [
        {"arm": arm, "trial": trial.number} | flat_epoch(epoch)
        for arm, trial in arms
        for epoch in trial.epochs
    ]
    with describing("The table of epochs could not be made", IN_STORAGE):
        write_csv(folder / "epochs.csv", epochs)
    with describing("The table of trials could not be made", IN_STORAGE):
        write_csv(folder / "trials.csv", [_trial_row(arm, trial) for arm, trial in arms])


def _trial_row(arm: str, trial: TrialRecord) -> dict[str, Any]:
    origin = {"from": trial.origin} if trial.origin else {}
    return (
        {
            "arm": arm,
            "trial": trial.number,
            "state": trial.state,
            "val_accuracy": trial.value,
            "epochs": len(trial.epochs),
            "cost": trial.cost,
            "seconds": trial.seconds,
            "reason": trial.reason,
        }
        | origin
        | trial.params
    )


def disk_use(runs: Path) -> dict[str, int]:
    """Return the bytes in `runs`, by the names of the files and folders in it, the largest first.

    Files that a running worker deletes meanwhile are left out.
    """
    if not runs.is_dir():
        return {}
    sizes = {entry.name: _size(entry) for entry in runs.iterdir()}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _size(entry: Path) -> int:
    total = 0
    for path in [entry, *entry.rglob("*")]:
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total


def disk_line(runs: Path) -> str:
    """Return a line on the disk that `runs` uses."""
    sizes = disk_use(runs)
    listed = ", ".join(f"{name} {readable_bytes(size)}" for name, size in sizes.items())
    return f"on disk in {runs}: {readable_bytes(sum(sizes.values()))}" + (listed and f" ({listed})")
