"""What the reads of a whole history force upon any order of it, found before the search begins.

If only one operation can have made a value that somebody read, then that operation, which happens at most
once, made exactly this value; the value was there once; and nothing may replace it before all its reads are
done. If that operation was an append or a compare-and-set, the value before it is known, too, and so on
backwards. Histories whose writes all differ, which is how histories should be made, leave the search hardly
a choice. Nothing here changes a verdict: it refuses early what could not have led to an order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paxos.sim.linearizability.operations import Operation, distinct, same

Action = tuple[str, Hashable]
"""An operation and its argument: what is the same to an anonymous model."""


@dataclass(slots=True)
class Foresight:
    """What is known of every order, if there is one. Values are as `distinct` returns them.

    Attributes:
        makes: the value that a mutation must make.
        follows: the only mutation that may come next, at a value.
        readers: the places of the reads that must be done before a value is replaced.
        impossible: a read that no order explains.
    """

    makes: dict[Action, Hashable] = field(default_factory=dict)
    follows: dict[Hashable, Action] = field(default_factory=dict)
    readers: dict[Hashable, list[int]] = field(default_factory=dict)
    impossible: Operation | None = None

    def forbids(self, state: Any, operation: Operation, following: Any) -> bool:
        """Return True if this mutation, though it is possible in this state, can be part of no order."""
        action = action_of(operation)
        made = self.makes.get(action)
        if made is not None and made != distinct(following):
            return True
        return self.follows.get(distinct(state), action) != action


def action_of(operation: Operation) -> Action:
    """Return what is the same to an anonymous model."""
    return operation.f, distinct(operation.value)


class Makers:
    """Who can have made a value.

    Args:
        initial: the value before anything happened; a ``delete`` makes it, too.
    """

    def __init__(self, operations: Sequence[Operation], reads: frozenset[str], initial: Any) -> None:
        self._direct: dict[Hashable, list[Operation]] = {}
        self._appends: dict[Hashable, list[Operation]] = {}
        for operation in operations:
            if operation.f == "append":
                self._appends.setdefault(operation.value, []).append(operation)
            elif operation.f not in reads:
                made = initial if operation.f == "delete" else operation.value
                made = operation.value[1] if operation.f == "cas" else made
                self._direct.setdefault(distinct(made), []).append(operation)
        self._lengths = {len(value) for value in self._appends if isinstance(value, str | bytes)}

    def of(self, value: Any) -> list[Operation]:
        """Return the mutations after which the value may be there."""
        found = list(self._direct.get(distinct(value), ()))
        if isinstance(value, str | bytes):
            for length in self._lengths:
                if length <= len(value):
                    found += self._appends.get(value[len(value) - length :], ())
        return found


def before(maker: Operation, value: Any) -> Any:
    """Return what must have been there for ``maker`` to make the value, or ``None`` if that is not known."""
    if maker.f == "cas":
        return maker.value[0]
    if maker.f == "append":
        return value[: len(value) - len(maker.value)] or None
    return None


def foresee(operations: Sequence[Operation], reads: frozenset[str], initial: Any) -> Foresight:
    """Find out what the reads of one object force.

    Args:
        operations: reads have results, as open ones were left out.
        initial: the value before anything happened.
    """
    found = Foresight()
    makers = Makers(operations, reads, initial)
    wanted: list[tuple[Any, Operation]] = []
    for place, operation in enumerate(operations):
        if operation.f in reads and not same(operation.result, initial):
            value = distinct(operation.result)
            if value not in found.readers:
                wanted.append((operation.result, operation))
            found.readers.setdefault(value, []).append(place)
    once: set[Hashable] = set()
    while wanted and found.impossible is None:
        value, reader = wanted.pop()
        if distinct(value) in once:
            continue
        possible = makers.of(value)
        if not possible:
            found.impossible = reader
        if len(possible) != 1:
            continue
        once.add(distinct(value))
        action = action_of(possible[0])
        if found.makes.setdefault(action, distinct(value)) != distinct(value):
            found.impossible = reader
        earlier = before(possible[0], value)
        if earlier is None or same(earlier, initial):
            continue
        wanted.append((earlier, reader))
        if len(makers.of(earlier)) == 1 and found.follows.setdefault(distinct(earlier), action) != action:
            found.impossible = reader
    found.readers = {value: places for value, places in found.readers.items() if value in once}
    return found
