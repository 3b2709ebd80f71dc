"""The table of batch samplers: `SAMPLERS`, by name, and `make_sampler`.

Example:
    >>> from impon_hpo import SAMPLERS
    >>> sorted(SAMPLERS)[:4]
    ['autoassist', 'c-sgd', 'class-balanced', 'class-loss']
    >>> SAMPLERS["uniform"].__name__
    'Uniform'
    >>> SAMPLERS["rho-loss"].card.source
    'Mindermann et al. 2022'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find
from impon_hpo.sampling.base import BatchSampler
from impon_hpo.sampling.checks import Common, check_known, options_of
from impon_hpo.sampling.methods.autoassist import AutoAssist
from impon_hpo.sampling.methods.class_balanced import ClassBalanced
from impon_hpo.sampling.methods.class_loss import ClassLoss
from impon_hpo.sampling.methods.curriculum import Curriculum
from impon_hpo.sampling.methods.grad_norm import GradNorm
from impon_hpo.sampling.methods.impon import Impon, ImponLow
from impon_hpo.sampling.methods.impon_memory import ImponMemory
from impon_hpo.sampling.methods.impon_paced import ImponPaced
from impon_hpo.sampling.methods.impon_trusted import ImponTrusted
from impon_hpo.sampling.methods.infobatch import InfoBatch
from impon_hpo.sampling.methods.loss_rank import LossRank
from impon_hpo.sampling.methods.lstm_loss import LstmLoss
from impon_hpo.sampling.methods.p_sgd import CSgd, PSgd
from impon_hpo.sampling.methods.placebo import Placebo
from impon_hpo.sampling.methods.prioritized import Prioritized
from impon_hpo.sampling.methods.proxy_filter import ProxyFilter
from impon_hpo.sampling.methods.rho_loss import RhoLoss
from impon_hpo.sampling.methods.selective_backprop import SelectiveBackprop
from impon_hpo.sampling.methods.uniform import Uniform
from impon_hpo.sampling.methods.uniform_fraction import UniformFraction
from impon_hpo.sampling.methods.upper_bound import UpperBound
from impon_hpo.sampling.rows import Rows

SAMPLERS: dict[str, type[BatchSampler]] = {
    "uniform": Uniform,
    "uniform-fraction": UniformFraction,
    "class-balanced": ClassBalanced,
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
    "impon-trusted": ImponTrusted,
}


def sampler_class(name: str) -> type[BatchSampler]:
    """Return the class for a name of the table or for "module:Class".

    Raises:
        ConfigError: The name is unknown, or the class is not a `BatchSampler`.
    """
    sampler: Any = find(SAMPLERS, name, "batch sampler")
    if not (inspect.isclass(sampler) and issubclass(sampler, BatchSampler)):
        raise ConfigError(f"'{name}' must be a subclass of BatchSampler, but is {sampler!r}.")
    return sampler


Placebo.class_of = sampler_class


def option_types(name: str) -> dict[str, Any]:
    """Return the options that a batch sampler takes besides those of all, with their types."""
    return options_of(sampler_class(name))


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise `ConfigError` if the batch sampler or one of its options is unknown."""
    check_known(name, sampler_class(name), options)


def make_sampler(
    name: str, rows: Rows, options: Mapping[str, Any] | None = None, **common: Unpack[Common]
) -> BatchSampler:
    """Make a batch sampler from its name.

    Args:
        name: A name in `SAMPLERS`, or "module:Class" for a class of your own.
        rows: The training rows.
        options: Options of that sampler, by name; default: none, so each has its default.
        common: What all samplers take: `batch_size`, `model`, and if needed `seed` and
            `total_steps`. `BatchSampler` explains each.

    Raises:
        ConfigError: The name or an option is unknown, or an option is out of its range.

    Example:
        >>> import torch
        >>> from impon_hpo import Rows, make_sampler
        >>> rows = Rows(torch.rand(100, 8), torch.arange(100) % 3, n_classes=3)
        >>> model = torch.nn.Linear(8, 3)
        >>> make_sampler("uniform", rows, batch_size=4, model=model)
        Uniform(100 rows, batch_size=4)
        >>> make_sampler("impon", rows, options={"bank_size": 50}, batch_size=4, model=model)
        Impon(100 rows, batch_size=4, bank_size=50)
    """
    options = options or {}
    check_options(name, options)
    constructor: Callable[..., BatchSampler] = sampler_class(name)
    return constructor(rows, **common, **options)
