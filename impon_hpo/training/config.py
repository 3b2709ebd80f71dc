"""The training configuration: every setting of one training run."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from impon_hpo.errors import ConfigError
from impon_hpo.files import expanded
from impon_hpo.settings import Settings, choice_meant
from impon_hpo.training.augment_setting import check_augment, check_options, mixing_names

Auto = Literal["auto"]

ADDED = {
    "augment_options",
    "class_weights",
    "lr_head",
    "metric",
    "model_options",
    "normalisation",
    "skip_broken",
    "train_layers",
    "weights_file",
}
"""Settings that came later: at their default, hashes and stored studies know nothing of them."""
FILES = {
    "relabel": "a CSV file",
    "exclude": "a CSV file",
    "groups": "a CSV file",
    "weights_file": "a file of weights",
}
"""Settings that name a file, and of what kind; its content decides the numbers."""
PATTERN = "re:"
"""What `groups` begins with where it is a regular expression instead."""


class TrainingConfig(Settings):
    """All settings of one training run. `[run]` of a study file and `--set` use the same names.

    Two runs with equal settings on the same machine with one thread give the same numbers, bit for
    bit. The context `{"check_samplers": False}` leaves out the check of the batch sampler and its
    options, which imports torch.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the message has a line for each.

    Example:
        >>> from impon_hpo import TrainingConfig
        >>> config = TrainingConfig(dataset="digits", sampler="impon", lr=0.05)
        >>> config.lr, config.epochs
        (0.05, 30)
        >>> TrainingConfig(lrr=1)
        Traceback (most recent call last):
        impon_hpo.errors.ConfigError: Unknown key 'lrr'. Did you mean 'lr'?
    """

    dataset: str = Field(
        default="digits",
        description="digits, cifar10, cifar100, svhn, fashion-mnist, mnist, folder or "
        "'module:function'",
    )
    data_dir: str | None = Field(
        default=None,
        description="folder of the data; default $IMPON_HPO_DATA or ~/.cache/impon-hpo/data",
    )
    download: bool = Field(default=False, description="download a data set of torchvision's")
    subset: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="rows to train on, drawn by seed, classes in proportion; default all",
    )
    relabel: str | None = Field(
        default=None,
        description="CSV file of corrected labels, columns file and label; no label: left out",
    )
    exclude: str | None = Field(
        default=None, description="CSV file of images that are left out, column file"
    )
    groups: str | None = Field(
        default=None,
        description="images that stay in one split: a CSV file, columns file and group; or "
        "'re:(patient[0-9]+)_', and what the part in parentheses finds in a name is the group",
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        default=None, description="side in pixels to which images are resized; default as they are"
    )
    skip_broken: bool = Field(
        default=False,
        description="folder: leave out pictures that cannot be read, with a warning",
    )
    validation_size: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="rows (int) or share (float) of the training data set aside, unless the data "
        "have validation images of their own",
    )
    augment: Annotated[str, AfterValidator(check_augment)] = Field(
        default="auto",
        description="random changes of images, joined with '+': crop, flip, resized-crop, trivial, "
        "rand, erase, mixup, cutmix, 'module:function', auto (the crop and flip that suit the data "
        "set); or none",
    )
    augment_options: dict[str, Any] = Field(
        default={}, description="their options, a table each: rand = { magnitude = 5 }"
    )
    model: str = Field(
        default="resnet18", description="resnet18, resnet18-imagenet or 'module:function'"
    )
    model_options: dict[str, Any] = Field(
        default={}, description="arguments of the model's function, such as weights = 'DEFAULT'"
    )
    weights_file: str | None = Field(
        default=None, description="file of a state dict that the model begins with; default none"
    )
    normalisation: Literal["auto", "data", "imagenet"] = Field(
        default="auto",
        description="mean and deviation of the pixels: the data's own or ImageNet's; auto: those "
        "that pretrained weights declare, else the data's",
    )
    width: int = Field(default=64, ge=1, le=1024, description="channels of resnet18's first stage")
    train_layers: str = Field(
        default="all",
        description="what is trained: all, head or names of modules, such as 'layer4, fc'",
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="sgd, adam or adamw"
    )
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="(peak) learning rate")
    lr_head: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="learning rate of the head, which gives the logits; default lr"
    )
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
    metric: Literal["accuracy", "balanced-accuracy", "macro-f1", "loss"] = Field(
        default="accuracy",
        description="what is reported, picked by and tested: accuracy, balanced-accuracy (its mean "
        "over the classes), macro-f1 or loss (reported as minus loss)",
    )
    ema_epochs: float = Field(
        default=0.5, gt=0, allow_inf_nan=False, description="time constant of that average"
    )
    epoch_fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of a full epoch's steps that an epoch has"
    )
    batch_size: int = Field(default=128, ge=2, description="rows a step")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="label smoothing")
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="weights of the loss: none, or balanced (each class counts the same in sum)",
    )
    autocast: bool | Auto = Field(
        default="auto", description="bfloat16 autocast; auto: where it is faster"
    )
    channels_last: bool | Auto = Field(
        default="auto", description="channels_last; auto: wherever its gradients are correct"
    )
    compile: Literal["auto", "graph", "inductor", "off"] = Field(
        default="auto",
        description="how a step is run: off, graph (a CUDA graph) or inductor (torch.compile, on a "
        "GPU with a graph); auto: off on a CPU, else graph, and inductor where that saves time",
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
        are, whether they may be downloaded, the device, and how steps are run on it. The settings
        `ADDED` are among them only where they are not at their default.

        Of the settings `FILES`, where they are set, it is the hash of the file's content, or of the
        pattern.

        Raises:
            ConfigError: Such a file is gone.
        """
        silent = ADDED - self.model_dump(exclude_defaults=True).keys()
        apart = {"data_dir", "download", "device", "compile", *FILES}
        settings = {
            key: value for key, value in self.as_json().items() if key not in apart | silent
        }
        for name in FILES:
            if getattr(self, name) is not None:
                settings[name] = _hash(self, name)
        return settings

    def as_json(self) -> dict[str, Any]:
        """Return all settings as plain JSON values; of a function, its name."""
        return json.loads(json.dumps(self.model_dump(), default=_name_of))  # type: ignore[no-any-return]

    @property
    def group_pattern(self) -> re.Pattern[str] | None:
        """The regular expression of `groups`, or None where that is a file or not set.

        Raises:
            ConfigError: It is broken, or has not one part in parentheses.
        """
        if self.groups is None or not self.groups.startswith(PATTERN):
            return None
        try:
            pattern = re.compile(self.groups.removeprefix(PATTERN))
        except re.error as error:
            at = "" if error.pos is None else f" at character {error.pos + len(PATTERN) + 1}"
            raise ConfigError(
                f"groups = '{self.groups}' must be a regular expression behind '{PATTERN}', but "
                f"there is something wrong{at}: {error.msg}."
            ) from error
        if pattern.groups != 1:
            raise ConfigError(
                f"groups = '{self.groups}' must have one part in parentheses, which finds the "
                f"group in a name, but it has {pattern.groups}. Parentheses that only hold "
                "together are written (?:…)."
            )
        return pattern

    @model_validator(mode="after")
    def _agree(self, info: ValidationInfo) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov = true needs optimizer = 'sgd' and a positive momentum.")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), "
                f"but got {self.warmup_epochs:g}."
            )
        for name in FILES:
            if getattr(self, name) is not None:
                _hash(self, name)
        if self.model_options and ":" not in self.model:
            raise ValueError(
                f"model_options are arguments of a function, such as model = "
                f"'torchvision.models:resnet18', but model is '{self.model}'."
            )
        check_options(self.augment_options)
        check_samplers = (info.context or {}).get("check_samplers", True)
        if check_samplers:
            _check_sampler_options(self.sampler, self.sampler_options)
        if check_samplers or ":" not in self.sampler:
            _check_rows_are_seen(self)
        return self


