"""Storages whose calls are not torn by a signal; and one that waits for its server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy.exc
import tenacity
from optuna.storages import BaseStorage

from impon_hpo.errors import StorageError
from impon_hpo.signals import HeldSignals

PATIENCE_SECONDS = 600.0
LONGEST_PAUSE = 10.0


def _forwarded(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(BaseStorage, name), updated=())
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._call(getattr(self._storage, name), *arguments, **named)

    return method


_METHODS = [
    name for name, member in vars(BaseStorage).items() if callable(member) and name[:2] != "__"
]

# Every method of Optuna's storages alike, those of later versions too.
_Forwarding = type("_Forwarding", (BaseStorage,), {name: _forwarded(name) for name in _METHODS})


class WholeStorage(_Forwarding):  # type: ignore[misc, valid-type]
    """Optuna's storage, each of whose calls comes to its end before Ctrl-C or SIGTERM is heeded.

    Raised in the middle of a transaction, a stop leaves a lock behind, which the next call of the
    same process waits for.

    Args:
        storage: The storage.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with HeldSignals() as held:
            try:
                return method(*arguments, **named)
            finally:
                held.let_through()  # also where the call failed


class PatientStorage(WholeStorage):
    """Optuna's storage, asked again while the server behind it cannot be reached.

    What was half done when the connection broke is done again: a trial that was made twice is one
    without a worker, which is found and continued like any other; the end of a trial counts once.

    Args:
        storage: The storage.
        shown: Its address, for the messages, without a password.
        patience: Seconds after which it gives up.
    """

    def __init__(
        self, storage: BaseStorage, shown: str, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        super().__init__(storage)
        self._shown = shown
        self._patience = patience

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_away),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            stop=tenacity.stop_after_delay(self._patience),
            reraise=True,
        )
        again = False
        try:
            for attempt in retrying:
                with attempt:
                    again = attempt.retry_state.attempt_number > 1
                    return super()._call(method, *arguments, **named)
        except optuna.exceptions.UpdateFinishedTrialError:
            if again and method.__name__ == "set_trial_state_values":
                return True  # the first attempt came through, and only its answer was lost
            raise
        except Exception as error:
            if not is_away(error):
                raise
            waited, self._patience = self._patience, 0.0  # what is left to do does not wait again
            raise StorageError(
                f"Storage '{self._shown}' could not be reached for {waited:.0f} seconds: "
                f"{_said(error)} When it is back, run the same command again."
            ) from None


def is_away(error: BaseException) -> bool:
    """Return whether an error of a storage says that its server cannot be reached for now."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return bool(error.connection_invalidated)
    code = getattr(error, "code", None)  # of a grpc.RpcError, without importing grpc
    return callable(code) and getattr(code(), "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def _said(error: BaseException) -> str:
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    # SQLAlchemy's own text holds the statement with its parameters.
    error = getattr(error, "orig", None) or error
    details = getattr(error, "details", None)
    text = details() if callable(details) else str(error)
    line = (str(text).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else f"{line}."
