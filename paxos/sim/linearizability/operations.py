"""Events, and the operations that they make: who asked for what, when, and what came of it.

The semantics on which everything else rests (they follow Herlihy and Wing, "Linearizability", 1990, and what
Jepsen made customary):

* An operation takes effect at one moment between its invocation and its return.
* ``ok``: it happened. ``fail``: it definitely did not. ``info``, or no completion at all: nobody knows; it may
  take effect at any later moment, also long after its client gave up, or never. Such an operation is *open*.
* A process does one thing at a time. One whose operation ended as ``info`` is never heard of again: its
  operation may still be under way, so whoever goes on needs a new number.
* All times come from one clock. An operation precedes another if it returned strictly before the other was
  invoked; with equal times nobody knows, so they count as concurrent. Only the operations of one process on one
  key keep their order at equal times, too. An operation may take no time at all.
* Without times the order of the events is the order of time.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

TYPES = ("invoke", "ok", "fail", "info")


class Marker(enum.Enum):
    """What stands where there is no value, so that ``None`` stays an ordinary one."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    REFUSED = "refused"

    def __repr__(self) -> str:
        return self.value


UNKNOWN: Final = Marker.UNKNOWN
"""The result of an operation of which nobody was told."""

MISSING: Final = Marker.MISSING
"""The value of an event that carries none."""


