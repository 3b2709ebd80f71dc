"""The storage that everything here goes through: whole calls, waited for, with errors that say
what to do."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import tenacity
from optuna.storages import BaseStorage

from impon_hpo.errors import DeletedError, StorageError
from impon_hpo.signals import HeldSignals
from impon_hpo.storage.faults import Fault, fault_of, told

log = logging.getLogger("impon_hpo")

PATIENCE_SECONDS = 600.0
LONGEST_PAUSE = 10.0

QUIET_SECONDS = 1.0
"""What passes within this time is not worth a line in the log."""


class Patience:
    """How a storage is waited for.

    Args:
        shown: Its address, for the messages, without a password.
        seconds: After which it gives up.
    """

    def __init__(self, shown: str, seconds: float) -> None:
        self._shown = shown
        self._seconds = seconds
        self._told = False
        self._over = threading.Event()  # from then on, what is left to do waits no more

    def call(
        self,
        attempt: Callable[[], Any],
        waits_for: Callable[[Fault], bool] = lambda fault: fault.passes,
    ) -> Any:
        """Call `attempt`, again and again while what is wrong with the storage may pass.

        Args:
            attempt: Asks the storage.
            waits_for: Whether a fault is waited for.

        Raises:
            StorageError: The storage has another fault, or still has it in the end.
        """

        def again(error: BaseException) -> bool:
            fault = fault_of(error)
            return fault is not None and waits_for(fault)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(again),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._seconds), tenacity.stop_when_event_set(self._over)
            ),
            sleep=tenacity.sleep_using_event(self._over),
            before_sleep=self._tell,
            reraise=True,
        )
        begun = time.monotonic()
        try:
            answer = retrying(attempt)
        except KeyboardInterrupt:
            if retrying.statistics["idle_for"] > 0:  # it came while this waited
                self._over.set()
            raise
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            text = told(self._shown, fault, error)
            if again(error):
                self._over.set()
                waited = time.monotonic() - begun
                text += f" Then run the same command again. It was waited for {waited:.0f} seconds."
            raise StorageError(text) from None
        if retrying.statistics["attempt_number"] > 1:
            self._told = False
        return answer

    def _tell(self, attempt: tenacity.RetryCallState) -> None:
        """Say once what is waited for."""
        assert attempt.outcome is not None
        error = attempt.outcome.exception()
        fault = None if error is None else fault_of(error)
        if error is None or fault is None or self._told:
            return
        if (attempt.seconds_since_start or 0.0) < min(QUIET_SECONDS, self._seconds):
            return
        self._told = True
        log.warning(
            "%s Until then, up to %.0f seconds, it is waited for, and no trial is lost.",
            told(self._shown, fault, error),
            self._seconds,
        )


def _forwarded(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(BaseStorage, name), updated=())
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._call(getattr(self._storage, name), *arguments, **named)

    return method


_METHODS = {
    name: member
    for name, member in vars(BaseStorage).items()
    if callable(member) and name[:2] != "__"
}

# Of these, a KeyError says that what has this id is deleted.
_BY_ID = {
    name
    for name, member in _METHODS.items()
    if {"study_id", "trial_id"} & {*inspect.signature(member).parameters}
}

# Every method of Optuna's storages alike, those of later versions too.
_Forwarding = type("_Forwarding", (BaseStorage,), {name: _forwarded(name) for name in _METHODS})


class PatientStorage(_Forwarding):  # type: ignore[misc, valid-type]
    """Optuna's storage, asked again while it is away, full, locked or otherwise out of use for now.

    Each call comes to its end before Ctrl-C or SIGTERM is heeded: raised in the middle of a
    transaction, a stop leaves a lock behind, which the next call of the same process waits for.

    What was half done when the storage failed is done again: a trial that was made twice is one
    without a worker, which is found and continued like any other; the end of a trial counts once.

    Args:
        storage: The storage.
        shown: Its address, for the messages, without a password.
        patience: Seconds after which it gives up.
    """

    def __init__(
        self, storage: BaseStorage, shown: str, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._storage = storage
        self._shown = shown
        self._patience = Patience(shown, patience)

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        attempts = 0

        def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            with HeldSignals() as held:
                try:
                    return method(*arguments, **named)
                finally:
                    held.let_through()  # also where the call failed

        try:
            return self._patience.call(attempt)
        except optuna.exceptions.UpdateFinishedTrialError:
            if attempts > 1 and method.__name__ == "set_trial_state_values":
                return True  # an earlier attempt came through, and only its answer was lost
            raise
        except KeyError:
            if method.__name__ not in _BY_ID:
                raise
            raise DeletedError(
                f"Storage '{self._shown}' no longer holds the study or trial that this is about: "
                "it was deleted or renamed meanwhile, perhaps in the dashboard. The same command "
                "begins the study again, under its name."
            ) from None
