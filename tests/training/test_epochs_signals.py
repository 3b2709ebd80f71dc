"""Ctrl-C and SIGTERM wait for the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from impon_hpo.training.epochs import HELD, HeldSignals


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
