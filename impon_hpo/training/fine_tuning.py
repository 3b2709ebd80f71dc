"""Fine-tuning: which layers of a model are trained, and which of them is its head."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig

log = logging.getLogger("impon_hpo")

ALL, HEAD = "all", "head"


def heads(model: nn.Module, n_outputs: int) -> dict[str, nn.Module]:
    """Return the layers that give the logits of a model, by name.

    That is its last `nn.Linear` of `n_outputs`, or if it has none of them its last `nn.Conv2d`, as
    in SqueezeNet; and those of auxiliary heads, in whose names there is "aux".

    Args:
        model: The model.
        n_outputs: Number of its logits.

    Example:
        >>> from torch import nn
        >>> list(heads(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 3)), 3))
        ['2']
    """
    modules = dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    for kind, outputs in ((nn.Linear, "out_features"), (nn.Conv2d, "out_channels")):
        found = found or {
            name: module
            for name, module in modules.items()
            if isinstance(module, kind) and getattr(module, outputs) == n_outputs
        }
    last = next(reversed(found), None)
    return {name: one for name, one in found.items() if name == last or "aux" in name.lower()}


def the_heads(config: TrainingConfig, model: nn.Module, n_outputs: int) -> dict[str, nn.Module]:
    """Return the heads of the model of `config`.

    Raises:
        ConfigError: There is none.
    """
    found = heads(model, n_outputs)
    if not found:
        raise ConfigError(
            f"Model '{config.model}' has no nn.Linear or nn.Conv2d with {n_outputs} outputs, so "
            "its head is not known."
        )
    return found


def freeze(config: TrainingConfig, model: nn.Module, n_classes: int) -> list[nn.Module]:
    """Freeze what `train_layers` does not name, and return the frozen layers that normalise with
    running statistics, which must stay in evaluation mode. Dropout stays as it is.

    Args:
        config: The settings.
        model: The model. Frozen parameters no longer require gradients.
        n_classes: Number of its logits.

    Raises:
        ConfigError: A name has no parameter that can be trained, or there is no name.
    """
    names = [name.strip() for name in config.train_layers.split(",") if name.strip()]
    if ALL in names:
        return []
    trainable = [name for name, one in model.named_parameters() if one.requires_grad]
    chosen: list[str] = []
    for name in names:
        meant = [name]
        if name == HEAD and not _within(trainable, [HEAD]):
            meant = list(the_heads(config, model, n_classes))
        if not _within(trainable, meant):
            there = _there_are(config, name, trainable)
            raise ConfigError(f"train_layers: no parameter to train in {there}")
        chosen += meant
    if not chosen:
        raise ConfigError(f"train_layers is empty: {_there_are(config, '', trainable)}")
    kept = set(_within(trainable, chosen))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)
    return list(_frozen_norms(model, chosen))


def _within(names: list[str], chosen: list[str]) -> list[str]:
    """Return those of `names` that are chosen, or are parts of what is chosen."""
    return [name for name in names if any(f"{name}.".startswith(f"{one}.") for one in chosen)]


def _frozen_norms(model: nn.Module, chosen: list[str]) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        parts = [name, *(f"{name}.{part}" for part, _ in module.named_parameters(recurse=False))]
        if isinstance(module, _NormBase) and not _within(parts, chosen):
            yield module


def _there_are(config: TrainingConfig, name: str, trainable: list[str]) -> str:
    tops = list(dict.fromkeys(one.partition(".")[0] for one in trainable))
    known = [ALL, HEAD, *tops]
    begun = f"'{name}'.{suggestion(name, known)} " if name else ""
    return f"{begun}Model '{config.model}' has: {', '.join(known)}, and what is in them."
