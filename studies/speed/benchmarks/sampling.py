"""`bench.py sampling`: what choosing a batch costs beside training on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import (
    Measurement,
    alternate,
    check_rounds,
    ratios,
    spread,
    surroundings,
)
from benchmarks.step import N_CLASSES, made_reference, make_splits, step_config
from impon_hpo import SAMPLERS, BatchSampler, Rows, make_sampler
from impon_hpo.sampling.captured import WARM_UP
from impon_hpo.training.device import find_device
from impon_hpo.training.timing import PhaseTimer
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.space import with_settings

STEPS = 20
"""Most steps timed together: one of a millisecond is too short for the clock of a GPU."""

ROUND_SECONDS = 0.5
"""A sampler trains in a round as many steps, from one to `STEPS`, as take about so long."""


def measure_sampling(
    *,
    samplers: Sequence[str],
    width: int,
    side: int,
    n_rows: int,
    batch_size: int,
    rounds: int,
    device: str = "auto",
    compile: str = "auto",
) -> Measurement:
    """Time draw and observe of batch samplers between training steps, and uniform's steps, in turn.

    Every sampler has a run of its own: what a step leaves in the caches is part of what choosing
    costs (twice and more of what it takes alone). Methods that score by a forward pass are charged
    for it. On a GPU choosing may run beside the step before it: what is counted is how long the
    next step waits for it, and the steps have a column of their own.

    Args:
        samplers: Their names; empty: all.
        width: Channels of the model's first stage.
        side: Pixels of an image's side.
        n_rows: Training rows.
        batch_size: Rows a step.
        rounds: Times that each sampler counts.
        device: As in a study file.
        compile: Likewise.

    Raises:
        ConfigError: A name is unknown, a size does not fit, there is no round, or the device is
            missing.
    """
    check_rounds(rounds)
    place = find_device(device)
    config = step_config(width=width, batch_size=batch_size, rounds=rounds)
    # A run without end: what changes over a run stays as it is at the beginning.
    config = with_settings(config, {"compile": compile, "epochs": 10**6})
    splits = make_splits(config, n_train=n_rows, side=side, device=place)
    splits = dataclasses.replace(splits, reference=made_reference(n_rows, place))
    shown = list(dict.fromkeys(samplers or SAMPLERS))
    around = surroundings(str(place))

    def run_of(name: str, n_steps: int) -> TrainingRun:
        fraction = min(1.0, n_steps * batch_size / n_rows)
        options = bench_options(name, batch_size)
        changed = {"sampler": name, "sampler_options": options, "epoch_fraction": fraction}
        return TrainingRun(with_settings(config, changed), splits)

    probe = run_of("uniform", WARM_UP + 1)
    train_steps(probe, 1)
    n_steps = max(1, min(STEPS, round(ROUND_SECONDS / sum(train_steps(probe, 2)))))
    made = {name: run_of(name, n_steps) for name in dict.fromkeys(["uniform", *shown])}
    chosen: dict[str, list[float]] = {name: [] for name in made}
    stepped: dict[str, list[float]] = {name: [] for name in made}
    n_before = 2 + WARM_UP // n_steps  # rounds that warm up
    for at in range(n_before + rounds):
        for name, run in made.items():
            choosing, stepping = train_steps(run, at + 1)
            if at >= n_before:
                chosen[name].append(choosing)
                stepped[name].append(stepping)
    steps = [sum(both) for both in zip(chosen["uniform"], stepped["uniform"], strict=True)]
    rows = [
        dict[str, Any](sampler=name, forward="yes" if made[name].sampler.needs_forward else "no")
        | spread(chosen[name]).scaled(1e3).columns("ms")
        | ratios(chosen[name], steps).scaled(100).columns("percent_of_step")
        | {"step_ms": spread(stepped[name]).scaled(1e3).columns("ms")["ms"]}
        for name in shown
    ]
    settings = {
        "width": width,
        "side": side,
        "rows": n_rows,
        "batch_size": batch_size,
        "rounds": rounds,
        "compile": made["uniform"].compiled.mode,
        "steps": n_steps,
        "step_ms": spread(steps).scaled(1e3).columns("ms")["ms"],
    }
    return Measurement("sampling", settings, around, rows)


def train_steps(run: TrainingRun, epoch: int) -> tuple[float, float]:
    """Take the steps of an epoch; return the seconds a step of choosing and of the rest."""
    timer = PhaseTimer(run.device)
    run.train_rows(epoch, timer)
    n = run.steps_per_epoch
    return timer.seconds("drawing") / n, timer.seconds("stepping") / n


def measure_growth(
    *, samplers: Sequence[str], n_rows: Sequence[int], batch_size: int, rounds: int
) -> Measurement:
    """Time draw and observe of batch samplers over data sets of several sizes, on the CPU.

    The rows are eight random numbers each; nothing is trained. A row's memory is what the sampler
    itself holds: inputs, labels and reference, which all samplers share, are not counted.

    Args:
        samplers: Their names; empty: all that need no forward pass.
        n_rows: Sizes of the data set.
        batch_size: Rows a step.
        rounds: Times that each side counts.

    Raises:
        ConfigError: A name is unknown or a size does not fit.
    """
    names = samplers or [name for name, kind in SAMPLERS.items() if not kind.needs_forward]
    cpu = torch.device("cpu")
    around = surroundings("cpu")
    rows = []
    model = torch.nn.Linear(8, N_CLASSES)
    for name in names:
        sides, n_bytes = {}, {}
        for n in n_rows:
            generator = torch.Generator().manual_seed(0)
            labels = torch.randint(N_CLASSES, (n,), generator=generator)
            inputs = torch.randn(n, 8, generator=generator)
            data = Rows(inputs, labels, N_CLASSES, reference=made_reference(n, cpu))
            sampler = make_bench_sampler(name, data, batch_size, model)
            sides[str(n)] = choosing(sampler, batch_size)
            n_bytes[str(n)] = state_bytes(sampler)
        seconds = alternate(sides, rounds, warm_up=3)
        first = seconds[str(n_rows[0])]
        rows += [
            dict[str, Any](sampler=name, rows=n, bytes_per_row=round(n_bytes[str(n)] / n, 1))
            | spread(seconds[str(n)]).scaled(1e3 / STEPS).columns("ms")
            | ratios(seconds[str(n)], first).columns("times_smallest")
            for n in n_rows
        ]
    settings = {"batch_size": batch_size, "rounds": rounds}
    return Measurement("sampling, by rows", settings, around, rows)


def bench_options(name: str, batch_size: int) -> dict[str, Any]:
    """Return the options of a batch sampler: none, but for banks that hold no batch otherwise."""
    wide = {"bank_size": 2 * batch_size} if batch_size > 200 else {}  # the paper's bank
    if name == "placebo":
        return {"of": "impon", "options": wide}
    return wide if name in ("impon", "impon-low") else {}


def make_bench_sampler(
    name: str, rows: Rows, batch_size: int, model: torch.nn.Module
) -> BatchSampler:
    """Make a batch sampler as it is by default, in its second epoch, for a run without end."""
    options = bench_options(name, batch_size)
    sampler = make_sampler(
        name, rows, options, batch_size=batch_size, model=model, total_steps=10**9
    )
    for epoch in (1, 2):  # what is done in the first epoch only is not what a run costs
        sampler.start_epoch(epoch)
    return sampler


def choosing(sampler: BatchSampler, batch_size: int) -> Callable[[], None]:
    """Return what draws and observes `STEPS` batches, with random losses."""
    logits = torch.randn(batch_size, sampler.rows.n_classes)
    losses = torch.rand(batch_size)

    def choose() -> None:
        for _ in range(STEPS):
            sampler.observe(sampler.draw(_no_scores), losses, logits)

    return choose


def state_bytes(sampler: BatchSampler) -> int:
    """Return the bytes of the tensors that a batch sampler holds and its data set does not."""
    shared = {id(sampler.model)}
    common = [sampler.rows.labels]
    if isinstance(sampler.rows.inputs, torch.Tensor):
        common.append(sampler.rows.inputs)
    if sampler.rows.reference is not None:
        common += [part for part in vars(sampler.rows.reference).values() if part is not None]
    storages = {tensor.untyped_storage().data_ptr() for tensor in common}
    return _bytes_in(sampler, shared, storages)


def _bytes_in(thing: Any, seen: set[int], storages: set[int]) -> int:
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        if storage.data_ptr() in storages:
            return 0
        storages.add(storage.data_ptr())
        return storage.nbytes()
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, list | tuple):
        parts = list(thing)
    elif type(thing).__module__.startswith("impon_hpo.sampling"):
        parts = [part for name, part in vars(thing).items() if name != "_epoch_rows"]
    else:
        return 0
    return sum(_bytes_in(part, seen, storages) for part in parts)


def _no_scores(rows: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full((len(rows),), math.log(N_CLASSES)), torch.zeros(len(rows), N_CLASSES)
