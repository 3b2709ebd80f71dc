"""Tests of the step benchmark: both sides run, and do the same work."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torchvision.transforms import RandomCrop

from benchmarks.loops import PlainLoop, RecipeLoop
from benchmarks.measure import Measurement
from benchmarks.step import build_ours, build_plain, make_splits, measure_step, step_config
from impon_hpo import Splits, TrainingConfig
from impon_hpo.errors import ConfigError
from impon_hpo.training.training_run import TrainingRun

CPU = torch.device("cpu")


def measure(**given: Any) -> Measurement:
    """Measure epochs of two batches of 20 small images, beside a plain loop without workers."""
    usual: dict[str, Any] = {
        "width": 2,
        "side": 8,
        "n_rows": 40,
        "batch_size": 20,
        "rounds": 1,
        "n_workers": [0],
    }
    return measure_step(**({"device": "cpu"} | usual | given))


def test_every_side_runs_and_the_figures_add_up() -> None:
    measured = measure(tried=["channels_last=false"], recipes=["eager"])
    ours, plain, recipe, tried = measured.rows
    assert (ours["side"], plain["side"]) == ("impon-hpo", "plain loop, 0 workers")
    assert recipe["side"] == "recipe loop, eager"
    assert tried["side"] == "impon-hpo, channels_last=false"
    assert min(row["first_epoch_seconds"] for row in measured.rows) > 0
    assert ours["times_ours"] == 1
    assert plain["times_ours"] == pytest.approx(
        ours["rows_per_second"] / plain["rows_per_second"], rel=0.01
    )


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [("compile", "--try takes key=value"), ("compil=true", "Did you mean 'compile'")],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(setting: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        measure(tried=[setting])


def test_no_round_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds must be at least 1, but got 0"):
        measure(rounds=0)


def test_all_sides_train_and_validate_the_same_rows() -> None:
    config = step_config(width=2, batch_size=16, rounds=1)
    recipe = RecipeLoop(config, made(config), "eager").train_epoch()
    assert (recipe.rows_trained, recipe.rows_validated) == (32, 10)
    ours = build_ours(config=config, n_rows=40, side=8, device="cpu")()
    plain = build_plain(config=config, n_rows=40, side=8, device="cpu", n_workers=0)()
    assert (plain.rows_trained, plain.rows_validated) == (32, 10)
    assert (ours.rows_trained, ours.rows_validated) == (32, 10)


def test_all_sides_compute_the_same_where_order_and_augmentation_do_not_matter() -> None:
    # One batch of all rows: the order changes nothing but rounding.
    config = step_config(width=4, batch_size=40, rounds=3).model_copy(update={"augment": "none"})
    splits = make_splits(config, n_train=40, side=8, device=CPU)
    ours, plain = TrainingRun(config, splits), PlainLoop(config, splits, n_workers=0)
    recipe = RecipeLoop(config, splits, "eager")
    for other in (plain, recipe):
        other.model.load_state_dict(ours.model.state_dict())
    for _ in range(3):
        mine = ours.train_epoch()
        for theirs in (plain.train_epoch(), recipe.train_epoch()):
            assert theirs.train_loss == pytest.approx(mine.train_loss, rel=1e-3)
            assert theirs.val_accuracy == pytest.approx(mine.val_accuracy, abs=0.101)  # one of 10


def test_the_plain_loop_augments_as_ours_does() -> None:
    config = step_config(width=2, batch_size=40, rounds=1)
    splits = make_splits(config, n_train=40, side=16, device=CPU)
    loop = PlainLoop(config, splits, n_workers=0)
    (first, labels), (second, _) = next(iter(loop.train_loader)), next(iter(loop.train_loader))
    assert first.shape == (40, 3, 16, 16)
    assert sorted(labels.tolist()) == sorted(splits.train.labels.tolist())
    assert not torch.equal(first, second)
    plain = {transform.__class__.__name__ for transform in _transforms(loop)}
    assert plain == {"RandomCrop", "RandomHorizontalFlip", "ToTensor", "Normalize"}
    crop = next(t for t in _transforms(loop) if isinstance(t, RandomCrop))
    assert crop.padding == TrainingRun(config, splits).training_step.augmentation.padding == 2


def test_the_plain_loop_normalises_as_ours_does() -> None:
    config = step_config(width=2, batch_size=40, rounds=1)
    splits = make_splits(config, n_train=40, side=8, device=CPU)
    images, labels = next(iter(PlainLoop(config, splits, n_workers=0).validation_loader))
    assert torch.equal(labels, splits.validation.labels)
    torch.testing.assert_close(images, splits.normalise(splits.validation.images[:]))


def test_the_recipe_loop_augments_as_ours_does() -> None:
    config = step_config(width=2, batch_size=40, rounds=1)
    splits = made(config, side=16)
    loop = RecipeLoop(config, splits, "eager")
    plain = splits.normalise(splits.train.images[:])
    padded = torch.nn.functional.pad(plain, [2] * 4)
    torch.testing.assert_close(loop.images, padded)
    changes = set()
    for _ in range(20):
        image = loop.augmented()[3]
        for down, across, flipped in product(range(5), range(5), (False, True)):
            crop = padded[3, :, down : down + 16, across : across + 16]
            if torch.equal(image, crop.flip(2) if flipped else crop):
                changes.add((down, across, flipped))
                break
        else:
            pytest.fail("an image is not a crop of its own row")
    assert len(changes) > 8


def made(config: TrainingConfig, side: int = 8) -> Splits:
    return make_splits(config, n_train=40, side=side, device=CPU)


def _transforms(loop: PlainLoop) -> list[object]:
    dataset = loop.train_loader.dataset
    return dataset.transform.transforms  # type: ignore[attr-defined,no-any-return]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_every_side_runs_on_a_gpu() -> None:
    measured = measure(width=4, side=16, n_rows=200, device="cuda", recipes=["eager", "compiled"])
    assert measured.environment["gpu"]
    assert len(measured.rows) == 4
