"""The grid: every arm × configuration × seed trained to the end once, each result kept."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from impon_hpo.comparing.cell import Cell, read_cell, school, train_cell
from impon_hpo.console import Say
from impon_hpo.errors import ConfigError
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.workers import end_with

MOST_SEEDS = 100
POLL_SECONDS = 1.0
"""How often a grid looks for the results of runs that other processes are at."""


def cells(study_file: StudyFile, arms: list[str], n_seeds: int) -> list[Cell]:
    """Return the runs of a study's grid: seeds outermost, so that a part is a grid, too.

    The middle configuration of the first uniform arm teaches the others of its seed.

    Raises:
        ConfigError: The space is no grid: only categorical settings make one.
    """
    configurations = list(_configurations(study_file.space))
    middle = configurations[len(configurations) // 2]
    teachers = [arm for arm in arms if study_file.arms[arm].sampler == "uniform"][:1]
    found = []
    for seed in range(study_file.seed, study_file.seed + n_seeds):
        taught_by = [
            with_settings(study_file.arms[arm], middle | {"seed": seed}) for arm in teachers
        ]
        for params in configurations:
            for arm in arms:
                found.append(
                    Cell(
                        arm,
                        params,
                        seed,
                        with_settings(study_file.arms[arm], params | {"seed": seed}),
                        teaches=arm in teachers and params == middle,
                        school=school(taught_by[0]) if taught_by else "",
                    )
                )
    return found


def trained(study_file: StudyFile, folder: Path) -> list[dict[str, Any]]:
    """Return the results of a grid that are there, of whatever arms and of up to 100 seeds."""
    found = []
    for seed in range(MOST_SEEDS):
        wanted = cells(study_file, list(study_file.arms), seed + 1)
        of_seed = [cell for cell in wanted if cell.seed == study_file.seed + seed]
        there = [cell for cell in of_seed if cell.path(folder).exists()]
        if not there:
            break
        found += [read_cell(cell, folder) for cell in there]
    return found


def _configurations(space: dict[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    choices = []
    for key, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            raise ConfigError(
                f"space.{key}: compare-samplers trains every configuration of a grid, so every "
                'setting must be { type = "categorical", choices = […] }.'
            )
        choices.append([(key, choice) for choice in distribution.choices])
    for combination in itertools.product(*choices):
        yield dict(combination)


def run_grid(wanted: list[Cell], folder: Path, *, n_workers: int, say: Say) -> list[dict[str, Any]]:
    """Train what is not there yet and return the results of all, in the order of `wanted`.

    Each finished run is one file in `folder`; a grid that was stopped goes on where it was, and
    the same command, started again beside the first one, takes its share of the runs.

    Raises:
        ImponHpoError: A run met a mistake of the user's.
        StorageError: A result cannot be read or written.
    """
    missing = _missing(wanted, folder)
    if len(missing) < len(wanted):
        say(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there already.")
    n_done = 0
    for group in ([cell for cell in missing if cell.teaches], missing):
        while left := _missing(group, folder):
            n_before = n_done
            for line in _run_all(left, folder, n_workers):
                if line is not None:
                    n_done += 1
                    say(f"[{n_done}/{len(missing)}] {line}")
            if n_done == n_before:  # all that is left is in other hands
                time.sleep(POLL_SECONDS)
    return [read_cell(cell, folder) for cell in wanted]


def _missing(wanted: list[Cell], folder: Path) -> list[Cell]:
    return [cell for cell in wanted if not cell.path(folder).exists()]


def _run_all(missing: list[Cell], folder: Path, n_workers: int) -> Iterator[str | None]:
    """Train all of them and yield a line about each as it is finished."""
    if n_workers == 1 or len(missing) == 1:
        for cell in missing:
            yield train_cell(cell, folder)
    else:
        pool = ProcessPoolExecutor(
            n_workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )
        with pool:
            futures = [pool.submit(train_cell, cell, folder) for cell in missing]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException as error:
                # Interrupted: a run can take an hour, and begun ones leave nothing behind.
                if not isinstance(error, Exception):
                    for worker in active_children():
                        worker.terminate()
                pool.shutdown(cancel_futures=True)
                raise


def _begin(parent: int) -> None:
    """Begin a worker: it ends with its parent, and has one thread.

    Two processes of one thread train faster than one of two, and do not wait for each other.
    """
    import torch

    end_with(parent)
    torch.set_num_threads(1)
