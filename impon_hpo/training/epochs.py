"""The epochs of a training run, one after the other, each saved before it is handed out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.compiling import Ahead
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits


def train_epochs(
    config: TrainingConfig,
    splits: Splits,
    checkpoint: Checkpoint | None = None,
    memory: RowMemory | None = None,
    ahead: Ahead | None = None,
) -> Iterator[EpochResult]:
    """Train as `config` says and yield the result of each epoch as it ends.

    Args:
        config: The settings.
        splits: The data, from `load_splits(config, device)`; training runs on their device.
        checkpoint: Where to continue from, if something is there, and to save after each epoch
            and when Ctrl-C or SIGTERM ends the run in the middle of one.
        memory: Takes in what the run observes of each row; kept in the checkpoint, too.
        ahead: What comes after this run, and who is told how it is compiled.

    Raises:
        ConfigError: Model or batch sampler do not fit the data.
        CheckpointError: The checkpoint is broken or of another run.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    run = TrainingRun(config, splits, memory, ahead)
    if checkpoint is not None:
        run.continue_from(checkpoint)
    yield from epochs_left(run, checkpoint)


def epochs_left(
    run: TrainingRun, checkpoint: Checkpoint | None, *, save_seconds: float = 0.0
) -> Iterator[EpochResult]:
    """Train a run from where it is to its end and yield the result of each epoch.

    Ctrl-C and SIGTERM let the step under way finish, and what is done of the epoch is saved.

    Args:
        run: The run.
        checkpoint: Where to save it after each epoch, if anywhere.
        save_seconds: At least so many seconds lie between two of these.

    Raises:
        CheckpointError: The checkpoint cannot be written; the former one is still whole.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    saved_at = time.monotonic()
    while run.epoch < run.config.epochs:
        with HeldSignals() as held:
            try:
                result = run.train_epoch(held.let_through)
            except KeyboardInterrupt:
                if checkpoint is not None:
                    checkpoint.save(run.state_dict())
                raise
            if checkpoint is not None and time.monotonic() - saved_at >= save_seconds:
                checkpoint.save(run.state_dict())
                saved_at = time.monotonic()
        yield result


HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """A context in which the first Ctrl-C or SIGTERM waits until `let_through` is called or the
    context is left; a second one comes through at once.

    Only what a Python function handles is held, and in the main thread only, where signals arrive:
    elsewhere, and where SIGTERM just ends the process, nothing changes.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in HELD:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        if kind is None:
            self.let_through()

    def let_through(self) -> None:
        """Let what came meet the handler that it was meant for; nothing came: do nothing."""
        if self._came is not None:
            number, self._came = self._came, None
            self._restore()
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._came is not None:
            self.let_through()
        self._came = number

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
