"""Times this package beside what one would use instead.

uv run python studies/speed/bench.py step | sampling | augment | study | scale | halving | claims |
 data | memory
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from impon_hpo.cli.app import main
from impon_hpo.cli.options import Format, Formatted
from impon_hpo.console import loading, print_json, print_table, say
from impon_hpo.environment import keep_freed_memory
from impon_hpo.errors import ConfigError

if TYPE_CHECKING:
    from benchmarks.measure import Measurement

app = typer.Typer(
    help="What it costs in time: both sides in one run, medians, quartiles and ratios.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Rounds = Annotated[int, typer.Option(min=1, help="Times that each side counts.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Width = Annotated[int, typer.Option(min=1, help="Channels of the model's first stage.")]
Side = Annotated[int, typer.Option(min=4, help="Pixels of an image's side.")]

Storages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL", help="An empty storage; may be repeated; default: SQLite and a journal."
    ),
]


class Recipe(StrEnum):
    """How torch compiles the recipe loop."""

    eager = "eager"
    compiled = "compiled"
    tuned = "tuned"


@app.command()
def step(
    width: Width = 8,
    side: Side = 16,
    rows: Annotated[int, typer.Option(min=10, help="Training rows of an epoch.")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Rounds = 5,
    loader_workers: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Worker processes of the plain loop; may be repeated; default: 0 and 2."
        ),
    ] = None,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="KEY=VALUE",
            help="Also our side with this setting changed: compile=inductor; may be repeated.",
        ),
    ] = None,
    recipe: Annotated[
        list[Recipe] | None,
        typer.Option(help="Also the loop of public speed runs on CIFAR; may be repeated."),
    ] = None,
    device: Device = "auto",
    format: Formatted = Format.table,
) -> None:
    """An epoch with validation, beside the loop of PyTorch's examples: rows per second."""
    with loading():
        from benchmarks.step import measure_step

    measured = measure_step(
        width=width,
        side=side,
        n_rows=rows,
        batch_size=batch_size,
        rounds=rounds,
        n_workers=[0, 2] if loader_workers is None else loader_workers,
        device=device,
        tried=tried or [],
        recipes=recipe or [],
    )
    _print(measured, format)


@app.command()
def sampling(
    samplers: Annotated[
        list[str] | None, typer.Option("--sampler", help="May be repeated; default: all.")
    ] = None,
    width: Width = 8,
    side: Side = 16,
    rows: Annotated[
        list[int] | None,
        typer.Option(min=200, help="Training rows; several: how the cost grows with them."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Rounds = 20,
    device: Device = "auto",
    compile: Annotated[
        str, typer.Option(help="How the steps are run, as in a study file.")
    ] = "auto",
    format: Formatted = Format.table,
) -> None:
    """Choosing a batch and learning from its losses, as a share of a uniform training step."""
    with loading():
        from benchmarks.sampling import measure_growth, measure_sampling

    sizes = rows or [10_000]
    if len(sizes) > 1:
        measured = measure_growth(
            samplers=samplers or [], n_rows=sizes, batch_size=batch_size, rounds=rounds
        )
    else:
        measured = measure_sampling(
            samplers=samplers or [],
            width=width,
            side=side,
            n_rows=sizes[0],
            batch_size=batch_size,
            rounds=rounds,
            device=device,
            compile=compile,
        )
    _print(measured, format)


@app.command()
def augment(
    names: Annotated[
        list[str] | None,
        typer.Option("--augment", help="As in a study file; may be repeated; default: each name."),
    ] = None,
    model: Annotated[str, typer.Option(help="resnet18 or resnet18-imagenet.")] = "resnet18",
    width: Width = 64,
    side: Side = 32,
    batch_size: Annotated[int, typer.Option(min=2)] = 128,
    rounds: Rounds = 5,
    device: Device = "auto",
    format: Formatted = Format.table,
) -> None:
    """Changing the images of a batch, as a share of the training step that follows."""
    with loading():
        from benchmarks.augment import measure_augment

    measured = measure_augment(
        names=names or [],
        model=model,
        width=width,
        side=side,
        batch_size=batch_size,
        rounds=rounds,
        device=device,
    )
    _print(measured, format)


@app.command()
def study(
    storage: Storages = None,
    trials_there: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Trials in the storage, ascending; default: 10, 100, 1000."),
    ] = None,
    width: Width = 8,
    trials: Annotated[int, typer.Option(min=1, help="Trials run for each row.")] = 3,
    rounds: Rounds = 3,
    format: Formatted = Format.table,
) -> None:
    """What a study does beside training, per epoch and trial, and how long commands start."""
    with loading():
        from benchmarks.study import measure_study

    measured = measure_study(
        storages=storage or [],
        n_trials=trials_there or [10, 100, 1000],
        width=width,
        trials=trials,
        rounds=rounds,
    )
    _print(measured, format)


@app.command()
def scale(
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="May be repeated; default: 1, 2, 4 … up to twice the cores."),
    ] = None,
    simulate: Annotated[
        list[int] | None,
        typer.Option(
            metavar="WORKERS", min=1, help="Sleep instead of training; may be repeated: 64, 256 …"
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Holds studies that are deleted again; default: a journal."
        ),
    ] = None,
    width: Width = 8,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each study.")] = 36,
    rounds: Rounds = 3,
    epoch_seconds: Annotated[
        float, typer.Option(min=0.001, help="Simulated: what an epoch takes.")
    ] = 5.0,
    trials_each: Annotated[int, typer.Option(min=1, help="Simulated: trials a worker.")] = 2,
    others: Annotated[
        int, typer.Option(min=0, help="Simulated: trials that further workers hold.")
    ] = 0,
    format: Formatted = Format.table,
) -> None:
    """Throughput against the number of workers; or where a storage saturates, with simulated ones.

    Simulated workers run the loop of `tune` with a sleep for training. Hundreds of them need a
    database that allows as many connections.
    """
    with loading():
        from benchmarks.crowd import measure_crowd
        from benchmarks.scale import default_workers, measure_scale

    if workers and simulate:
        raise ConfigError("Give either --workers, which train, or --simulate, which sleep.")
    if simulate:
        measured = measure_crowd(
            storage=storage or "crowd.journal",
            n_workers=simulate,
            epoch_seconds=epoch_seconds,
            trials_each=trials_each,
            n_others=others,
        )
    else:
        measured = measure_scale(
            n_workers=workers or default_workers(),
            storage=storage,
            width=width,
            trials=trials,
            rounds=rounds,
        )
    _print(measured, format)


