"""The `augment` setting: the names that it joins with "+", and the options of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.settings import Settings

_Number = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_Share = Annotated[_Number, Field(le=1)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the lower one must come first, but got {list(pair)}.")
    return pair


_Pair = (Field(strict=False), AfterValidator(_ordered))
Scale = Annotated[tuple[_Share, _Share], *_Pair]
"""Least and largest share of an image's area."""
Ratio = Annotated[tuple[_Number, _Number], *_Pair]
"""Least and largest width / height."""


class ResizedCrop(Settings):
    """Options of "resized-crop": what part is cut out."""

    scale: Scale = (0.08, 1.0)
    ratio: Ratio = (3 / 4, 4 / 3)


class Trivial(Settings):
    """Options of "trivial": among how many magnitudes it draws."""

    num_magnitude_bins: int = Field(default=31, ge=2)


class Rand(Settings):
    """Options of "rand": operations an image, and their magnitude."""

    num_ops: int = Field(default=2, ge=1)
    magnitude: int = Field(default=9, ge=0, le=30)


class Erase(Settings):
    """Options of "erase": its probability, what part is erased, and its grey value."""

    p: float = Field(default=0.5, ge=0, le=1)
    scale: Scale = (0.02, 0.33)
    ratio: Ratio = (0.3, 3.3)
    value: int = Field(default=0, ge=0, le=255)


class Mix(Settings):
    """Options of "mixup" and of "cutmix": the share of the first image is Beta(alpha, alpha)."""

    alpha: float = Field(default=1.0, ge=0.01, allow_inf_nan=False)


IN_STEP = ("crop", "flip")
"""Drawn for a whole batch at once."""

MIXING: dict[str, type[Mix]] = {"mixup": Mix, "cutmix": Mix}
"""What mixes the images of a batch, and their labels."""

BEFORE_STEP: dict[str, type[Settings]] = {
    "resized-crop": ResizedCrop,
    "trivial": Trivial,
    "rand": Rand,
    "erase": Erase,
}
"""torchvision's transforms, called for each image."""

OPTIONS: dict[str, type[Settings]] = {**BEFORE_STEP, **MIXING}
NAMES = (*IN_STEP, *BEFORE_STEP, *MIXING)


def check_augment(augment: str) -> str:
    """Return `augment`, or raise what pydantic tells as a mistake of this setting."""
    names = augment.split("+")
    mistake = ""
    for name in names:
        if name not in (*NAMES, "auto", "none") and not all(name.partition(":")):
            mistake = (
                f"There is no '{name}'.{suggestion(name, NAMES)} Join with '+' any of "
                f"{', '.join(NAMES)}, auto (what suits the data set), or 'module:function' for "
                "your own; or give 'none'"
            )
            break
    else:
        if len(set(names)) < len(names):
            mistake = "Each name can be given once"
        elif "none" in names and len(names) > 1:
            mistake = "'none' stands alone"
        elif "resized-crop" in names and {"crop", "auto"} & set(names):
            mistake = "resized-crop takes the place of crop: write flip+resized-crop, for example"
    if mistake:
        raise PydanticCustomError("augment", "{mistake}", {"mistake": mistake})
    return augment


def augment_names(augment: str, suited: str) -> tuple[str, ...]:
    """Return the names that `augment` joins, in their order.

    Args:
        augment: The setting.
        suited: What suits the data set: "none", "crop", "flip" or "crop+flip".

    Example:
        >>> from impon_hpo.training.augment_setting import augment_names
        >>> augment_names("auto+trivial", "crop+flip")
        ('crop', 'flip', 'trivial')
    """
    names = [
        one
        for name in augment.split("+")
        for one in (suited.split("+") if name == "auto" else [name])
    ]
    return tuple(name for name in dict.fromkeys(names) if name != "none")


def mixing_names(names: Iterable[str]) -> list[str]:
    """Return which of the names mix images of different rows."""
    return [name for name in names if name in MIXING]


def options_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a name of `OPTIONS`: those of `augment_options`, and defaults.

    Raises:
        ConfigError: An option is unknown or does not fit; the message has a line for each.
    """
    prefix = f"augment_options.{name}."
    return OPTIONS[name].checked(given.get(name, {}), prefix=prefix).model_dump()


def check_options(given: Mapping[str, Any]) -> None:
    """Check `augment_options`, those of names that `augment` does not have, too.

    Raises:
        ConfigError: A name or an option is unknown, or a value does not fit.
    """
    for name, options in given.items():
        if name not in OPTIONS:
            raise ConfigError(
                f"Unknown key 'augment_options.{name}'.{suggestion(name, OPTIONS)} "
                f"Options have: {', '.join(OPTIONS)}."
            )
        if not isinstance(options, dict):
            raise ConfigError(f"augment_options.{name} must be a table, but got {options!r}.")
        options_of(name, given)
