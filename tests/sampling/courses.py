"""A course: a batch sampler on small rows, advanced as training would, with a model that stays."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.impon import Impon
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.table import make_sampler

N_CLASSES = 3
N_ROWS = 240
"""Enough for every batch sampler with its default options."""

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
        ],
    ),
]


def image_rows(
    n_rows: int, *, device: str = "cpu", n_classes: int = N_CLASSES, side: int = 4
) -> Rows:
    """Random images (n, side, side, 1) uint8, normalised when read, and a reference for each."""
    generator = torch.Generator().manual_seed(n_rows)
    images = torch.randint(256, (n_rows, side, side, 1), generator=generator, dtype=torch.uint8)
    probabilities = torch.rand(n_rows, n_classes, generator=generator).softmax(1)
    trajectory = torch.rand(4, n_rows, generator=generator)
    return Rows(
        images.to(device),
        (torch.arange(n_rows) % n_classes).to(device),
        n_classes,
        lambda picked: (picked.float() / 255 - 0.5).permute(0, 3, 1, 2),
        Reference(trajectory[-1], probabilities, trajectory).to(torch.device(device)),
    )


def flat_rows(values: Tensor, n_classes: int = 2) -> Rows:
    """Rows (n, d) that are read as they are."""
    return Rows(values, torch.arange(len(values)) % n_classes, n_classes)


def deep_model(device: str = "cpu") -> nn.Module:
    """A model with weights, buffers, and modules in both modes; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, N_CLASSES)
        )
    model.train()
    model.get_submodule("2").eval()
    return model.to(device)


class Course:
    """One batch sampler of the table with what it needs; `forward` counts the rows it scores."""

    def __init__(
        self,
        name: str,
        n_rows: int = N_ROWS,
        batch_size: int = 8,
        *,
        seed: int = 0,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        self.rows = image_rows(n_rows, device=device)
        self.model = deep_model(device)
        self.batch_size = batch_size
        self.rows_scored = 0
        self.sampler = make_sampler(
            name,
            self.rows,
            options,
            batch_size=batch_size,
            model=self.model,
            seed=seed,
            total_steps=20,
        )

    def losses_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self.model(self.rows.read(rows))
            return cross_entropy(logits, self.rows.labels[rows], reduction="none"), logits

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.rows_scored += len(rows)
        return self.losses_of(rows)

    def step(self) -> Draw:
        draw = self.sampler.draw(self.forward)
        self.sampler.observe(draw, *self.losses_of(draw.rows))
        return draw

    def epoch(self, number: int, n_steps: int) -> list[Draw]:
        self.sampler.start_epoch(number)
        return [self.step() for _ in range(n_steps)]

    def epochs(self, n_epochs: int, n_steps: int, *, first: int = 1) -> list[Draw]:
        return [
            draw
            for number in range(first, first + n_epochs)
            for draw in self.epoch(number, n_steps)
        ]


def rows_of(draws: list[Draw]) -> list[list[int]]:
    return [draw.rows.tolist() for draw in draws]


def through_a_file(state: dict[str, Any], device: str = "cpu") -> dict[str, Any]:
    """Save and load a state as a checkpoint does: without unpickling code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    return loaded


def leaves(state: Any, where: str = "state") -> Iterator[tuple[str, Any]]:
    """Go through all that is inside a state, with its place."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{where}.{key}")
    elif isinstance(state, list | tuple):
        for at, value in enumerate(state):
            yield from leaves(value, f"{where}[{at}]")
    else:
        yield where, state


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Assert that two states are equal to the bit; nan equals nan."""
    ours, theirs = dict(leaves(first)), dict(leaves(second))
    assert ours.keys() == theirs.keys()
    for where, value in ours.items():
        if isinstance(value, Tensor):
            assert value.dtype == theirs[where].dtype, where
            torch.testing.assert_close(
                value, theirs[where], rtol=0, atol=0, equal_nan=True, check_device=False, msg=where
            )
        else:
            assert value == theirs[where], where


def assert_finite(state: dict[str, Any]) -> None:
    """Assert that what is learnt is finite; `fit` keeps what was seen, for the diagnostics only."""
    for where, value in leaves(state):
        if ".fit." in where:
            continue
        if isinstance(value, Tensor) and value.is_floating_point():
            assert torch.isfinite(value).all(), where
        elif isinstance(value, float):
            assert abs(value) < float("inf"), where


def assert_well_formed(draw: Draw, course: Course) -> None:
    """Assert that all a draw holds has the shape, dtype, device and range that it must have."""
    n_picked, device = course.batch_size, course.rows.device
    assert draw.rows.shape == (n_picked,)
    assert draw.rows.dtype == torch.int64
    assert int(draw.rows.min()) >= 0
    assert int(draw.rows.max()) < len(course.rows)
    if not course.sampler.repeats_rows:
        assert len(draw.rows.unique()) == n_picked
    if draw.weights is not None:
        assert draw.weights.shape == (n_picked,)
        assert (draw.weights > 0).all()
    if draw.scores is not None:
        assert draw.scores.shape == (n_picked,)
    if draw.context is not None:
        assert draw.context.dim() == 2
        assert draw.context.shape[0] == n_picked
    for result in (draw.weights, draw.scores, draw.context):
        if result is not None:
            assert result.dtype == torch.float32
            assert result.isfinite().all()
    for result in (draw.rows, draw.weights, draw.scores, draw.context):
        if result is not None:
            assert result.device.type == device.type
            assert not result.requires_grad


def points(n_rows: int, n_columns: int = 2) -> Rows:
    """Normally distributed rows."""
    source = torch.Generator().manual_seed(1)
    return flat_rows(torch.randn(n_rows, n_columns, generator=source))


def impon(kind: type[Impon] = Impon, rows: Rows | None = None, **given: Any) -> Impon:
    """Impon with batches of 8 of banks of 50 of 120 points, unless told otherwise."""
    settings: dict[str, Any] = {"batch_size": 8, "model": deep_model(), "bank_size": 50}
    return kind(points(120) if rows is None else rows, **(settings | given))


def set_weights(sampler: Impon, weight: list[float], bias: float = 0.0) -> None:
    state = {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}
    sampler.estimator.load_state_dict(state)


def weights(sampler: Impon) -> list[float]:
    return [*sampler.estimator.state_dict()["weight"].tolist()]


def field(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
