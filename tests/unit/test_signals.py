"""Signals are held back, never lost, and what their handlers raise is raised outside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from paxos.signals import HeldBack, may_hold_back


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def test_ctrl_c_is_raised_after_the_work_is_done() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), HeldBack():
        signal.raise_signal(signal.SIGINT)
        steps.append("done")
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_handlers_come_back_when_the_work_fails() -> None:
    with pytest.raises(ZeroDivisionError), HeldBack():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_every_signal_is_handled_in_order() -> None:
    seen: list[int] = []
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    earlier = [signal.signal(number, lambda caught, _frame: seen.append(caught)) for number in numbers]
    try:
        with HeldBack():
            for number in (*numbers, signal.SIGUSR1):
                signal.raise_signal(number)
            assert seen == []
        assert seen == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    finally:
        for number, handler in zip(numbers, earlier, strict=True):
            signal.signal(number, handler)


def test_only_the_main_thread_may() -> None:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(may_hold_back()))
    thread.start()
    thread.join()
    assert answers == [False] and may_hold_back()
