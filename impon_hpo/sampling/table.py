"""The table of batch samplers: from a name and options to a batch sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from impon_hpo.lookup import find
from impon_hpo.sampling.autoassist import AutoAssist
from impon_hpo.sampling.base import BatchSampler, Common
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
from impon_hpo.sampling.options import check_known, check_sampler, options_of
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
Placebo.known = SAMPLERS


def sampler_class(name: str) -> type[BatchSampler]:
    """Return the class that a name of the table, or "module:Class", stands for.

    Raises:
        ConfigError: The name is unknown, or the class is no `BatchSampler`.
    """
    return check_sampler(name, find(SAMPLERS, name, "batch sampler"))


def option_types(name: str) -> dict[str, Any]:
    """Return the options that a batch sampler takes beside those of all, with their types."""
    return options_of(sampler_class(name))


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise `ConfigError` if the batch sampler or one of its options is unknown."""
    check_known(name, sampler_class(name), options)


def make_sampler(
    name: str, rows: Rows, options: Mapping[str, Any], **common: Unpack[Common]
) -> BatchSampler:
    """Make the batch sampler `name` with its `options`; `common` is what all samplers take.

    Raises:
        ConfigError: The name or an option is unknown, or an option is out of its range.
    """
    check_options(name, options)
    constructor: Callable[..., BatchSampler] = sampler_class(name)
    return constructor(rows, **common, **options)
