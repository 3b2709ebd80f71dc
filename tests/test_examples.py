"""The examples in the docstrings of the public names run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
from typing import Any

import pytest

import impon_hpo

WITH_EXAMPLE = (
    "SAMPLERS",
    "BatchSampler",
    "Checkpoint",
    "ClassBalanced",
    "Conditional",
    "Draw",
    "EpochResult",
    "ImageData",
    "Impon",
    "ImponLow",
    "ImponMemory",
    "ImponPaced",
    "ImponTrusted",
    "IndexedDataset",
    "LoaderBatchSampler",
    "Reference",
    "Rows",
    "Splits",
    "TrainingConfig",
    "Uniform",
    "enqueue_best",
    "load_model",
    "load_splits",
    "make_sampler",
    "train_epochs",
)
"""The public names that have an example; add yours here once it has one."""

DATA = {"SAMPLERS": "impon_hpo.sampling.table"}
"""Public names that are neither class nor function, and the module whose docstring is theirs."""


def docstring_of(name: str) -> str:
    thing: Any = getattr(impon_hpo, name)
    if name in DATA:
        thing = importlib.import_module(DATA[name])
    return inspect.getdoc(thing) or ""


@pytest.mark.parametrize("name", [name for name in impon_hpo.__all__ if name in WITH_EXAMPLE])
def test_example_in_the_docstring_runs(name: str) -> None:
    example = doctest.DocTestParser().get_doctest(docstring_of(name), {}, name, None, None)
    assert example.examples, f"the docstring of {name} has no example"
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append, clear_globs=False)
    assert result.failed == 0, "".join(report)
    assert any(name in one.source + one.want for one in example.examples)


def test_every_name_with_an_example_is_public() -> None:
    assert set(WITH_EXAMPLE) <= set(impon_hpo.__all__)
    assert set(DATA) <= set(WITH_EXAMPLE)
