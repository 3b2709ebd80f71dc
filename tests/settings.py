"""Training configurations from settings whose types are not known before they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from impon_hpo.training.config import TrainingConfig


def training_config(settings: Mapping[str, Any]) -> TrainingConfig:
    return TrainingConfig(**settings)
