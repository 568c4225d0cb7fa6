"""Linearizable reads of the state machine: who waits, and who runs the reader's function.

A read takes a number at the reactor's desk, waits until that number is confirmed, waits until the slots that it
must see are applied here, and then runs its function while nothing is applied. A blocking reader does all of it
on its own thread. Readers of an event loop have no thread to wait with: one more thread of the node, started by
the first of them, waits for all of them, in the order in which they came.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from paxos._core.failpoint import reach
from paxos.applying import Applier
from paxos.errors import Busy, Closed, ConfigError, ReadTimeout

SLICE_S = 0.05
"""A waiting reader looks at the state of the node this often."""


READER_ENDS_S = 5.0
"""close() waits so long for a reader's function: the state machine is the application's again behind it."""


class Desk(Protocol):
    """Where numbers come from: ``_core.read_desk.ReadDesk``."""

    @property
    def is_closed(self) -> bool: ...

    def ask(self) -> int: ...

    def wait(self, number: int, timeout_s: float | None = None) -> int | None: ...


class Caller(Protocol):
    """Who gets the result of a read that somebody else runs."""

    def resolve(self, outcome: Any) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Reads:
    """The reads of one node.

    Args:
        desk: of the reactor.
        applier: applies, and lets readers in between.
        why: says in words what the node lacks, for the message of a read that is not confirmed in time.
        check_open: raises unless reads are taken.
        check_fault: notices that the reactor has stopped by itself.
        name: of the thread for readers without one.
        callers_max: reads that may wait for that thread.
    """

    def __init__(
        self,
        desk: Desk,
        applier: Applier,
        *,
        why: Callable[[], str],
        check_open: Callable[[], None],
        check_fault: Callable[[], None],
        name: str,
        callers_max: int,
    ) -> None:
        self._desk = desk
        self._applier = applier
        self._why = why
        self._check_open = check_open
        self._check_fault = check_fault
        self._name = name
        self._callers_max = callers_max
        self._queue: deque[tuple[int, Callable[[Any], Any] | None, Caller]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._refused = False

    def read(self, function: Callable[[Any], Any] | None, timeout_s: float | None) -> Any:
        """Wait until a read that arrives now is confirmed and applied here; return what ``function`` returns."""
        self._check_may_read()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        mark = self._wait_confirmed(self._desk.ask(), deadline)
        if mark is not None and self._wait_applied(mark, deadline):
            reach("read.served")
            done, result = self._applier.run_between(function, _left(deadline))
            if done:
                return result
        raise self.not_in_time(timeout_s, mark)

    def enqueue(self, function: Callable[[Any], Any] | None, caller: Caller) -> None:
        """Have a read that arrives now served by the node's own thread."""
        self._check_may_read()
        with self._changed:
            if self._ended:
                raise self._closed()
            if len(self._queue) >= self._callers_max:
                raise Busy(f"{len(self._queue)} reads wait already; see Config.pending_bytes_max")
            self._queue.append((self._desk.ask(), function, caller))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def not_in_time(self, timeout_s: float | None, mark: int | None = None) -> ReadTimeout:
        """Return the exception for a read whose time is over."""
        within = "in time" if timeout_s is None else f"within {timeout_s:g} s"
        if mark is None:
            return ReadTimeout(f"no quorum confirmed the read {within} ({self._why()}); nothing was read")
        return ReadTimeout(
            f"the read was confirmed, but slot {mark} was not applied here {within} (slot "
            f"{self._applier.applied_slot} is); nothing was read"
        )

    def refuse(self) -> None:
        """Say that nobody confirms reads of this node any more: it is in quarantine, and whoever waits is told."""
        self._refused = True

    def end(self) -> None:
        """Serve nothing more; call when the reactor has stopped and nothing will be applied any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=READER_ENDS_S)
        self._applier.wait_readers(READER_ENDS_S)

    # -- waiting -------------------------------------------------------------------------------------------

    def _check_may_read(self) -> None:
        self._check_open()
        if self._applier.is_applying_here:
            raise ConfigError(
                "read() inside apply(), inside another reader's function or inside a callback of a future would "
                "wait for itself for ever"
            )

    def _wait_confirmed(self, number: int, deadline: float | None) -> int | None:
        while True:
            mark = self._desk.wait(number, min(SLICE_S, _left(deadline)))
            if mark is not None:
                return mark
            self._raise_if_over()
            if _left(deadline) <= 0:
                return None

    def _wait_applied(self, slot: int, deadline: float | None) -> bool:
        while not self._applier.wait_slot(slot, min(SLICE_S, _left(deadline))):
            if self._applier.ended:
                raise self._closed()
            if _left(deadline) <= 0:
                return False
        return True

    def _raise_if_over(self) -> None:
        self._check_fault()
        if self._ended or self._refused or self._desk.is_closed:
            self._check_open()  # it says why
            raise self._closed()

    def _closed(self) -> Closed:
        return Closed("the replica was closed, or has stopped, before the read was served; nothing was read")

    # -- the thread for readers without one ----------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._queue or self._ended)
                    if not self._queue:
                        return
                number, function, caller = self._queue[0]
                self._serve_one(number, function, caller)
                self._queue.popleft()
        except BaseException as error:
            for _number, _function, caller in self._drop_all():
                caller.fail(error)

    def _serve_one(self, number: int, function: Callable[[Any], Any] | None, caller: Caller) -> None:
        mark = self._wait_confirmed(number, None)
        assert mark is not None  # without a deadline it is confirmed, or _raise_if_over has raised
        self._wait_applied(mark, None)
        try:
            _done, result = self._applier.run_between(function, float("inf"))
        except BaseException as error:  # the reader's own, whatever it is: others wait behind it
            caller.fail(error)
        else:
            caller.resolve(result)

    def _drop_all(self) -> list[tuple[int, Callable[[Any], Any] | None, Caller]]:
        with self._changed:
            self._ended = True
            dropped = list(self._queue)
            self._queue.clear()
        return dropped


def _left(deadline: float | None) -> float:
    """Return the seconds until ``deadline``, at least 0; infinity without one."""
    return float("inf") if deadline is None else max(deadline - time.monotonic(), 0.0)
