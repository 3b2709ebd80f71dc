"""Mixup and cutmix: each image of a batch is mixed with another one, and so are their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from impon_hpo.training.augment_setting import mixing_names, options_of


class Mixing:
    """Mixes the images of a batch, all in the same shares.

    mixup (Zhang et al. 2018) blends an image with the other one. cutmix (Yun et al. 2019) puts a
    box of the other one in its place. Where both are asked for, a coin decides for each batch. The
    share of the first image is drawn from Beta(alpha, alpha); cutmix counts the pixels that are
    left of it. The other images are those of the same batch in a random order, since a batch
    sampler may order its rows.

    Args:
        names: "mixup", "cutmix" or both; other names are passed over.
        options: The setting `augment_options`.
        generator: What everything is drawn from, on the device of the images. A GPU waits for
            nothing.

    Example:
        >>> import torch
        >>> from impon_hpo.training.mixing import Mixing
        >>> mixing = Mixing(["cutmix"], {}, torch.Generator().manual_seed(3))
        >>> images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
        >>> mixed, others, share = mixing(images)
        >>> others.tolist(), bool((mixed[1] == 1).float().mean() == share)
        ([0, 3, 1, 2], True)
    """

    def __init__(
        self, names: Sequence[str], options: Mapping[str, Any], generator: torch.Generator
    ) -> None:
        self.names = mixing_names(names)
        self.generator = generator
        alphas = [[options_of(name, options)["alpha"]] * 2 for name in self.names]
        self._alphas = torch.tensor(alphas, dtype=torch.float64, device=generator.device)

    def __repr__(self) -> str:
        return f"Mixing({self.names})"

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mix inputs (B, C, H, W) of any float type.

        Returns:
            The mixed inputs; the row (B,) int64 of the batch that each is mixed with; and the share
            () float32, 0 … 1, that the first image has in each.
        """
        count, _, height, width = inputs.shape
        others = self._uniform(count).argsort()
        # Gamma variables over their sum are Beta's. In double precision, since those of a small
        # alpha are often below what float32 can hold. No public function takes a generator.
        gammas = torch._standard_gamma(self._alphas, generator=self.generator)
        shares = (gammas[:, 0] / gammas.sum(1)).float()
        kept = torch.stack(
            [
                share.expand(height, width)
                if name == "mixup"
                else self._outside_box(share, height, width)
                for name, share in zip(self.names, shares, strict=True)
            ]
        )
        heads = self._uniform(1)[0] < 0.5
        kept = torch.where(heads, kept[0], kept[-1])
        return torch.lerp(inputs[others], inputs, kept.to(inputs.dtype)), others, kept.mean()

    def _outside_box(self, share: Tensor, height: int, width: int) -> Tensor:
        """Return (H, W) float32, 0 in a box of about `1 - share` of the area, cut at the edges."""
        half = 0.5 * (1 - share).sqrt()
        centre = self._uniform(2)

        def inside(side: int, centre: Tensor) -> Tensor:
            from_centre = torch.arange(side, device=share.device) - (centre * side).floor()
            reach = (half * side).floor()
            return (from_centre >= -reach) & (from_centre < reach)

        rows, columns = inside(height, centre[0]), inside(width, centre[1])
        return 1 - (rows[:, None] & columns).float()

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.generator.device)
