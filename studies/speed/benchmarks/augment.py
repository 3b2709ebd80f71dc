"""`bench.py augment`: what changing the images of a batch takes, beside the step that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measure import Measurement, alternate, ratios, spread, surroundings
from benchmarks.step import make_splits, step_config
from impon_hpo.training.augment_setting import NAMES
from impon_hpo.training.device import find_device
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.space import with_settings

STEP = "step"


def measure_augment(
    *,
    names: Sequence[str],
    model: str,
    width: int,
    side: int,
    batch_size: int,
    rounds: int,
    device: str = "auto",
) -> Measurement:
    """Time what each value of `augment` does to a batch, and a step without any, in turn.

    Args:
        names: Values of `augment`; none: each name alone.
        model: As in a study file.
        width: Channels of resnet18's first stage.
        side: Pixels of an image's side.
        batch_size: Rows a step.
        rounds: Times that each side counts.
        device: As in a study file.

    Raises:
        ConfigError: A name is unknown, a size does not fit, there is no round, or the device is
            missing.
    """
    place = find_device(device)
    config = step_config(width=width, batch_size=batch_size, rounds=rounds)
    config = with_settings(config, {"model": model})
    splits = make_splits(config, n_train=max(200, batch_size), side=side, device=place)
    images, labels = splits.train.batch(torch.arange(batch_size, device=place))

    def run_of(augment: str) -> TrainingRun:
        return TrainingRun(with_settings(config, {"augment": augment}), splits)

    def done(work: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            work()
            if place.type == "cuda":
                torch.cuda.synchronize(place)

        return run

    def changing(augment: str) -> Callable[[], None]:
        step = run_of(augment).training_step

        def change() -> None:
            changed = splits.normalise(step.augmentation(step.transforms(images)))
            if step.mixing is not None:
                step.mixing(changed)

        return done(change)

    plain = run_of("none")
    asked = list(names or NAMES)
    around = surroundings(str(place))
    sides = {name: changing(name) for name in ("none", *asked)}
    sides[STEP] = done(lambda: plain.step(images, labels, None))
    seconds = alternate(sides, rounds, warm_up=5 if place.type == "cuda" else 1)
    normalising = seconds["none"]  # which every batch is
    rows = []
    for name in asked:
        pairs = zip(seconds[name], normalising, strict=True)
        added = [max(0.0, taken - without) for taken, without in pairs]
        rows.append(
            dict[str, Any](augment=name)
            | spread(added).scaled(1e3).columns("ms")
            | ratios(added, seconds[STEP]).scaled(100).columns("percent_of_step")
        )
    settings = {
        "model": model,
        "width": width,
        "side": side,
        "batch_size": batch_size,
        "rounds": rounds,
        "step_ms": spread(seconds[STEP]).scaled(1e3).columns("ms")["ms"],
    }
    return Measurement("augment", settings, around, rows)
