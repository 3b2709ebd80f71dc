"""The training configuration: every setting of one training run."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.sampling.table import check_options, option_types

Auto = Literal["auto"]


class TrainingConfig(BaseModel):
    """All settings of one training run; `[run]` of a study file and `--set` know them by name.

    Construct with keyword arguments, or with `training_config(mapping)`, which raises `ConfigError`
    with a readable message. Two runs with equal settings on the same machine with one thread give
    the same numbers, bit for bit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: str = Field(
        default="digits",
        description="digits, cifar10, cifar100, svhn, fashion-mnist, mnist, folder or "
        "'module:function'",
    )
    data_dir: str | None = Field(
        default=None,
        description="folder of the data; default $IMPON_HPO_DATA or ~/.cache/impon-hpo/data",
    )
    download: bool = Field(default=False, description="fetch a missing data set of torchvision's")
    subset: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="rows to train on, drawn by seed, classes in proportion; default all",
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        default=None, description="side in pixels to which images are resized; default as they come"
    )
    validation_size: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="rows (int) or share (float) of the training data set aside"
    )
    augment: Literal["auto", "none", "crop", "flip", "crop+flip"] = Field(
        default="auto", description="random crop and flip per image; auto: what suits the data set"
    )
    model: str = Field(
        default="resnet18", description="resnet18, resnet18-imagenet or 'module:function'"
    )
    width: int = Field(default=64, ge=1, le=1024, description="channels of resnet18's first stage")
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="sgd, adam or adamw"
    )
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="(peak) learning rate")
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="momentum of sgd, beta1 of adam(w)"
    )
    nesterov: bool = Field(default=False, description="Nesterov momentum (sgd)")
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="weight decay")
    schedule: Literal["constant", "cosine", "one-cycle", "rungs"] = Field(
        default="cosine",
        description="learning rate over the run: constant, cosine, one-cycle or rungs (cosine to "
        "zero at each rung)",
    )
    rung_factor: int = Field(
        default=3, ge=2, description="rungs end at epochs, epochs / factor, epochs / factor² …"
    )
    warmup_epochs: float = Field(
        default=0.0, ge=0, description="epochs of linear warm-up; of rise for one-cycle (0: 30 %)"
    )
    epochs: int = Field(default=30, ge=1, description="epochs, the horizon of the schedule")
    eval_weights: Literal["last", "ema"] = Field(
        default="last", description="what is evaluated: the last weights or their moving average"
    )
    ema_epochs: float = Field(
        default=0.5, gt=0, allow_inf_nan=False, description="time constant of that average"
    )
    epoch_fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of a full epoch's steps that an epoch has"
    )
    batch_size: int = Field(default=128, ge=2, description="rows a step")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="label smoothing")
    autocast: bool | Auto = Field(
        default="auto", description="bfloat16 autocast; auto: where it pays"
    )
    channels_last: bool | Auto = Field(
        default="auto", description="channels_last; auto: wherever its gradients can be trusted"
    )
    compile: Literal["auto", "graph", "inductor", "off"] = Field(
        default="auto",
        description="how a step is run: off, graph (a CUDA graph) or inductor (torch.compile, on a "
        "GPU with a graph); auto: off on a CPU, else graph, and inductor where that pays",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 …")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="seed of split, initial weights and order"
    )
    reference: str = Field(
        default="prequential",
        description="what samplers that use one learn of the rows beforehand: prequential, "
        "crossfit or a file",
    )
    reference_options: dict[str, Any] = Field(
        default={},
        description="of crossfit: folds, width, image_size, epochs, batch_size, lr",
    )
    sampler: str = Field(
        default="uniform", description="the batch sampler (in a study file: the arm's)"
    )
    sampler_options: dict[str, Any] = Field(default={}, description="its options (likewise)")

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, as plain JSON values: all but where the data
        lie, whether they may be fetched, and the device and how steps are run on it."""
        settings = self.model_dump(exclude={"data_dir", "download", "device", "compile"})
        return json.loads(json.dumps(settings, default=_name_of))  # type: ignore[no-any-return]

    @model_validator(mode="after")
    def _agree(self) -> TrainingConfig:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov = true needs optimizer = 'sgd' and a positive momentum.")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), "
                f"but got {self.warmup_epochs:g}."
            )
        _check_options(self.sampler, self.sampler_options)
        return self


def _name_of(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def training_config(settings: dict[str, Any], *, prefix: str = "") -> TrainingConfig:
    """Make a `TrainingConfig` of a mapping; messages put `prefix` before a setting's name.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the message has a line for each.
    """
    try:
        return TrainingConfig(**settings)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(explain(error, list(TrainingConfig.model_fields), prefix))
        ) from None


def explain(error: ValidationError, known: list[str], prefix: str = "") -> list[str]:
    """Return a line for each mistake that pydantic found: key, what was given, what would do."""
    lines: dict[str, str] = {}
    for mistake in error.errors():
        path = [str(part) for part in mistake["loc"] if not _is_branch(str(part))]
        key = prefix + ".".join(path)
        if mistake["type"] == "extra_forbidden":
            lines[key] = f"Unknown key '{key}'.{suggestion(path[-1], known)}"
        elif mistake["type"] == "missing":
            lines[key] = f"'{key}' is missing."
        elif mistake["type"] == "value_error":
            lines[key] = (f"{key}: " if path else "") + str(mistake["ctx"]["error"])
        elif key in lines:  # another branch of a union
            lines[key] = f"{lines[key].removesuffix('.')}, or: {mistake['msg']}."
        else:
            lines[key] = f"{key} = {mistake['input']!r}: {mistake['msg']}."
    return list(lines.values())


def _is_branch(part: str) -> bool:
    # A union's branch is part of pydantic's location ("constrained-int"), but no key of anyone's.
    return part in ("int", "float", "bool", "str") or part.startswith(
        ("constrained-", "literal[", "function-")
    )


def _check_options(sampler: str, options: dict[str, Any]) -> None:
    check_options(sampler, options)
    types = option_types(sampler)
    for name, value in options.items():
        try:
            TypeAdapter(types[name], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            said = " ".join(f"{mistake['msg']}." for mistake in error.errors())
            raise ConfigError(
                f"Option '{name}' of batch sampler '{sampler}' = {value!r}: {said}"
            ) from None
