"""optuna-dashboard on a study's storage and artifacts, with a note on each arm."""

from __future__ import annotations

import json
import socket
from typing import Any

from optuna.storages import BaseStorage
from optuna_dashboard import run_server, save_note

from impon_hpo.errors import ConfigError
from impon_hpo.record import StudyRecord
from impon_hpo.reporting.summary import summarise
from impon_hpo.storage import artifact_store

HOST = "127.0.0.1"  # the dashboard has no log-in, and can delete studies


def serve(storage: BaseStorage, artifacts: str, port: int) -> None:
    """Serve the dashboard until it is interrupted.

    Raises:
        StorageError: The store of artifacts cannot be opened.
    """
    run_server(storage, host=HOST, port=port, artifact_store=artifact_store(artifacts))


def check_port(port: int) -> None:
    """Raise `ConfigError` where `port` cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of {HOST} cannot be used: {error}. Give another one with --port."
            ) from error


def write_note(record: StudyRecord) -> None:
    """Write on the study's page what was asked, what was run and how, and what came of it."""
    save_note(record.optuna_study, note(record))


def note(record: StudyRecord) -> str:
    """Return the note on one arm, in Markdown."""
    facts = summarise(record)
    identity = record.identity
    run = identity["run"]
    trials = facts["trials"]
    lines = [
        f"# {identity['study']}: arm `{identity['arm']}`",
        "",
        record.question,
        "",
        f"**Batch sampler** `{run['sampler']}` {_options(run['sampler_options'])} on "
        f"`{run['dataset']}`, {run['model']} of width {run['width']}, {run['epochs']} epochs.",
        f"**Pruner** {_call(identity['pruner'])}, **study sampler** "
        f"{_call(identity['study_sampler'])}, seed {identity['seed']}.",
        "",
        f"{trials['complete']} trials complete, {trials['pruned']} pruned, "
        f"{trials['fail']} failed. "
        f"Spent: {facts['epochs']} epochs of {facts['epochs_without_pruning']} without pruning, "
        f"{facts['cost']:,.0f} forward-equivalents of {facts['cost_without_pruning']:,.0f}.",
        "",
    ]
    if facts["best"] is not None:
        best = facts["best"]
        lines += [
            f"Best: trial {best['trial']} with validation accuracy {best['val_accuracy']:.4f}. "
            "To train it again:",
            "",
            "```sh",
            best["retrain"],
            "```",
            "",
        ]
    lines += [
        "To continue or to repeat this arm:",
        "",
        "```sh",
        facts["continue"],
        "```",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | `{json.dumps(value)}` |" for key, value in run.items()),
        *(f"| {key} (searched) | `{value}` |" for key, value in identity["space"].items()),
        "",
    ]
    for environment in record.environments:
        versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        where = environment.get("gpu", environment["cpu"])
        lines.append(f"Run with {versions} on {where}, {environment['platform']}.")
    return "\n".join(lines) + "\n"


def _options(options: dict[str, Any]) -> str:
    return f"({', '.join(f'{key} = {value}' for key, value in options.items())})" if options else ""


def _call(table: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in table.items() if key != "name")
    return f"`{table['name']}({arguments})`"