@app.command()
def halving(
    configurations: Annotated[int, typer.Option(min=1, help="Trials of a study.")] = 1000,
    workers: Annotated[int, typer.Option(min=1)] = 64,
    epochs: Annotated[int, typer.Option(min=2, help="The horizon.")] = 27,
    reduction_factor: Annotated[
        int, typer.Option(min=2, help="One of so many trials at a rung goes on.")
    ] = 3,
    min_resource: Annotated[int, typer.Option(min=1, help="The first rung, in epochs.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds of made-up trials.")] = 5,
    format: Formatted = Format.table,
) -> None:
    """Time, cost and regret of halving at scale: made-up trials, in virtual time."""
    with loading():
        from benchmarks.halving import measure_halving

    measured = measure_halving(
        n_configurations=configurations,
        n_workers=workers,
        epochs=epochs,
        reduction_factor=reduction_factor,
        min_resource=min_resource,
        seeds=seeds,
    )
    _print(measured, format)


@app.command()
def claims(
    storage: Storages = None,
    paused: Annotated[
        list[int] | None,
        typer.Option(min=27, help="Trials that wait; may be repeated; default: 100, 1000."),
    ] = None,
    rounds: Rounds = 9,
    format: Formatted = Format.table,
) -> None:
    """What a decision of halving that promotes asks of a storage, beside Optuna's halving."""
    with loading():
        from benchmarks.claims import measure_claims

    measured = measure_claims(storages=storage or [], n_paused=paused or [100, 1000], rounds=rounds)
    _print(measured, format)


@app.command()
def data(
    root: Annotated[str, typer.Argument(metavar="FOLDER", help="One folder of images per class.")],
    image_size: Annotated[int | None, typer.Option(min=4, help="Resize to this side.")] = None,
    rounds: Rounds = 3,
    format: Formatted = Format.table,
) -> None:
    """A folder of images: decoded in a plain loop, decoded once by us, opened from the cache, and
    a run on it started again."""
    from pathlib import Path

    with loading():
        from benchmarks.data import measure_data

    measured = measure_data(root=Path(root).expanduser(), image_size=image_size, rounds=rounds)
    _print(measured, format)


@app.command()
def memory(
    rows: Annotated[
        list[int] | None,
        typer.Option(min=1000, help="Rows; may be repeated; default: 5000, 50000 and 500000."),
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Processes; may be repeated; default: 1 and 4."),
    ] = None,
    side: Side = 32,
    sampler: Annotated[str, typer.Option(help="The batch sampler.")] = "uniform",
    format: Formatted = Format.table,
) -> None:
    """What training holds in memory as the data grow, beside a tensor of all images."""
    with loading():
        from benchmarks.memory import measure_memory

    measured = measure_memory(
        n_rows=rows or [5000, 50_000, 500_000],
        n_workers=workers or [1, 4],
        side=side,
        sampler=sampler,
    )
    _print(measured, format)


def _print(measured: Measurement, format: Format) -> None:
    """Print a measurement; beside a table, settings and machine go to standard error."""
    if format is Format.json:
        print_json(dataclasses.asdict(measured))
        return
    print_table(f"benchmark {measured.benchmark}", measured.rows)
    facts = measured.settings | measured.environment
    say(", ".join(f"{name} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    keep_freed_memory()  # as the commands do that train
    main(app)
