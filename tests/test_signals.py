"""Ctrl-C and SIGTERM: they wait for the step under way, and are not lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from impon_hpo.signals import HELD, HeldSignals


class Came(Exception):
    pass


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    def handle(number: int, frame: object) -> None:
        raise Came(number)

    before = {number: signal.signal(number, handle) for number in HELD}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HELD)
def test_signal_waits_until_it_is_let_through(number: int) -> None:
    done = []
    with pytest.raises(Came, match=str(int(number))), HeldSignals() as held:
        signal.raise_signal(number)
        done.append("the step")
        held.let_through()
        done.append("the next one")
    assert done == ["the step"]


@pytest.mark.parametrize("number", HELD)
def test_signal_comes_through_when_the_context_is_left(number: int) -> None:
    done = False
    with pytest.raises(Came), HeldSignals():
        signal.raise_signal(number)
        done = True
    assert done


def test_second_signal_comes_through_at_once() -> None:
    with pytest.raises(Came), HeldSignals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step hangs, and nobody can stop it")


def test_error_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ZeroDivisionError), HeldSignals():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError


def test_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in HELD]
    with HeldSignals() as held:
        assert [signal.getsignal(number) for number in HELD] != before
        held.let_through()
    assert [signal.getsignal(number) for number in HELD] == before


def test_nothing_is_held_where_nobody_would_handle_it() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with HeldSignals():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_hold_nothing() -> None:
    before = [signal.getsignal(number) for number in HELD]
    found: list[object] = []

    def look() -> None:
        with HeldSignals():
            found.extend(signal.getsignal(number) for number in HELD)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == before


CODE = """
import signal, sys, time
from impon_hpo.signals import Terminated, heed_stops

class Closing:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))

heed_stops()
try:
    Closing()  # what is raised in a destructor is dropped
    time.sleep(60)
except KeyboardInterrupt as stop:
    sys.exit(143 if isinstance(stop, Terminated) else 130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_that_comes_while_a_destructor_runs_is_not_lost(
    number: signal.Signals, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(int(number))], capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (code, b"")


def test_what_else_a_destructor_raises_is_told_as_before() -> None:
    code = CODE.replace("signal.raise_signal(int(sys.argv[1]))", "raise OSError('no room')")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("time.sleep(60)", "pass")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert "OSError: no room" in done.stderr
