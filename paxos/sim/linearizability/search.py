"""The search for an order of the operations of one key that explains everything that clients saw.

It is the depth-first search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the
memory of Lowe ("Testing for linearizability", 2017): a *configuration*, the set of operations that have taken
effect together with the state that they led to, is never explored twice.

What is particular here is how a configuration is written down. Sort the returns. The *frontier* is the first
return whose operation has not taken effect yet; whatever was invoked after it cannot be next. So everything
that returned before the frontier has taken effect, nothing that was invoked after it has, and a configuration
is: the frontier, one bit for each operation under way at the frontier, and the state. Operations borrow a bit
from their invocation to their return, so the bits stay few however long the history is, and where others
relink a list of entries there is nothing to undo.

Five more observations keep it fast, and change no verdict:

* A read that fits the present state may as well take effect now: it changes nothing for the others, so the
  search need not come back to try it later.
* Open operations that are equal are interchangeable: only the first of them need be tried.
* A state from which no read can succeed any more (`Model.ends_reads`) is no place to go to while one is owed.
* What all the reads together force is known beforehand (`paxos.sim.linearizability.foresight`).
* States and operations are numbered, and what an operation makes of a state is computed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paxos.sim.linearizability.foresight import Foresight
from paxos.sim.linearizability.models import REFUSED, Model
from paxos.sim.linearizability.operations import Operation, distinct, is_ambiguous

LOOK_UP_EVERY = 1 << 10

Row = list[tuple[int, int, int, int, bool]]
"""What may be next at a frontier: (bit, action, bits that must be set before, operation, is it a read)."""


@dataclass(slots=True)
class Limits:
    """When to give up.

    Attributes:
        deadline: of ``time.monotonic()``.
        configurations: how many may be looked at; each takes about 100 bytes.
        progress: called now and then with (returns explained, all returns, configurations).
    """

    deadline: float = float("inf")
    configurations: int = 5_000_000
    progress: Callable[[int, int, int], None] | None = None


@dataclass(slots=True)
class Outcome:
    """What the search found.

    Attributes:
        explained: True, False, or ``None`` if it gave up.
        order: operations in an order that explains all, or as many returns as can be explained.
        state: the one after ``order``; `model` shows it.
        stuck_at: the first operation whose return ``order`` does not explain.
        candidates: what could have been next, each refused or leading to a configuration without way on.
    """

    explained: bool | None
    order: list[Operation]
    state: Any
    model: Model
    configurations: int
    stuck_at: Operation | None = None
    candidates: list[Operation] = field(default_factory=list)


class Table:
    """Numbers for states and for operations, and what the one makes of the other."""

    def __init__(
        self, model: Model, operations: Sequence[Operation], foresight: Foresight | None = None
    ) -> None:
        self.model = model
        self.foresight = foresight
        self.states: list[Any] = []
        self.moves: list[dict[int, int]] = []
        self.ends_reads: list[bool] = []
        self.actions: list[Operation] = []
        self.tag: Callable[[Any], Hashable] = _itself
        if any(is_ambiguous(operation.value) or is_ambiguous(operation.result) for operation in operations):
            self.tag = distinct
        self._states: dict[Hashable, int] = {}
        self._actions: dict[Hashable, int] = {}

    def action(self, operation: Operation) -> int:
        """Return the number of whatever is the same as this operation to the model."""
        key = (
            operation.f,
            self.tag(operation.value),
            self.tag(operation.result),
            None if self.model.anonymous else operation.process,
        )
        number = self._actions.setdefault(key, len(self.actions))
        if number == len(self.actions):
            self.actions.append(operation)
        return number

    def state(self, state: Any) -> int:
        """Return the number of a state."""
        number = self._states.setdefault(self.tag(state), len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.moves.append({})
            self.ends_reads.append(self.model.ends_reads(state))
        return number

    def move(self, state: int, action: int) -> int:
        """Ask the model, and remember: the number of the next state, or -1."""
        following = self.model.step(self.states[state], self.actions[action])
        number = -1
        if following is not REFUSED:
            is_read = self.actions[action].f in self.model.reads
            if (
                is_read
                or self.foresight is None
                or not self.foresight.forbids(self.states[state], self.actions[action], following)
            ):
                number = self.state(following)
            if is_read and number != state:
                raise ValueError(
                    f"{self.model.name} calls {self.actions[action].f} a read, but it changed the state"
                )
        self.moves[state][action] = number
        return number


def _itself(value: Any) -> Hashable:
    return value  # type: ignore[no-any-return]


class Plan(NamedTuple):
    """A history of one key, laid out for the search.

    Attributes:
        rows: what may be next, for each frontier.
        bits: the bit of the operation whose return each frontier is, and a 0 at the end.
        owed: bits of the reads that have not returned before; all bits if one has not even been invoked.
        returns: that operation's number in the sequence.
        width: how many bits there are.
        reads_in_row: how many candidates of a row are reads; they come first.
        spans: for each operation the frontiers at which it is under way, first and last, and its bit.
    """

    rows: list[Row]
    bits: list[int]
    owed: list[int]
    returns: list[int]
    width: int
    reads_in_row: list[int]
    spans: list[tuple[int, int, int]]


def lay_out(operations: Sequence[Operation], table: Table, reads: frozenset[str]) -> Plan:
    """Sort the returns and say what is under way at each of them."""
    events: list[tuple[float, int, int]] = []
    for number, operation in enumerate(operations):
        events.append((operation.invoked, 0, number))
        if operation.returned is not None:
            events.append((operation.returned, 1, number))
    events.sort()
    under_way: dict[int, tuple[int, int, int, int, bool]] = {}
    latest: dict[Any, int] = {}
    twin_of: dict[int, int] = {}
    free: list[int] = []
    width = 0
    rows: list[Row] = []
    bits: list[int] = []
    owed: list[int] = []
    returns: list[int] = []
    spans: list[tuple[int, int, int]] = [(0, 0, 0)] * len(operations)
    reads_to_come = sum(operation.f in reads for operation in operations)
    for _, is_return, number in events:
        operation = operations[number]
        if is_return:
            row = sorted(under_way.values(), key=lambda entry: _eagerness(entry, operations))
            rows.append(row)
            owed.append(-1 if reads_to_come else sum(entry[0] for entry in row if entry[4]))
            bit = under_way.pop(number)[0]
            spans[number] = (spans[number][0], len(bits), bit)
            bits.append(bit)
            returns.append(number)
            free.append(bit)
            for other, entry in under_way.items():
                if entry[2] & bit:
                    under_way[other] = (*entry[:2], entry[2] & ~bit, *entry[3:])
            continue
        if free:
            bit = free.pop()
        else:
            bit = 1 << width
            width += 1
        spans[number] = (len(bits), len(operations), bit)
        action = table.action(operation)
        # At equal times an operation of the same process may still seem to be under way.
        before = latest.get(operation.process)
        needs = under_way[before][0] if before in under_way and not operations[before].is_open else 0
        latest[operation.process] = number
        if operation.is_open and not needs:
            twin = twin_of.get(action)
            if twin is not None:
                needs = under_way[twin][0]
            twin_of[action] = number
        under_way[number] = (bit, action, needs, number, operation.f in reads)
        reads_to_come -= operation.f in reads
    rows.append([])
    bits.append(0)
    owed.append(0)
    reads_in_row = [sum(entry[4] for entry in row) for row in rows]
    return Plan(rows, bits, owed, returns, width, reads_in_row, spans)


def _eagerness(entry: tuple[int, int, int, int, bool], operations: Sequence[Operation]) -> tuple[bool, float]:
    """Order candidates: reads first, then whoever returned first; open operations last."""
    returned = operations[entry[3]].returned
    return not entry[4], float("inf") if returned is None else returned


def search(operations: Sequence[Operation], model: Model, limits: Limits, *, foresee: bool = True) -> Outcome:
    """Look for an order that explains all operations of one key.

    Args:
        operations: in the order of invocation; reads that are open explain themselves and must be left out.
        foresee: use what the reads force; without it the longest order is really the longest.

    Raises:
        ValueError: the model says of an operation that it never changes the state, and it did.
    """
    model = model.prepare(operations)
    foresight = model.foresee(operations) if foresee else None
    if foresight is not None and foresight.impossible is not None:
        read = foresight.impossible
        return Outcome(False, [], model.initial(), model, 0, read, [read])
    table = Table(model, operations, foresight)
    plan = lay_out(operations, table, model.reads)
    state = table.state(model.initial())
    finished, order, state, frontier, seen = _explore(plan, table, state, limits)
    if finished is None:
        return Outcome(None, [], table.states[state], model, seen)
    outcome = Outcome(finished, [operations[number] for number in order], table.states[state], model, seen)
    if not finished:
        outcome.stuck_at = operations[plan.returns[frontier]]
        done = set(order)
        outcome.candidates = [operations[entry[3]] for entry in plan.rows[frontier] if entry[3] not in done]
    return outcome


def _explore(
    plan: Plan, table: Table, state: int, limits: Limits
) -> tuple[bool | None, list[int], int, int, int]:
    """Return (found, order, state, frontier, configurations); without success those of the longest order."""
    rows, bits, owed, _, width, reads_in_row, spans = plan
    end = len(rows) - 1
    moves, ends_reads = table.moves, table.ends_reads
    readers = {} if table.foresight is None else table.foresight.readers
    shift = width + end.bit_length()
    seen: set[int] = set()
    look_up_at = LOOK_UP_EVERY
    trail: list[tuple[int, int, int, int]] = []
    order: list[int] = []
    best: tuple[int, int, list[int], int] = (-1, 0, [], state)
    frontier = mask = position = 0
    row = rows[0]
    while frontier < end:
        if position == len(row):
            if (frontier, len(order)) > best[:2]:
                best = (frontier, len(order), order.copy(), state)
            if not trail:
                return False, best[2], best[3], best[0], len(seen)
            frontier, mask, state, position = trail.pop()
            order.pop()
            row = rows[frontier]
            continue
        if position == reads_in_row[frontier] and readers:
            places = readers.get(distinct(table.states[state]))
            if places is not None and _is_owed(places, spans, frontier, mask):
                position = len(row)
                continue
        bit, action, needs, number, is_read = row[position]
        position += 1
        if mask & bit or needs & ~mask:
            continue
        following = moves[state].get(action)
        if following is None:
            following = table.move(state, action)
        if following < 0:
            continue
        after = mask | bit
        ahead = frontier
        while bits[ahead] & after:
            after ^= bits[ahead]
            ahead += 1
        if ends_reads[following] and owed[ahead] & ~after:
            continue
        configuration = (following << shift) | (ahead << width) | after
        if configuration in seen:
            if is_read:
                position = len(row)
            continue
        seen.add(configuration)
        if len(seen) >= look_up_at:
            look_up_at += LOOK_UP_EVERY
            if len(seen) > limits.configurations or time.monotonic() > limits.deadline:
                return None, [], state, frontier, len(seen)
            if limits.progress is not None:
                limits.progress(ahead, end, len(seen))
        trail.append((frontier, mask, state, len(row) if is_read else position))
        order.append(number)
        frontier, mask, state, position = ahead, after, following, 0
        row = rows[frontier]
    return True, order, state, frontier, len(seen)


def _is_owed(places: list[int], spans: list[tuple[int, int, int]], frontier: int, mask: int) -> bool:
    """Return True if one of these operations has not taken effect yet."""
    for place in places:
        first, last, bit = spans[place]
        if frontier < first or (frontier <= last and not mask & bit):
            return True
    return False
