"""Mixup and cutmix: shares, partners, pixels, and what the step makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from impon_hpo.training.mixing import Mixing
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.runs import BATCH, config


def numbered(n: int, height: int = 8, width: int = 8) -> Tensor:
    """n images (1, H, W) whose pixels are all their row number."""
    return torch.arange(float(n))[:, None, None, None].expand(n, 1, height, width)


def mixing(*names: str, seed: int = 0, **options: Any) -> Mixing:
    return Mixing(names, options, torch.Generator().manual_seed(seed))


@given(
    names=st.sampled_from([("mixup",), ("cutmix",), ("mixup", "cutmix")]),
    size=st.tuples(st.integers(4, 19), st.integers(4, 19)),
    n=st.integers(1, 20),
    alpha=st.sampled_from([0.01, 0.2, 1.0, 8.0]),
    seed=st.integers(0, 2**31),
)
def test_the_share_is_that_of_the_first_images_pixels(
    names: tuple[str, ...], size: tuple[int, int], n: int, alpha: float, seed: int
) -> None:
    inputs = numbered(n, *size)
    mixed, others, share = mixing(*names, seed=seed, **{name: {"alpha": alpha} for name in names})(
        inputs
    )
    assert mixed.shape == inputs.shape
    assert sorted(others.tolist()) == list(range(n))
    assert 0 <= float(share) <= 1
    expected = share * inputs.mean((1, 2, 3)) + (1 - share) * inputs[others].mean((1, 2, 3))
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-4)


def test_mixup_blends_and_cutmix_puts_a_box_in() -> None:
    inputs = numbered(16)
    blended, _, share = mixing("mixup")(inputs)
    assert torch.equal(blended.amin((1, 2, 3)), blended.amax((1, 2, 3)))
    assert 0 < float(share) < 1
    cut, others, share = mixing("cutmix", seed=1)(inputs)
    of_other = cut == others[:, None, None, None]
    assert bool((of_other | (cut == inputs)).all())
    moved = of_other[others != torch.arange(16)][:, 0]
    rows, columns = moved.any(2), moved.any(1)
    assert torch.equal(moved, rows[:, :, None] & columns[:, None, :])  # a box, the same in each
    assert distinct(moved) == 1
    assert float(1 - moved[0].float().mean()) == float(share)


def distinct(values: Tensor) -> int:
    return len({value.numpy().tobytes() for value in values})


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    mixes = mixing("mixup", mixup={"alpha": alpha})
    shares = torch.stack([mixes(numbered(2, 4, 4))[2] for _ in range(3000)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(float(shares.mean()) - 0.5) < 5 * (variance / 3000) ** 0.5
    assert float(shares.var()) == pytest.approx(variance, rel=0.12)


def test_a_tiny_alpha_leaves_images_whole() -> None:
    mixes = mixing("mixup", mixup={"alpha": 0.01})
    shares = [float(mixes(numbered(2, 4, 4))[2]) for _ in range(200)]
    whole = [share for share in shares if min(share, 1 - share) < 0.01]
    assert len(whole) > 175  # 191 ± 3
    assert {round(share) for share in whole} == {0, 1}


def test_of_both_a_coin_decides_for_each_batch() -> None:
    both = mixing("mixup", "cutmix")
    blends = 0
    for _ in range(400):
        mixed, _, share = both(numbered(8))
        blended = torch.equal(mixed.amin((1, 2, 3)), mixed.amax((1, 2, 3)))
        blends += blended and float(share) < 1
    assert 130 < blends < 230  # 200, less those in which a box is empty or whole


def test_draws_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = mixing("mixup", "cutmix", seed=3), mixing("mixup", "cutmix", seed=3)
    for _ in range(3):
        for one, other in zip(first(numbered(5)), second(numbered(5)), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_the_mixed_labels(tiny_splits: Splits, smoothing: float) -> None:
    given = {"augment": "mixup+cutmix", "label_smoothing": smoothing}
    step = TrainingRun(config(**given), tiny_splits).training_step
    mixes, mixed_with = step.mixing, []
    assert mixes is not None

    def noted(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = mixes(inputs)
        mixed_with.append(result)
        return result

    step.mixing = noted  # type: ignore[assignment]
    rows = torch.arange(BATCH)
    images, labels = tiny_splits.train.batch(rows)
    losses, logits, mean = next(step.train(images, labels, None))
    _, others, share = mixed_with[0]
    soft = share * one_hot(labels, 10) + (1 - share) * one_hot(labels[others], 10)
    assert torch.allclose(soft.sum(1), torch.ones(BATCH))
    expected = cross_entropy(logits, soft, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(losses, expected, atol=1e-5)
    assert float(mean) == pytest.approx(float(losses.double().mean()))
