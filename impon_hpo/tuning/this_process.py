"""What an objective has in one process, and leaves there when it goes to another one."""

from __future__ import annotations

import logging
import threading
from collections import Counter

import torch

from impon_hpo.training.splits import by_size, load_splits

log = logging.getLogger("impon_hpo")


class ThisProcess:
    """What an objective has in one process, for all its threads.

    Args:
        device: Where data are loaded to.
    """

    def __init__(self, device: torch.device) -> None:
        self.splits_of = by_size(lambda config: load_splits(config, device))
        self.epochs = Counter[tuple[object, ...]]()
        self.taught = False
        self._said = set[str]()
        self._lock = threading.Lock()

    def count(self, shape: tuple[object, ...]) -> None:
        """Count an epoch of this shape."""
        with self._lock:
            self.epochs[shape] += 1

    def say_once(self, sentence: str) -> None:
        """Log a sentence, unless it is empty or has been said."""
        with self._lock:
            if sentence and sentence not in self._said:
                log.warning(sentence)
                self._said.add(sentence)
