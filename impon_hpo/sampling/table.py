"""The table of batch samplers: from a name and options to a batch sampler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find
from impon_hpo.sampling.autoassist import AutoAssist
from impon_hpo.sampling.base import BatchSampler
from impon_hpo.sampling.checks import Common, check_known, options_of
from impon_hpo.sampling.class_loss import ClassLoss
from impon_hpo.sampling.curriculum import Curriculum
from impon_hpo.sampling.fraction import UniformFraction
from impon_hpo.sampling.grad_norm import GradNorm
from impon_hpo.sampling.impon import Impon, ImponLow
from impon_hpo.sampling.impon_memory import ImponMemory
from impon_hpo.sampling.impon_paced import ImponPaced
from impon_hpo.sampling.infobatch import InfoBatch
from impon_hpo.sampling.loss_rank import LossRank
from impon_hpo.sampling.lstm_loss import LstmLoss
from impon_hpo.sampling.p_sgd import CSgd, PSgd
from impon_hpo.sampling.placebo import Placebo
from impon_hpo.sampling.prioritized import Prioritized
from impon_hpo.sampling.proxy_filter import ProxyFilter
from impon_hpo.sampling.rho_loss import RhoLoss
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.selective_backprop import SelectiveBackprop
from impon_hpo.sampling.uniform import Uniform
from impon_hpo.sampling.upper_bound import UpperBound

SAMPLERS: dict[str, type[BatchSampler]] = {
    "uniform": Uniform,
    "uniform-fraction": UniformFraction,
    "impon": Impon,
    "impon-low": ImponLow,
    "placebo": Placebo,
    "selective-backprop": SelectiveBackprop,
    "p-sgd": PSgd,
    "c-sgd": CSgd,
    "loss-rank": LossRank,
    "prioritized": Prioritized,
    "grad-norm": GradNorm,
    "upper-bound": UpperBound,
    "lstm-loss": LstmLoss,
    "autoassist": AutoAssist,
    "class-loss": ClassLoss,
    "proxy-filter": ProxyFilter,
    "curriculum": Curriculum,
    "rho-loss": RhoLoss,
    "infobatch": InfoBatch,
    "impon-paced": ImponPaced,
    "impon-memory": ImponMemory,
}


def sampler_class(name: str) -> type[BatchSampler]:
    """Return the class that a name of the table, or "module:Class", stands for.

    Raises:
        ConfigError: The name is unknown, or the class is no `BatchSampler`.
    """
    sampler: Any = find(SAMPLERS, name, "batch sampler")
    if not (inspect.isclass(sampler) and issubclass(sampler, BatchSampler)):
        raise ConfigError(f"'{name}' must be a subclass of BatchSampler, but is {sampler!r}.")
    return sampler


Placebo.class_of = sampler_class


def option_types(name: str) -> dict[str, Any]:
    """Return the options that a batch sampler takes beside those of all, with their types."""
    return options_of(sampler_class(name))


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise `ConfigError` if the batch sampler or one of its options is unknown."""
    check_known(name, sampler_class(name), options)


def make_sampler(
    name: str, rows: Rows, options: Mapping[str, Any] | None = None, **common: Unpack[Common]
) -> BatchSampler:
    """Make a batch sampler from its name.

    Args:
        name: A name of `SAMPLERS`, or "module:Class" for one of your own.
        rows: The training rows.
        options: The options of that sampler by name; those not given have their defaults.
        common: What all samplers take: `batch_size` and `model`; `seed` and `total_steps`, if any.

    Raises:
        ConfigError: The name or an option is unknown, or an option is out of its range.
    """
    options = options or {}
    check_options(name, options)
    constructor: Callable[..., BatchSampler] = sampler_class(name)
    return constructor(rows, **common, **options)
