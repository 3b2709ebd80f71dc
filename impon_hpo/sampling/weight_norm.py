"""The norm of the deep weights, as one number of the context vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from impon_hpo.sampling.memory_order import flat_view

SMALL = 2**16
"""Elements below which copying a tensor beside others costs less than one more kernel."""


class WeightNorm:
    """Computes ‖w‖_F over the trainable parameters of a model, without waiting for a device.

    The parameters are listed once, since walking through a model takes as long as the norm; what
    an optimiser or `load_state_dict` writes into them later is seen.

    Args:
        model: The model; one without trainable parameters has the norm 0.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = [p.detach() for p in model.parameters() if p.requires_grad]
        flats = [(flat_view(tensor), tensor) for tensor in parameters]
        trainable = [tensor if flat is None else flat for flat, tensor in flats]
        small = [t for t in trainable if t.dim() == 1 and t.numel() < SMALL]
        self._small = [t for t in small if t.device == small[0].device]
        beside = {id(tensor) for tensor in self._small}
        self._rest = [tensor for tensor in trainable if id(tensor) not in beside]

    def is_of_the_same(self, other: WeightNorm) -> bool:
        """Return whether both read the same memory."""
        mine, theirs = ([t.data_ptr() for t in [*n._small, *n._rest]] for n in (self, other))
        return mine == theirs

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Return the norm (), of the parameters' dtype and on their device."""
        if not self._small:
            return get_total_norm(self._rest)
        norm = torch.linalg.vector_norm(torch.cat(self._small))
        return torch.hypot(norm, get_total_norm(self._rest).to(norm)) if self._rest else norm
