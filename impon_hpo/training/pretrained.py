"""Weights that were trained before: torchvision's, those in a file, and their normalisation."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from impon_hpo.errors import ConfigError
from impon_hpo.files import expanded
from impon_hpo.lookup import load_object
from impon_hpo.training.checkpoint import read_state
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.fine_tuning import heads, the_heads
from impon_hpo.training.splits import Normalise, Splits

log = logging.getLogger("impon_hpo")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, red, green and blue, in units of 0 … 1."""

WRAPPED = ("state_dict", "model", "model_state_dict")
"""Under which key a file may have its state dict."""

PREFIXES = ("module.", "_orig_mod.")
"""What `DistributedDataParallel` and `torch.compile` put before every name."""

NAMED = 3
"""How many names a message gives."""


def torchvision_weights(build: Any, options: Mapping[str, Any]) -> WeightsEnum | None:
    """Return the pretrained weights that a function of torchvision's is asked for, or None.

    Args:
        build: The function.
        options: Its arguments; `weights` is a name such as "DEFAULT" or "IMAGENET1K_V2".

    Raises:
        ConfigError: It has no such weights.
    """
    if not (getattr(build, "__module__", None) or "").startswith("torchvision.models"):
        return None
    if "pretrained" in options:
        raise ConfigError(
            "model_options.pretrained: torchvision's weights have names. Use weights = 'DEFAULT'."
        )
    name = options.get("weights")
    if name is None:
        return None
    asked = options.get("name") if build is torchvision.models.get_model else build
    try:
        kinds = get_model_weights(asked)
    except (ValueError, TypeError) as error:  # the latter if it is no name
        raise ConfigError(f"model_options: torchvision knows no weights for {asked}.") from error
    known = ["DEFAULT", *(kind.name for kind in kinds)]
    short = str(name).rpartition(".")[2]
    if short not in known:
        raise ConfigError(
            f"model_options.weights = '{name}' is none of torchvision's for this model. "
            f"There are: {', '.join(known)}."
        )
    return kinds[short]


def without_pretrained(config: TrainingConfig) -> dict[str, Any]:
    """Return the `model_options` of the same network without the weights that they ask for:
    torchvision's `weights`, and timm's `pretrained`."""
    options = dict(config.model_options)
    if options.get("pretrained"):
        options["pretrained"] = False
    if "weights" not in options:
        return options
    weights = torchvision_weights(load_object(config.model), options)
    if weights is None:
        return options
    del options["weights"]
    # What torchvision changes in some networks where they begin with weights.
    kind, sides = type(weights).__name__, weights.meta.get("min_size")
    if kind.startswith("GoogLeNet"):
        given = {"transform_input": True, "aux_logits": False} | options
        options = given | {"init_weights": False}
    elif kind.startswith("Inception"):
        options = {"transform_input": True} | options | {"init_weights": False}
    elif kind.startswith("ViT"):
        options["image_size"] = sides[0]
    elif kind.startswith("MaxVit"):
        options["input_size"] = sides
    return options


def replace_heads(config: TrainingConfig, model: nn.Module, before: int, n_classes: int) -> None:
    """Put new layers in the place of the heads of `before` outputs, unless they fit as they are.

    Raises:
        ConfigError: No head is found.
    """
    if before == n_classes:
        return
    for name, head in the_heads(config, model, before).items():
        fresh: Any = copy.deepcopy(head)
        outputs = "out_features" if isinstance(head, nn.Linear) else "out_channels"
        setattr(fresh, outputs, n_classes)
        for part, parameter in head.named_parameters():
            empty = parameter.new_empty(n_classes, *parameter.shape[1:])
            setattr(fresh, part, nn.Parameter(empty))
        fresh.reset_parameters()
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, fresh)


