"""Importance-sampled training inside Optuna studies, compared honestly with uniform sampling."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impon_hpo.errors import ImponHpoError
    from impon_hpo.sampling.base import BatchSampler, Draw
    from impon_hpo.sampling.loader import IndexedDataset, LoaderBatchSampler
    from impon_hpo.sampling.methods.impon import Impon, ImponLow
    from impon_hpo.sampling.methods.impon_memory import ImponMemory
    from impon_hpo.sampling.methods.impon_paced import ImponPaced
    from impon_hpo.sampling.methods.uniform import Uniform
    from impon_hpo.sampling.reference import Reference
    from impon_hpo.sampling.rows import Rows
    from impon_hpo.sampling.table import SAMPLERS, make_sampler
    from impon_hpo.training.checkpoint import Checkpoint
    from impon_hpo.training.config import TrainingConfig
    from impon_hpo.training.data import ImageData
    from impon_hpo.training.epoch_result import EpochResult
    from impon_hpo.training.epochs import train_epochs
    from impon_hpo.training.splits import Splits, load_splits
    from impon_hpo.tuning.objective import Objective

# Imported when first asked for, so that `impon-hpo --help` does not wait for torch.
_HOMES = {
    "SAMPLERS": "sampling.table",
    "BatchSampler": "sampling.base",
    "Checkpoint": "training.checkpoint",
    "Draw": "sampling.base",
    "EpochResult": "training.epoch_result",
    "ImageData": "training.data",
    "Impon": "sampling.methods.impon",
    "ImponHpoError": "errors",
    "ImponLow": "sampling.methods.impon",
    "ImponMemory": "sampling.methods.impon_memory",
    "ImponPaced": "sampling.methods.impon_paced",
    "IndexedDataset": "sampling.loader",
    "LoaderBatchSampler": "sampling.loader",
    "Objective": "tuning.objective",
    "Reference": "sampling.reference",
    "Rows": "sampling.rows",
    "Splits": "training.splits",
    "TrainingConfig": "training.config",
    "Uniform": "sampling.methods.uniform",
    "load_splits": "training.splits",
    "make_sampler": "sampling.table",
    "train_epochs": "training.epochs",
}

__all__ = [
    "SAMPLERS",
    "BatchSampler",
    "Checkpoint",
    "Draw",
    "EpochResult",
    "ImageData",
    "Impon",
    "ImponHpoError",
    "ImponLow",
    "ImponMemory",
    "ImponPaced",
    "IndexedDataset",
    "LoaderBatchSampler",
    "Objective",
    "Reference",
    "Rows",
    "Splits",
    "TrainingConfig",
    "Uniform",
    "load_splits",
    "make_sampler",
    "train_epochs",
]


# Old names, to be removed in 1.0.
_RENAMED = {"ImponBatchSampler": "LoaderBatchSampler", "WithRows": "IndexedDataset"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"impon_hpo.{name} is now impon_hpo.{_RENAMED[name]}. Use the new name: the old one "
            "goes in version 1.0.",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'impon_hpo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"impon_hpo.{_HOMES[name]}"), name)
