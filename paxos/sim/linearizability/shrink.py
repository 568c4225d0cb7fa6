"""A small part of a history that shows why the whole is not linearizable.

Leaving out operations at will would turn any history into a "counter-example": drop a write, and the read of
it looks wrong. Every step here keeps one promise: *if what is left cannot be explained, neither can the whole*.

* What was invoked after the return at which the search is stuck plays no part.
* A read may always go: it changed nothing for the others.
* Everything that returned before some operation that overwrites the state may go, with the reads that may
  have come before it, if nothing that is left could have been refused by the old state.
* A mutation may go if what is left cannot be explained without it *and* its having happened could not help,
  because nobody saw what it left (`Model.leaves_no_trace`).
* A mutation may be set *free*: it may take effect at any time after its invocation, or never. The time line
  marks those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paxos.sim.linearizability.models import REFUSED, Model
from paxos.sim.linearizability.operations import UNKNOWN, Operation, show
from paxos.sim.linearizability.search import Limits, Outcome, search
from paxos.sim.linearizability.timeline import draw

CONFIGURATIONS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations of one key that no order explains.

    Attributes:
        operations: the part of the history that matters.
        free: the numbers of those among them that could take effect at any time after their invocation, or
            never: it does not help.
        left_out: how many operations of this key play no part.
        order: the longest order that can be found, which explains every return before ``stuck_at``.
        refused: what could come next, each with the reason why it cannot.
    """

    key: Any
    operations: tuple[Operation, ...]
    free: frozenset[int]
    left_out: int
    order: tuple[Operation, ...]
    state: str
    stuck_at: Operation
    refused: tuple[tuple[Operation, str], ...]

    def describe(self) -> str:
        """Return a time line, the longest order that fits, and why it cannot go on."""
        of_key = "" if self.key is None else f" of key {show(self.key)}"
        lines = [f"No order explains these {len(self.operations)} operations{of_key}:", ""]
        lines += draw(self.operations, self.free)
        if self.free:
            lines += [
                "",
                "* Even if this took effect at any time after its invocation, or never, there is no order.",
            ]
        order = ", ".join(map(str, self.order)) or "nothing"
        lines += ["", f"Longest order that fits: {order}; then the state is {self.state}.", "Next could be:"]
        lines += [f"  {operation} (line {operation.line}): {why}" for operation, why in self.refused]
        if self.left_out:
            lines += ["", f"{self.left_out} more operations{of_key} play no part in this."]
        return "\n".join(lines)


def opened(operation: Operation) -> Operation:
    """Return the operation as it is if nobody knows its end."""
    return replace(operation, result=UNKNOWN, returned=None)


def shrink(
    operations: Sequence[Operation], model: Model, outcome: Outcome, deadline: float
) -> Counterexample:
    """Return a part of the operations of one key that cannot be explained, as small as time allows."""
    return _Shrinker(operations, model, outcome, deadline).run()


class _Shrinker:
    """Keeps ``left``, which no order explains, and its ``outcome``, and makes it smaller."""

    def __init__(
        self, operations: Sequence[Operation], model: Model, outcome: Outcome, deadline: float
    ) -> None:
        self.model = model
        self.limits = Limits(deadline, CONFIGURATIONS_MAX)
        self.all = list(operations)
        self.left = list(operations)
        self.outcome = outcome

    def run(self) -> Counterexample:
        assert self.outcome.stuck_at is not None
        end = self.outcome.stuck_at.returned
        assert end is not None
        self.keep([operation for operation in self.left if operation.invoked <= end])
        self.drop_in_chunks(lambda operation: operation.f in self.model.reads)
        self.start_late()
        self.drop_in_chunks(lambda operation: operation.f in self.model.reads)
        for operation in list(self.left):
            others = [other for other in self.left if other is not operation]
            if operation.f not in self.model.reads and self.model.leaves_no_trace(operation, others):
                self.keep(others)
        self.set_free()
        return self.result()

    def keep(self, operations: list[Operation]) -> bool:
        """Go on with these if no order explains them, which must mean the same of the whole."""
        if len(operations) == len(self.left) and operations == self.left:
            return False
        outcome = search(operations, self.model, self.limits)
        if outcome.explained is not False:
            return False
        self.left, self.outcome = operations, outcome
        return True

    def drop_in_chunks(self, may_go: Callable[[Operation], bool]) -> None:
        """Leave out as many of the operations as possible: halves first, then single ones."""
        size = len(self.left)
        while size:
            goers = [operation for operation in self.left if may_go(operation)]
            for start in range(0, len(goers), size):
                gone = {id(operation) for operation in goers[start : start + size]}
                self.keep([operation for operation in self.left if id(operation) not in gone])
            size //= 2

    def start_late(self) -> None:
        """Begin with the latest operation that overwrites whatever was there before."""
        model = self.model
        for first in reversed(self.left):
            if first.f not in model.overwrites or first.returned is None:
                continue
            later = [
                operation
                for operation in self.left
                if (operation.returned is None or operation.returned >= first.invoked)
                and (operation.f not in model.reads or operation.invoked > first.returned)
            ]
            if any(
                operation.f not in model.unconditional
                for operation in later
                if operation.invoked <= first.returned
            ):
                continue
            if self.keep(later):
                return

    def set_free(self) -> None:
        """Open what need not have happened at its time."""
        for number, operation in enumerate(self.left):
            if operation.f not in self.model.reads and not operation.is_open:
                self.keep([*self.left[:number], opened(operation), *self.left[number + 1 :]])

    def result(self) -> Counterexample:
        outcome = self.outcome
        assert outcome.stuck_at is not None
        original = {operation.number: operation for operation in self.all}
        return Counterexample(
            self.all[0].key,
            tuple(original[operation.number] for operation in self.left),
            frozenset(
                operation.number
                for operation in self.left
                if operation.is_open and not original[operation.number].is_open
            ),
            len(self.all) - len(self.left),
            tuple(original[operation.number] for operation in outcome.order),
            outcome.model.show(outcome.state),
            outcome.stuck_at,
            tuple((original[operation.number], self.why_not(operation)) for operation in outcome.candidates),
        )

    def why_not(self, operation: Operation) -> str:
        """Say why ``operation`` cannot be next after the longest order."""
        outcome = self.outcome
        assert outcome.stuck_at is not None
        following = outcome.model.step(outcome.state, operation)
        if following is REFUSED:
            return f"refused, the state is {outcome.model.show(outcome.state)}"
        return f"possible, but then no order explains {outcome.stuck_at}"