def load_weights_file(config: TrainingConfig, model: nn.Module, n_classes: int) -> None:
    """Load `weights_file` into a model; heads that the file has not, or of another size, are left
    as they are, which is said in a line.

    The file is a state dict, or has one under one of `WRAPPED`. Reading it runs no code.

    Raises:
        CheckpointError: The file cannot be read.
        ConfigError: It does not fit the model.
    """
    assert config.weights_file is not None
    path = expanded(config.weights_file)
    advice = "It must be a state dict, saved with torch.save(model.state_dict(), …)."
    state = read_state(path, torch.device("cpu"), "weights_file", advice)
    for key in WRAPPED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not (isinstance(state, Mapping) and state and all(_is_entry(*one) for one in state.items())):
        raise ConfigError(f"weights_file '{path}' is no state dict. {advice}")
    state = dict(state)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    own = model.state_dict()
    for name in heads(model, n_classes):
        parts = [key for key in own if key.startswith(f"{name}.")]
        if all(key in state and state[key].shape == own[key].shape for key in parts):
            continue
        log.info(
            f"weights_file: the head '{name}' for {n_classes} classes begins at random, since "
            f"'{path.name}' has none of that size."
        )
        for key in parts:
            state[key] = own[key]
    lacking = [name for name in own if name not in state and "num_batches_tracked" not in name]
    strange = [name for name in state if name not in own]
    unlike = [name for name in own if name in state and state[name].shape != own[name].shape]
    mistakes = [
        f"{what} {_first(names)}"
        for what, names in (
            ("it lacks", lacking),
            ("it has, and the model has not,", strange),
            ("of another shape are", unlike),
        )
        if names
    ]
    if mistakes:
        raise ConfigError(
            f"weights_file '{path}' does not fit model '{config.model}': {'; '.join(mistakes)}."
        )
    model.load_state_dict(state, strict=False)


def _is_entry(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _first(names: list[str]) -> str:
    more = f" … ({len(names)} in all)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def own_normalisation(config: TrainingConfig, model: nn.Module, splits: Splits) -> Normalise | None:
    """Return how images are normalised for a model, or None where it is as the data's own say.

    `auto` takes mean and standard deviation that weights declare: torchvision's in their
    transforms, timm's models in `pretrained_cfg`.

    Args:
        config: The settings.
        model: The model.
        splits: The data.

    Raises:
        ConfigError: ImageNet's are asked for, and the images have not 3 channels.
    """
    n_channels = splits.train.images.shape[3]
    moments: tuple[Any, Any] | None = None
    if config.normalisation == "imagenet":
        moments = IMAGENET
        if n_channels != len(IMAGENET[0]):
            raise ConfigError(
                "normalisation = 'imagenet' is of images with 3 channels, and these have "
                f"{n_channels}. Use normalisation = 'data'."
            )
    elif config.normalisation == "auto":
        moments = _declared(config, model)
    if moments is None or len(moments[0]) != n_channels:
        from_file = config.weights_file is not None and config.normalisation == "auto"
        if from_file and n_channels == len(IMAGENET[0]):
            log.info(
                "weights_file: a file does not say how its images were normalised; here it is by "
                "the data's own mean. For ImageNet's weights, set normalisation = 'imagenet'."
            )
        return None
    device = splits.train.labels.device
    mean, std = (
        (255 * torch.tensor(tuple(moment), dtype=torch.float32)).to(device) for moment in moments
    )
    return Normalise(mean, std)


def _declared(config: TrainingConfig, model: nn.Module) -> tuple[Any, Any] | None:
    weights = None
    if "weights" in config.model_options:
        weights = torchvision_weights(load_object(config.model), config.model_options)
    if weights is not None:
        transforms = weights.transforms()
        return (transforms.mean, transforms.std) if hasattr(transforms, "mean") else None
    declared = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    told = declared if isinstance(declared, Mapping) else getattr(declared, "__dict__", {})
    mean, std = told.get("mean"), told.get("std")
    are_lists = isinstance(mean, tuple | list) and isinstance(std, tuple | list)
    return (mean, std) if are_lists else None
