"""A GPU that is not there: what was built on the CPU is moved to fake tensors on `cuda:0`, or on
`meta`, where operations check devices and shapes and compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.sampling.waiting import WaitingError, nothing_waits

GPU = torch.device("cuda:0")

# With a device that is not there, the first backward pass of a process would start a thread for it,
# and what is forked from that process later could not train. Now there is none yet.
torch.ones(1, requires_grad=True).sum().backward()


class FakeGenerator:
    """Stands where a generator of a device that is not there would; nothing is drawn from it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device


DRAWING: list[tuple[Any, str]] = [
    (torch, name)
    for name in ("rand", "randn", "randint", "randperm", "multinomial", "_standard_gamma")
]
DRAWING += [(Tensor, name) for name in ("exponential_", "uniform_", "normal_", "random_")]


def _without_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("generator"), FakeGenerator):
            del kwargs["generator"]
        return function(*args, **kwargs)

    return draw


class _NoCrossing(TorchDispatchMode):
    """Raises where a tensor goes from host to device or back, each of which waits."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        if name.startswith(("aten::_to_copy", "aten::copy")):
            devices.add(torch.device(kwargs.get("device") or tensors[0].device).type)
            if len(devices) > 1:
                raise WaitingError(f"{name} from device to device")
        if name.startswith(("aten::index", "aten::_index_put")) and len(devices) > 1:
            raise WaitingError(f"{name} with a tensor on the host")
        return func(*args, **kwargs)


class FakeDevice:
    """Moves objects to a device that is not there, and runs what is on it.

    Args:
        device: `cuda:0`, where forward passes and samplers work, or `meta`, where backward passes
            work, too.
    """

    def __init__(self, device: torch.device = GPU) -> None:
        self.device = device
        self._mode = FakeTensorMode() if device.type == "cuda" else None
        self._moved: dict[int, tuple[Any, Any]] = {}  # with the original, whose id would be reused

    @contextmanager
    def running(self) -> Iterator[None]:
        """Raise inside where a device is forgotten or the host would wait."""
        with pytest.MonkeyPatch.context() as patch:
            for place, name in DRAWING:
                patch.setattr(place, name, _without_generator(getattr(place, name)))
            if self._mode is None:
                yield
                return
            with self._mode, nothing_waits(), _NoCrossing():  # type: ignore[no-untyped-call]
                yield

    def move(self, thing: Any) -> Any:
        """Return `thing` with every tensor, device and generator in it on the device; objects are
        changed in place."""
        if id(thing) in self._moved:
            return self._moved[id(thing)][1]
        moved = self._move(thing)
        self._moved[id(thing)] = (thing, moved)
        return moved

    def tensor(self, tensor: Tensor) -> Tensor:
        """Return a tensor like `tensor` on the device."""

        def empty() -> Tensor:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device
            )

        if self._mode is None:
            made = empty()
        else:
            with self._mode:
                made = empty()
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(made, requires_grad=tensor.requires_grad)
        return made

    def _move(self, thing: Any) -> Any:
        if isinstance(thing, Tensor):
            return self.tensor(thing)
        if isinstance(thing, torch.Generator):
            return FakeGenerator(self.device)
        if isinstance(thing, torch.device):
            return self.device
        if isinstance(thing, dict):
            self._moved[id(thing)] = (thing, thing)
            for key, value in list(thing.items()):
                thing[key] = self.move(value)
            return thing
        if isinstance(thing, list):
            thing[:] = [self.move(value) for value in thing]
            return thing
        if type(thing) is tuple:
            return tuple(self.move(value) for value in thing)
        if isinstance(thing, tuple):  # with names
            return type(thing)(*(self.move(value) for value in thing))
        if isinstance(thing, FunctionType):
            for cell in thing.__closure__ or ():
                cell.cell_contents = self.move(cell.cell_contents)
            return thing
        module = type(thing).__module__
        if module.startswith(("impon_hpo.", "torch.nn.", "torch.optim.", "torchvision.", "tests.")):
            self._moved[id(thing)] = (thing, thing)
            for name, value in list(vars(thing).items()):
                object.__setattr__(thing, name, self.move(value))
        return thing
