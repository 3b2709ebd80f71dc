"""A trained model as one file that runs where torch is, without impon-hpo and without its code."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impon_hpo.console import finite
from impon_hpo.environment import versions
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.files import replacing
from impon_hpo.training.trained_model import TrainedModel

FACTS = "impon_hpo.json"
"""Name of the JSON text in the file, which `torch.export.load(…, extra_files=…)` gives."""

LETTERS = 300
"""Letters that a reason of torch's may have."""


def export_model(model: TrainedModel, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `model` with `torch.export` to one file, for any number of images at a time.

    `torch.export.load(path).module()` takes images (N, C, H, W) uint8 from 0 to 255 and returns
    logits (N, number of classes) float32; it needs neither impon-hpo nor the code of the model. The
    file also has `impon_hpo.json`: classes, settings, input, output, versions, and the `facts`.

    It is loaded and run again before it takes the place of a former one.

    Args:
        model: The model, on the CPU.
        path: The file; one that is there is replaced, whole or not at all.
        facts: What else the file is to say of itself, as plain JSON values.

    Returns:
        What `impon_hpo.json` has.

    Raises:
        ConfigError: torch cannot export the model, or what it exports computes something else.
        StorageError: The file cannot be written.
    """
    told = dict(facts) | facts_of(model)
    try:
        with replacing(path) as file:  # at first, so that it is known that it can be written
            file.write(_exported(model, told))
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error
    return told


def _exported(model: TrainedModel, told: dict[str, Any]) -> bytes:
    examples = _examples(model, 2), _examples(model, 3)
    written = io.BytesIO()
    text = json.dumps(finite(told), ensure_ascii=False, allow_nan=False)
    with _torch_quiet():
        try:
            program = torch.export.export(
                model, (examples[0],), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
            )
            torch.export.save(program, written, extra_files={FACTS: text})
            written.seek(0)
            again: Any = torch.export.load(written).module()
            with torch.no_grad():
                same = all(_alike(again(images), model(images)) for images in examples)
        except Exception as error:  # torch and the user's model raise almost anything
            raise ConfigError(
                f"torch.export cannot take model '{model.config.model}': {_reason(error)} "
                "impon_hpo.load_model gives the model as it is, in Python."
            ) from error
    if not same:
        raise ConfigError(
            f"Model '{model.config.model}' computes something else once it is exported: what it "
            "does must depend on the images alone. impon_hpo.load_model gives it as it is, in "
            "Python."
        )
    return written.getvalue()


def n_bytes(model: TrainedModel) -> int:
    """Return about how many bytes the file of a model has: those of its tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def facts_of(model: TrainedModel) -> dict[str, Any]:
    """Return what an exported file says of a model, as plain JSON values."""
    channels, height, width = model.image_shape
    return {
        "classes": list(model.classes),
        "input": {
            "shape": ["N", channels, height, width],
            "dtype": "uint8",
            "range": [0, 255],
            "normalised": False,
        },
        "output": {"shape": ["N", len(model.classes)], "dtype": "float32", "is": "logits"},
        "epoch": model.epoch,
        "metric": model.config.metric,
        "value": model.value,
        "settings": model.config.as_json(),
        "versions": versions(),
    }


def _examples(model: TrainedModel, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    shape = n, *model.image_shape
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _alike(logits: Tensor, others: Tensor) -> bool:
    return torch.allclose(logits, others, rtol=1e-3, atol=1e-4, equal_nan=True)


def _reason(error: Exception) -> str:
    """Return on one line why torch says that it cannot."""
    text = re.sub(r"For more information,[^\n]*", "", str(error) or type(error).__name__)
    line = " ".join(text.partition("\n\n")[0].split())
    return line if len(line) <= LETTERS else f"{line[:LETTERS]} …"


@contextmanager
def _torch_quiet() -> Iterator[None]:
    """Silence what torch logs, prints and warns of, such as the graph of a model that it cannot
    export, and in torch 2.9 a buffer of its own that cannot be written."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
