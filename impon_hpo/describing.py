"""The rule for what only describes a result: where it fails, that is said, and the result stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from impon_hpo.errors import ImponHpoError

log = logging.getLogger("impon_hpo")


@contextmanager
def describing(what: str, stands: str = "The trial's value stands.") -> Iterator[None]:
    """Log an error of a block that only describes a result, such as a picture of it, and go on.

    What decides the result stands outside of such a block. Ctrl-C and SIGTERM pass through it. Each
    file has a block of its own, so that one that fails does not cost the next.

    Args:
        what: What an error means, such as "picture.png of trial 3 could not be drawn".
        stands: A sentence on what is there all the same, or what to do.

    Example:
        >>> from impon_hpo.describing import describing
        >>> with describing("picture.png of trial 3 could not be drawn"):
        ...     _ = 1 / 0
        >>> "goes on"
        'goes on'
    """
    try:
        yield
    except Exception as error:  # pictures, disks and buckets fail in many ways
        kind = "" if isinstance(error, ImponHpoError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        log.warning("%s: %s. %s", what, reason.rstrip(".: "), stands)