class MalformedHistory(ValueError):
    """No history: says where, what was found and what it should be.

    Attributes:
        source: file name, or "history".
        line: line of the file, or number of the event, from 1; 0 if it is about the whole.
    """

    def __init__(self, source: str, line: int, reason: str) -> None:
        super().__init__(f"{source}:{line}: {reason}" if line else f"{source}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


class Event(NamedTuple):
    """One thing that a client saw: it asked (``invoke``), or heard what became of it.

    Attributes:
        type: ``invoke``, ``ok``, ``fail`` or ``info``.
        process: who; does one operation at a time.
        f: name of the operation, one of the model's.
        value: argument of an invocation, result of an ``ok``.
        key: which object; histories of different keys are independent.
        time: of one clock for all processes, in any unit; for all events of a history or for none.
        slot: where in the log the operation took effect, for `check_slots`.
        line: where it stands in its file.
    """

    type: str
    process: Hashable
    f: str
    value: Any = MISSING
    key: Hashable = None
    time: float | None = None
    slot: int | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation and what is known of its end.

    Attributes:
        value: the argument.
        result: what an ``ok`` said; ``UNKNOWN`` for an open operation.
        invoked, returned: times, or numbers of events; ``returned`` is ``None`` for an open operation.
        slot: where in the log it took effect, if its client was told.
        line: of the invocation; `number` counts invocations from 0, in the order of the history.
    """

    process: Hashable
    f: str
    value: Any = None
    result: Any = UNKNOWN
    key: Hashable = None
    invoked: float = 0
    returned: float | None = None
    slot: int | None = None
    line: int = 0
    number: int = 0

    @property
    def is_open(self) -> bool:
        """True if nobody knows whether and when it took effect."""
        return self.returned is None

    def __str__(self) -> str:
        text = self.f if self.value is None else f"{self.f} {show(self.value)}"
        if self.is_open:
            return f"{text} -> ?"
        if self.result is MISSING or (self.value is not None and self.result in (None, self.value)):
            return text
        return f"{text} -> {show(self.result)}"


@dataclass(frozen=True, slots=True)
class History:
    """What clients saw of some objects; it puts and numbers its operations in the order of their invocation.

    Attributes:
        operations: those that happened or may have happened.
        failed: those that definitely did not.
        source: what messages call it.
    """

    operations: tuple[Operation, ...]
    failed: tuple[Operation, ...] = ()
    source: str = "history"

    def __post_init__(self) -> None:
        in_order = sorted(self.operations, key=lambda operation: operation.invoked)
        self._demand_one_at_a_time(in_order)
        numbered = tuple(replace(operation, number=number) for number, operation in enumerate(in_order))
        object.__setattr__(self, "operations", numbered)

    def _demand_one_at_a_time(self, operations: Sequence[Operation]) -> None:
        """Raise MalformedHistory if a process does two things at once, or something that ends before it begins."""
        latest: dict[Hashable, Operation] = {}
        for operation in operations:
            before = latest.get(operation.process)
            if before is not None and (before.returned is None or before.returned > operation.invoked):
                raise MalformedHistory(
                    self.source,
                    operation.line,
                    f"process {operation.process!r} begins {operation} while {before} of line {before.line} "
                    "is under way",
                )
            if operation.returned is not None and operation.returned < operation.invoked:
                raise MalformedHistory(self.source, operation.line, f"{operation} ends before it begins")
            latest[operation.process] = operation

    def __len__(self) -> int:
        return len(self.operations)

    @classmethod
    def of(cls, events: Iterable[Event], source: str = "history") -> History:
        """Pair invocations with their completions.

        Raises:
            MalformedHistory: a process that does two things at once, completes what it never asked for,
                goes on after ``info`` or goes back in time; times for some events only.
        """
        return _Pairing(source).run(list(events))

    @classmethod
    def merged(cls, histories: Sequence[History]) -> History:
        """Return one history of several with disjoint processes and times of the same clock.

        Raises:
            MalformedHistory: two of them use the same process.
        """
        owner: dict[Hashable, str] = {}
        for number, history in enumerate(histories):
            name = f"{history.source} ({number})"
            for operation in (*history.operations, *history.failed):
                if owner.setdefault(operation.process, name) != name:
                    raise MalformedHistory(
                        history.source,
                        operation.line,
                        f"process {operation.process!r} is also in another file",
                    )
        return cls(
            tuple(operation for history in histories for operation in history.operations),
            tuple(operation for history in histories for operation in history.failed),
            " + ".join(history.source for history in histories),
        )


class _Pairing:
    """Turns events into operations."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.pending: dict[Hashable, tuple[int, Event]] = {}
        self.crashed: dict[Hashable, int] = {}
        self.returned: dict[Hashable, float] = {}
        self.operations: dict[int, Operation] = {}
        self.failed: list[Operation] = []

    def run(self, events: list[Event]) -> History:
        timed = [event.time is not None for event in events]
        if any(timed) and not all(timed):
            odd = events[timed.index(False)]
            self.refuse(odd.line or timed.index(False) + 1, "has no time, though other events have one")
        for number, event in enumerate(events):
            line = event.line or number + 1
            event = event._replace(line=line, time=number if event.time is None else event.time)
            if event.type == "invoke":
                self.invoke(number, event)
            elif event.type in TYPES:
                self.complete(event)
            else:
                self.refuse(line, f"type is {event.type!r}, expected one of {', '.join(TYPES)}")
        for number, event in self.pending.values():
            self.operations[number] = self.operation(event)
        in_order = tuple(self.operations[number] for number in sorted(self.operations))
        return History(in_order, tuple(self.failed), self.source)

    def refuse(self, line: int, reason: str) -> None:
        raise MalformedHistory(self.source, line, reason)

    def invoke(self, number: int, event: Event) -> None:
        process, line = event.process, event.line
        assert event.time is not None
        if process in self.pending:
            earlier = self.pending[process][1].line
            self.refuse(
                line, f"process {process!r} invokes while its operation of line {earlier} is under way"
            )
        if process in self.crashed:
            self.refuse(
                line,
                f"process {process!r} goes on after its operation of line {self.crashed[process]} ended as info; "
                "that may still be under way: give whoever goes on a new process number",
            )
        if event.time < self.returned.get(process, -math.inf):
            self.refuse(line, f"process {process!r} goes back in time")
        self.pending[process] = (number, event)

    def complete(self, event: Event) -> None:
        process, line = event.process, event.line
        if process not in self.pending:
            self.refuse(line, f"process {process!r} completes an operation that it did not invoke")
        number, invocation = self.pending.pop(process)
        assert event.time is not None and invocation.time is not None
        if event.f != invocation.f or event.key not in (None, invocation.key):
            self.refuse(
                line,
                f"process {process!r} completes {name_of(event)}, but invoked {name_of(invocation)} in line "
                f"{invocation.line}",
            )
        if event.time < invocation.time:
            self.refuse(line, f"process {process!r} goes back in time")
        if event.type == "info":
            self.crashed[process] = invocation.line
            self.operations[number] = self.operation(invocation)
            return
        self.returned[process] = event.time
        operation = replace(self.operation(invocation), returned=event.time)
        if event.type == "ok":
            self.operations[number] = replace(operation, result=event.value, slot=event.slot)
        else:
            self.failed.append(operation)

    def operation(self, event: Event) -> Operation:
        """Return the open operation of an invocation."""
        assert event.time is not None
        value = None if event.value is MISSING else event.value
        return Operation(event.process, event.f, value, UNKNOWN, event.key, event.time, line=event.line)


def name_of(event: Event) -> str:
    """Return the operation and key of an event, for messages."""
    return event.f if event.key is None else f"{event.f} of key {show(event.key)}"


def freeze(value: Any) -> Any:
    """Return a hashable twin of what JSON or EDN can say.

    Raises:
        ValueError: not a number (which equals nothing), or of a type that has no value to compare.
    """
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, dict):
        return frozenset((freeze(key), freeze(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(freeze(item) for item in value)
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN equals nothing, not even itself: no value for a history")
    hash(value)
    return value


def distinct(value: Any) -> Hashable:
    """Return what tells ``value`` from all others: for Python ``True``, ``1`` and ``1.0`` are the same key."""
    if isinstance(value, bool | float):
        return (type(value).__name__, value)
    if isinstance(value, tuple):
        return (tuple, *map(distinct, value))
    if isinstance(value, frozenset):
        return frozenset(map(distinct, value))
    return value  # type: ignore[no-any-return]


def is_ambiguous(value: Any) -> bool:
    """Return True if ``distinct`` makes a difference for this value."""
    if isinstance(value, tuple | frozenset):
        kinds = set(map(type, value))
        if kinds.isdisjoint((bool, float, tuple, frozenset)):
            return False
        return any(map(is_ambiguous, value))
    return isinstance(value, bool | float)


def same(left: Any, right: Any) -> bool:
    """Return True if two values are equal and of the same type all the way down."""
    if left != right:
        return False
    if isinstance(left, bool | float | tuple | frozenset):
        return distinct(left) == distinct(right)
    return not isinstance(right, bool | float)


LONG = 48


def show(value: Any) -> str:
    """Return a value as people read it; a long one shortened in the middle."""
    if value is None:
        text = "nil"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, tuple):
        text = "[" + " ".join(map(show, value)) + "]"
    elif isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    else:
        text = repr(value)
    return text if len(text) <= LONG else f"{text[: LONG // 2]}…{text[-LONG // 2 + 1 :]}"
