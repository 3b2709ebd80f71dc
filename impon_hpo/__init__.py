"""Importance-sampled training inside Optuna studies, compared honestly with uniform sampling.

Each public name is imported when it is first used, so that `import impon_hpo` and
`impon-hpo --help` do not wait for torch. `__init__.pyi` lists them.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import lazy_loader

_import, _, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Old name: new name. The old ones go in version 1.0.
_RENAMED = {"ImponBatchSampler": "LoaderBatchSampler", "WithRows": "IndexedDataset"}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("impon-hpo")
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"impon_hpo.{name} is now impon_hpo.{new}. Use the new name: the old one goes in "
            "version 1.0.",
            DeprecationWarning,
            stacklevel=2,
        )
        return _import(new)
    if name not in __all__:
        raise AttributeError(
            f"module 'impon_hpo' has no attribute '{name}'", name=name, obj=sys.modules[__name__]
        )
    return _import(name)
