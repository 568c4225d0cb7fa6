"""`check_slots`: a second judge, for histories in which every client was told where in the log its operation is.

It believes the slots and needs no search: replaying the log says what every operation should have returned,
and one look at the order of the slots says whether real time was respected. That takes linear time, however
long the history is. A system could lie about slots; `check` does not look at them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paxos.sim.linearizability.checker import validated
from paxos.sim.linearizability.models import REFUSED, Model
from paxos.sim.linearizability.operations import History, MalformedHistory, Operation, distinct, same

Command = tuple[str, Hashable, Any]
"""What one slot of the final log holds: (operation, key, argument), frozen."""

ACCESS_READ = 1


@dataclass(frozen=True, slots=True)
class SlotResult:
    """What `check_slots` found. True in a condition if nothing was wrong.

    Attributes:
        violations: what was wrong, each with the line of the operation.
        operations: how many had a slot.
        resolved: how many open operations the log turned out to hold.
    """

    violations: tuple[str, ...]
    operations: int
    resolved: int

    def __bool__(self) -> bool:
        return not self.violations


def check_slots(history: History, model: Model, log: Mapping[int, Command]) -> SlotResult:
    """Check a history against the log that it ended with.

    1. Every completed mutation is in the log, in its slot and nowhere else; every slot holds an operation of
       this history; one that failed is not there, unless the object itself refused it.
    2. Replaying the log gives every completed operation the result that its client was told. A read sees
       everything up to its slot.
    3. If A returned before B was invoked, A's slot is before B's (a read may have the same slot as what it
       saw); so no read misses what was acknowledged before it began.
    4. An open operation happened iff it is in the log, and then in its place of real time.

    Args:
        history: completed operations have slots, mutations one of their own each.
        model: what a correct object does.
        log: the final log, from slot to command; slots that hold nothing of a client are left out.

    Raises:
        MalformedHistory: a completed operation without a slot.
    """
    return _SlotCheck(history, model, log).run()


class _SlotCheck:
    def __init__(self, history: History, model: Model, log: Mapping[int, Command]) -> None:
        self.history = history
        self.model = model.prepare(())
        self.log = log
        self.violations: list[str] = []
        self.at: dict[int, Operation] = {}
        self.reads: list[Operation] = []
        self.failed = {id(operation) for operation in history.failed}

    def run(self) -> SlotResult:
        operations = validated(self.history, self.model)
        closed = [operation for operation in operations if not operation.is_open]
        for operation in closed:
            if operation.slot is None:
                raise MalformedHistory(self.history.source, operation.line, f"{operation} has no slot")
            if operation.f in self.model.reads:
                self.reads.append(operation)
            else:
                self.claim(operation, operation.slot)
        resolved = self.resolve([operation for operation in operations if operation.is_open])
        self.replay()
        self.respect_time()
        return SlotResult(tuple(self.violations), len(closed), resolved)

    def wrong(self, operation: Operation, what: str) -> None:
        self.violations.append(f"{self.history.source}:{operation.line}: {operation}: {what}")

    def claim(self, operation: Operation, slot: int) -> None:
        """Give a slot to the completed operation that says it is there."""
        if slot in self.at:
            self.wrong(operation, f"slot {slot} is that of line {self.at[slot].line}, too")
        elif slot not in self.log:
            self.wrong(operation, f"lost: the log has no slot {slot}")
        elif not same(self.log[slot], command_of(operation)):
            self.wrong(operation, f"slot {slot} holds {self.log[slot]!r}")
        else:
            self.at[slot] = operation

    def resolve(self, unknown: Sequence[Operation]) -> int:
        """Find out whose the other slots are: the earliest operation that fits asks least of real time."""
        waiting: dict[Hashable, list[Operation]] = {}
        for operation in (*unknown, *self.history.failed):
            waiting.setdefault(distinct(command_of(operation)), []).append(operation)
        for operations in waiting.values():
            operations.sort(key=lambda operation: (not operation.is_open, operation.invoked), reverse=True)
        found = 0
        for slot in sorted(self.log):
            if slot in self.at:
                continue
            fitting = waiting.get(distinct(self.log[slot]))
            if not fitting:
                self.violations.append(
                    f"{self.history.source}: slot {slot} holds {self.log[slot]!r}, which nobody asked for or "
                    "which happened before"
                )
                continue
            self.at[slot] = fitting.pop()
            found += self.at[slot].is_open
        return found

    def replay(self) -> None:
        """Let the model do what the log says, and compare."""
        states: dict[Hashable, Any] = {}
        steps = [(slot, 0, operation) for slot, operation in self.at.items()]
        steps += [(read.slot or 0, ACCESS_READ, read) for read in self.reads]
        for slot, _, operation in sorted(steps, key=lambda step: step[:2]):
            key = distinct(operation.key)
            state = states.get(key, REFUSED)
            if state is REFUSED:
                state = self.model.initial()
            following = self.model.step(state, operation)
            if following is REFUSED:
                if not operation.is_open and id(operation) not in self.failed:
                    self.wrong(operation, f"in slot {slot} the state is {self.model.show(state)}")
            elif id(operation) in self.failed:
                self.wrong(operation, f"failed, and yet happened in slot {slot}")
            else:
                states[key] = following

    def respect_time(self) -> None:
        """Nothing may come before what was known when it was asked for."""
        placed = [
            (operation, slot) for slot, operation in self.at.items() if id(operation) not in self.failed
        ]
        placed += [(read, read.slot or 0) for read in self.reads]
        events: list[tuple[float, int, int, Operation, int]] = []
        for operation, slot in placed:
            events.append((operation.invoked, 0, operation.number, operation, slot))
            if operation.returned is not None:
                events.append((operation.returned, 1, operation.number, operation, slot))
        known: tuple[int, Operation | None] = (0, None)
        latest: dict[Hashable, tuple[int, Operation | None]] = {}
        for _, is_return, _, operation, slot in sorted(events, key=lambda event: event[:3]):
            if is_return:
                known = max(known, (slot, operation), key=lambda pair: pair[0])
                continue
            process = latest.get(operation.process, (0, None))
            floor, witness = max(known, process, key=lambda pair: pair[0])
            is_late = slot < floor if operation.f in self.model.reads else slot <= floor
            if witness is not None and is_late:
                self.wrong(
                    operation,
                    f"is in slot {slot}, but line {witness.line} ({witness}), which returned before, is in {floor}",
                )
            latest[operation.process] = max(process, (slot, operation), key=lambda pair: pair[0])


def command_of(operation: Operation) -> Command:
    """Return what the log holds if the operation is in it."""
    return operation.f, operation.key, operation.value
