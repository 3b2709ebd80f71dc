"""A trained model in programs of people's own: images go in as they come, logits come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.training.answers import read_answer
from impon_hpo.training.checkpoint import FORMAT, read_state
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.models import build_without_weights

USE = "use"
"""Key of a checkpoint under which it has what a program needs beside the weights."""


class TrainedModel(nn.Module):
    """A model with the weights that a run was judged by, which normalises images itself.

    It takes images (N, C, H, W), uint8 from 0 to 255 as `torchvision.io.decode_image` gives them,
    or floating point from 0 to 1, and returns logits (N, number of classes) float32. It computes
    in float32; for less, use `torch.autocast`. Make one with `load_model`.

    Args:
        network: Turns normalised images (N, C, H, W) float32 into logits.
        mean: (C,) what is subtracted from pixels, in units of 0 … 255.
        std: (C,) what they are divided by then.
        classes: Names of the classes, in the order of the logits.
        image_shape: (C, H, W) of the images that it was trained on, and takes.
        config: The settings of the run.
        epoch: Epochs that it was trained for.
        value: What the run reported after the last of them, higher is better; NaN before the first.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Tensor,
        std: Tensor,
        *,
        classes: tuple[str, ...],
        image_shape: tuple[int, int, int],
        config: TrainingConfig,
        epoch: int,
        value: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("std", std.reshape(-1, 1, 1))
        self.classes, self.image_shape, self.config = classes, image_shape, config
        self.epoch, self.value = epoch, value

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, number of classes) of images (N, C, H, W).

        Raises:
            ConfigError: Their shape or dtype is not as said above.
        """
        self._check(images)
        pixels = images.to(torch.float32)
        if images.is_floating_point():
            pixels = pixels * 255
        normalised = (pixels - self.mean) / self.std
        logits, _ = read_answer(self.network(normalised.to(self.mean.dtype)))  # after `.half()`
        assert logits is not None
        return logits.float()

    def _check(self, images: Tensor) -> None:
        channels, height, width = self.image_shape
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1:] != self.image_shape:
            hint = ""
            if len(shape) == 3:
                hint = " For one image, give image[None]."
            elif shape[-1] == channels != shape[1]:
                hint = " Channels come first: give images.permute(0, 3, 1, 2)."
            elif shape[1] == channels:
                hint = f" Resize them to {height} × {width}, as those were that it was trained on."
            raise ConfigError(
                f"Images must have the shape (N, {channels}, {height}, {width}), but have "
                f"{shape}.{hint}"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ConfigError(
                f"Images must be uint8 from 0 to 255 or floating point from 0 to 1, but are "
                f"{images.dtype}."
            )


def load_model(checkpoint: str | Path) -> TrainedModel:
    """Return the model in a checkpoint, ready to use: on the CPU, in evaluation mode.

    It has the weights that the run was judged by, averaged ones where `eval_weights` asks for them.
    Neither data nor pretrained weights are loaded, and no GPU is needed. A model of one's own,
    "module:function", is imported and built again. Reading a checkpoint runs no code from it.

    The model takes images (N, C, H, W), uint8 from 0 to 255 or floating point from 0 to 1, of the
    size `model.image_shape`, and returns logits (N, number of classes) float32. `model.classes` are
    the names of the classes, `model.config` the settings of the run.

    Args:
        checkpoint: The file, as `impon-hpo train` names it, or as `tune` keeps it of the best trial
            in runs/<study>/best.

    Raises:
        CheckpointError: It is missing or broken, lacks what is needed, or does not fit the model.
        ConfigError: The model's module cannot be imported.
        DataError: The model's function fetches something, which fails.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from impon_hpo import Checkpoint, TrainingConfig, load_model, load_splits, train_epochs
        >>> config = TrainingConfig(dataset="digits", subset=64, width=4, epochs=1, batch_size=32)
        >>> splits = load_splits(config, torch.device("cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.pt"
        ...     results = list(train_epochs(config, splits, Checkpoint(path)))
        ...     model = load_model(path)
        >>> images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
        >>> with torch.inference_mode():
        ...     logits = model(images)
        >>> logits.shape, model.classes[3]
        (torch.Size([5, 10]), '3')
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"There is no file '{path}'. Give the path of a checkpoint.")
    advice = "Give a checkpoint that is whole, as `impon-hpo train` names one."
    state = read_state(path, torch.device("cpu"), "Checkpoint", advice)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' is not a checkpoint of format {FORMAT} of impon-hpo. Give the path of one."
        )
    if USE not in state:
        raise CheckpointError(
            f"Checkpoint '{path}' lacks the names of the classes, the shape of the images and "
            "their normalisation, which earlier versions of impon-hpo did not keep. If its run is "
            "not finished, continue it; else delete the file and train it again."
        )
    use = state[USE]
    config = TrainingConfig.model_construct(**use["settings"])  # its files may not be here
    network = build_without_weights(config, len(use["classes"]), use["image_shape"][0])
    averaged = state["averaged"]
    try:
        network.load_state_dict(state["model"] if averaged is None else averaged["module"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"The weights in checkpoint '{path}' do not fit model '{config.model}' as it is built "
            f"now: {reason} Give the checkpoint with the code that it was trained with."
        ) from error
    channels, height, width = use["image_shape"]
    results = state["results"]
    model = TrainedModel(
        network,
        use["mean"],
        use["std"],
        classes=tuple(use["classes"]),
        image_shape=(channels, height, width),
        config=config,
        epoch=len(results),
        value=results[-1]["val_accuracy"] if results else float("nan"),
    )
    return model.eval()


def for_use(
    config: TrainingConfig,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    moments: tuple[Tensor, Tensor],
) -> dict[str, Any]:
    """Return what a checkpoint keeps for `load_model`.

    Args:
        config: The settings.
        classes: Names of the classes.
        image_shape: (C, H, W).
        moments: Mean and standard deviation (C,) by which images are normalised.
    """
    mean, std = moments
    return {
        "settings": config.as_json(),
        "classes": list(classes),
        "image_shape": list(image_shape),
        "mean": mean,
        "std": std,
    }