def _hash(config: TrainingConfig, name: str) -> str:
    if name == "groups" and config.group_pattern is not None:
        return hashlib.sha256(config.group_pattern.pattern.encode()).hexdigest()[:16]
    path = expanded(getattr(config, name))
    try:
        status = path.stat()
        return _hash_of(path.absolute(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        or_pattern = f", or begin with '{PATTERN}'" if name == "groups" else ""
        raise ConfigError(
            f"{name} = '{path}' must be {FILES[name]}, as a path in the working directory or "
            f"beside study.toml{or_pattern}, but it cannot be read: {error.strerror}."
        ) from error


@lru_cache(maxsize=64)
def _hash_of(path: Path, size: int, changed: int) -> str:
    # Cached by size and time: weights have hundreds of megabytes, and are asked for every epoch.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _name_of(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _check_sampler_options(sampler: str, options: dict[str, Any]) -> None:
    from impon_hpo.sampling.table import check_options, option_types  # imports torch

    check_options(sampler, options)
    types = option_types(sampler)
    for name, value in options.items():
        try:
            TypeAdapter(types[name], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            reasons = " ".join(
                f"{mistake['msg']}.{choice_meant(mistake)}" for mistake in error.errors()
            )
            raise ConfigError(
                f"Option '{name}' of batch sampler '{sampler}' = {value!r}: {reasons}"
            ) from None


def _check_rows_are_seen(config: TrainingConfig) -> None:
    """Refuse a reference that would be learnt from mixed images."""
    mixed = mixing_names(config.augment.split("+"))
    if mixed and config.reference == "prequential" and wants_reference(config):
        raise ConfigError(
            f"augment = '{config.augment}': batch sampler '{config.sampler}' reads a reference, "
            "and reference = 'prequential' is what training sees of each row, which would be "
            f"mixed images. Use reference = 'crossfit', or leave out {' and '.join(mixed)}."
        )


def uniformly(config: TrainingConfig) -> TrainingConfig:
    """Return `config` with the batch sampler `uniform`."""
    return config.model_copy(update={"sampler": "uniform", "sampler_options": {}})


REFERENCE_READERS = ("impon-memory", "impon-paced", "impon-trusted", "proxy-filter", "rho-loss")
"""Batch samplers that read a reference with all options. A test compares this with the classes."""


def wants_reference(config: TrainingConfig) -> bool:
    """Return whether the batch sampler of `config` reads a reference.

    The samplers of the table are known here, so that torch is imported only for a class of the
    user's.

    Raises:
        ConfigError: The user's class cannot be imported.
    """
    sampler, options = config.sampler, config.sampler_options
    if sampler == "placebo":
        sampler, options = options.get("of", "impon"), options.get("options") or {}
    if ":" in sampler:
        from impon_hpo.sampling.table import sampler_class

        return sampler_class(sampler).wants_reference(options)
    if sampler == "curriculum":
        return bool(options.get("difficulty", "reference") == "reference")
    return sampler in REFERENCE_READERS
