"""Futures of commands: the interface of :mod:`concurrent.futures`, without its cost per command.

A plain ``concurrent.futures.Future`` builds a lock and a condition for every command, which at small commands
is most of the work. Here both are built only when somebody really waits: until then a future is one object
without attributes of its own, and resolving it is two attribute writes.

Why no lock is needed before there is a waiter: the resolver says ``_decided`` first and looks for a condition
second; a waiter puts its condition there first and looks at ``_decided`` second. So either the resolver sees the
condition and does the rest under it, like the standard library, or the waiter sees that all is decided and only
has to let the resolver finish its next statement.

Attributes are only read and written, one at a time; ``__dict__`` is left alone. An earlier version decided with
``__dict__.setdefault``, and CPython 3.11 crashed under load in the memory of instances.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from paxos.types import Outcome

ResultT = TypeVar("ResultT")

_RUNNING = "RUNNING"
_FINISHED = "FINISHED"
_creation = threading.Lock()
logger = logging.getLogger("paxos")


class Future(concurrent.futures.Future[ResultT], Generic[ResultT]):
    """The outcome of a command that was handed over; resolved by the replica, never by you.

    It is a ``concurrent.futures.Future``: ``wait``, ``as_completed`` and ``asyncio.wrap_future`` take it.
    It is
    *running* from the start, so :meth:`cancel` returns ``False``: a command that was handed over cannot be
    taken back.

    Example:
        >>> future = Future()
        >>> future.done(), future.cancel()
        (False, False)
        >>> future.resolve(7)
        >>> future.result(timeout=0)
        7
    """

    # Class attributes instead of per-instance ones: creating a future writes nothing.
    _state: str = _RUNNING
    _decided: bool = False
    _lazy: threading.Condition | None = None  # what the resolver looks for
    _shared: threading.Condition | None = None  # what waiters use, once it is clear who came first
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: list[Any]
    _done_callbacks: list[Callable[[Any], object]]

    def __init__(self) -> None:  # does not call the base on purpose: no lock, no condition
        pass

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._shared
        if condition is None:
            with _creation:
                condition = self._shared
                if condition is None:
                    self._waiters = []
                    self._done_callbacks = []
                    condition = self._lazy = threading.Condition()
                    while self._decided and self._state is not _FINISHED:
                        time.sleep(0)  # the resolver is about to see the condition, or to finish without it
                    self._shared = condition
        return condition

    def done(self) -> bool:
        """Return True if the outcome is known (or known to stay unknown)."""
        return self._state is _FINISHED

    def result(self, timeout: float | None = None) -> ResultT:
        """Return the outcome, waiting for at most ``timeout`` seconds.

        Raises:
            TimeoutError: nothing is known yet. **The outcome is then unknown**: it may be applied later.
            OutcomeUnknown: nothing will be known here any more; the cause is attached.
        """
        if self._state is not _FINISHED:
            return super().result(timeout)
        if self._exception is not None:
            raise self._exception
        return self._result  # type: ignore[no-any-return]

    def resolve(self, result: ResultT) -> None:
        """Set the result; a second outcome is ignored. For the replica, one thread at a time."""
        if self._decided:
            return
        self._result = result
        self._decided = True
        if self._lazy is None:
            self._state = _FINISHED
        else:
            self._announce(self._lazy)

    def fail(self, error: BaseException) -> None:
        """Set the exception; a second outcome is ignored. For the replica, one thread at a time."""
        if self._decided:
            return
        self._exception = error
        self._decided = True
        if self._lazy is None:
            self._state = _FINISHED
        else:
            self._announce(self._lazy)

    def _announce(self, condition: threading.Condition) -> None:
        with condition:
            self._state = _FINISHED
            for waiter in self._waiters:
                if self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            condition.notify_all()
            callbacks = self._done_callbacks
            self._done_callbacks = []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except Exception:
            logger.exception("exception in a callback of %r", self)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[ResultT]], object]) -> None:
        """Call ``fn(future)`` once the outcome is there, on the apply thread; at once if it is there."""
        if self._state is not _FINISHED:
            with self._condition:
                if self._state is not _FINISHED:
                    self._done_callbacks.append(fn)
                    return
        self._call(fn)

    def set_result(self, result: ResultT) -> None:
        """Refuse: only the replica knows the outcome."""
        raise concurrent.futures.InvalidStateError("the outcome of a command is set by its replica only")

    def set_exception(self, exception: BaseException | None) -> None:
        """Refuse: only the replica knows the outcome."""
        raise concurrent.futures.InvalidStateError("the outcome of a command is set by its replica only")

    def set_running_or_notify_cancel(self) -> bool:
        """Return True: the command has been handed over."""
        return True

    def __repr__(self) -> str:
        if self._state is not _FINISHED:
            return f"<paxos Future at {id(self):#x} pending>"
        what = self._result if self._exception is None else self._exception
        return f"<paxos Future at {id(self):#x} done: {what!r}>"


class RunOutcome:
    """What became of a run of commands (``submit_many``), like a list of :class:`Outcome` in the order given.

    The commands of a run keep their order. A long run travels in several batches, and commands of other nodes
    may come between these: then the indices of the run are several ranges, see :attr:`indices`.

    Example:
        >>> run = RunOutcome([(5, 2, 9, ["a", "b"]), (8, 1, 11, ["c"])])
        >>> run.first_index, run.count, list(run.results)
        (5, 3, ['a', 'b', 'c'])
        >>> run.indices
        (range(5, 7), range(8, 9))
        >>> run[2]
        Outcome(index=8, slot=11, result='c')
    """

    __slots__ = ("_ends", "_parts", "count")

    def __init__(self, parts: Sequence[tuple[int, int, int, Sequence[Any] | None]]) -> None:
        """Take ``(first index, count, slot, results)`` of each batch, in order; results None: all None."""
        self._parts = tuple(parts)
        ends = []
        count = 0
        for part in self._parts:
            count += part[1]
            ends.append(count)
        self._ends = tuple(ends)
        self.count = count

    @property
    def first_index(self) -> int:
        """Index of the first command of the run; 0 for an empty run."""
        return self._parts[0][0] if self._parts else 0

    @property
    def last_index(self) -> int:
        """Index of the last command of the run; 0 for an empty run."""
        return self._parts[-1][0] + self._parts[-1][1] - 1 if self._parts else 0

    @property
    def indices(self) -> tuple[range, ...]:
        """The indices of the run, in order; neighbouring ranges are joined."""
        joined: list[range] = []
        for index, count, _slot, _results in self._parts:
            if joined and joined[-1].stop == index:
                joined[-1] = range(joined[-1].start, index + count)
            else:
                joined.append(range(index, index + count))
        return tuple(joined)

    @property
    def results(self) -> Sequence[Any]:
        """What ``apply`` returned for each command of the run."""
        collected: list[Any] = []
        for _index, count, _slot, results in self._parts:
            collected.extend([None] * count if results is None else results)
        return collected

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, position: int) -> Outcome: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, position: int | slice) -> Outcome | Sequence[Outcome]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(self.count))]
        if position < 0:
            position += self.count
        if not 0 <= position < self.count:
            raise IndexError(f"command {position} of a run of {self.count}")
        begin = 0
        for (index, _count, slot, results), end in zip(self._parts, self._ends, strict=True):
            if position < end:
                offset = position - begin
                return Outcome(index + offset, slot, None if results is None else results[offset])
            begin = end
        raise AssertionError("unreachable: the last end is the count")

    def __iter__(self) -> Iterator[Outcome]:
        for index, count, slot, results in self._parts:
            for offset in range(count):
                yield Outcome(index + offset, slot, None if results is None else results[offset])

    def __repr__(self) -> str:
        return f"RunOutcome(count={self.count}, indices={self.indices!r})"
