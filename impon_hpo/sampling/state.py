"""State: what a checkpoint keeps of a batch sampler and of its parts, declared by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError


class Stateful:
    """Saves and restores the attributes that a class and its base classes name in `_state`.

    An attribute is a tensor, a plain value, None, a tuple of these, a list of tensors, a random
    generator, another `Stateful` or a module. In a state it has its name without a leading
    underscore. Tensors are written in place, since a captured graph may hold their memory.
    """

    _state: ClassVar[tuple[str, ...]] = ()
    """The attributes that this class adds to those of its base classes."""
    _replaced: ClassVar[tuple[str, ...]] = ()
    """Tensors of `_state` that are exchanged and not written to: their length may differ, and
    others may hold views of them."""

    @classmethod
    def _state_names(cls) -> dict[str, str]:
        """Return key in the state → name of the attribute, over all base classes."""
        declared = [name for base in reversed(cls.__mro__) for name in vars(base).get("_state", ())]
        return {name.removeprefix("_"): name for name in declared}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything that a checkpoint must keep, as tensors and plain values."""
        return {key: _saved(getattr(self, name)) for key, name in self._state_names().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()` of an object that was made with the same arguments.

        Raises:
            ConfigError: The state is broken or of another object; nothing is changed then.
        """
        self._check_state(state, type(self).__name__)
        for key, name in self._state_names().items():
            if name in self._replaced:
                setattr(self, name, state[key].to(getattr(self, name).device, copy=True))
            else:
                setattr(self, name, _restored(getattr(self, name), state[key]))

    def _check_state(self, state: Any, place: str) -> None:
        names = self._state_names()
        _check_keys(names, state, place)
        for key, name in names.items():
            _check(getattr(self, name), state[key], f"{place}.{key}", resize=name in self._replaced)


def _saved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Stateful):
        return value.state_dict()
    if isinstance(value, nn.Module):
        return {key: _saved(tensor) for key, tensor in value.state_dict().items()}
    if isinstance(value, list | tuple):
        return type(value)(_saved(one) for one in value)
    return value


def _restored(value: Any, saved: Any) -> Any:
    """Return `value` with the contents of `saved`, whose form has been checked."""
    if isinstance(value, Tensor):
        return value.copy_(saved)
    if isinstance(value, torch.Generator):
        value.set_state(saved.cpu())
        return value
    if isinstance(value, Stateful | nn.Module):
        value.load_state_dict(saved)
        return value
    if isinstance(value, tuple):
        return tuple(_restored(one, other) for one, other in zip(value, saved, strict=True))
    return list(saved) if isinstance(value, list) else saved


def _check(value: Any, saved: Any, place: str, *, resize: bool = False) -> None:
    """Raise `ConfigError` unless `saved` has the form in which `value` is saved."""
    if isinstance(value, Stateful):
        value._check_state(saved, place)
    elif isinstance(value, nn.Module):
        tensors = value.state_dict()
        _check_keys(tensors, saved, place)
        for key, tensor in tensors.items():
            _check(tensor, saved[key], f"{place}.{key}")
    elif isinstance(value, tuple):
        if not isinstance(saved, tuple) or len(saved) != len(value):
            raise _refusal(place, f"a tuple of {len(value)}", saved)
        for at, one in enumerate(value):
            _check(one, saved[at], f"{place}[{at}]")
    elif isinstance(value, list):
        if not isinstance(saved, list) or not all(isinstance(one, Tensor) for one in saved):
            raise _refusal(place, "a list of tensors", saved)
    elif isinstance(value, torch.Generator):
        _check(value.get_state(), saved, place)
    elif isinstance(value, Tensor):
        length = slice(1, None) if resize else slice(None)
        if (
            not isinstance(saved, Tensor)
            or saved.dtype != value.dtype
            or saved.dim() != value.dim()
            or saved.shape[length] != value.shape[length]
        ):
            raise _refusal(place, described(value), saved)
    elif _kind(value) != _kind(saved):
        raise _refusal(place, f"like {value!r}", saved)


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _check_keys(names: Mapping[str, Any], state: Any, place: str) -> None:
    if not isinstance(state, Mapping):
        raise _refusal(place, "a dictionary", state)
    missing = [name for name in names if name not in state]
    if missing:
        raise ConfigError(
            f"The state of {place} must have the entries {', '.join(names)}, but it lacks "
            f"{', '.join(missing)}. It is broken or of another sampler."
        )


def _refusal(place: str, expected: str, saved: Any) -> ConfigError:
    given = described(saved) if isinstance(saved, Tensor) else f"of type {type(saved).__name__}"
    return ConfigError(
        f"{place} in the state must be {expected}, but is {given}. The state is broken or of a "
        "sampler that was made with other arguments."
    )


def described(tensor: Tensor) -> str:
    """Return dtype and shape of a tensor, such as "float32 (60, 3)"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
