"""A small part of a history that shows why the whole is not linearizable.

Leaving out operations at will would turn any history into a "counter-example": drop a write, and the read of
it looks wrong. Every step here keeps one promise: *if what is left cannot be explained, neither can the whole*.

* What was invoked after the return at which the search is stuck plays no part, and neither does what an
  operation returned later.
* A read may always go: it changed nothing for the others.
* Everything that returned before the invocation of an operation that overwrites the state may go, with the
  reads that may have come before it. Whatever else may have come before it is set free.
* A mutation may go with every trace that it left, if the model can tell them (`Model.erase`).
* A mutation may be set *free*: it may take effect at any time after its invocation, or never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paxos.sim.linearizability.models import REFUSED, Model
from paxos.sim.linearizability.operations import UNKNOWN, Operation, show
from paxos.sim.linearizability.search import Limits, Outcome, search
from paxos.sim.linearizability.timeline import draw

CONFIGURATIONS_MAX = 200_000
ORDER_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations of one key that no order explains.

    Attributes:
        operations: the part of the history that matters.
        free: the numbers of those among them that could take effect at any time after their invocation, or
            never: it does not help.
        first: an operation that overwrote whatever happened before it, which therefore is left out.
        shortened: some results are shown without the traces of operations that play no part.
        left_out: how many operations of this key play no part.
        order: the longest order that can be found, which explains every return before ``stuck_at``.
        refused: what could come next, each with the reason why it cannot.
    """

    key: Any
    operations: tuple[Operation, ...]
    free: frozenset[int]
    first: Operation | None
    shortened: bool
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
        order = ", ".join(map(str, self.order[-ORDER_SHOWN:])) or "nothing"
        if len(self.order) > ORDER_SHOWN:
            order = f"{len(self.order) - ORDER_SHOWN} operations, {order}"
        lines += ["", f"Longest order that fits: {order}; then the state is {self.state}.", "Next could be:"]
        lines += [f"  {operation} (line {operation.line}): {why}" for operation, why in self.refused]
        if self.left_out:
            lines += ["", f"{self.left_out} more operations{of_key} play no part in this."]
        if self.first is not None:
            lines += [f"What returned before line {self.first.line} is among them: that line overwrote it."]
        if self.shortened:
            lines += ["The results above are shown without what those operations left in them."]
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
        self.first: Operation | None = None

    def run(self) -> Counterexample:
        self.cut_end()
        self.drop(self.is_read, self.without)
        self.start_late()
        self.drop(self.is_read, self.without)
        self.drop(self.may_go, self.erased)
        self.set_free()
        self.drop(self.may_go, self.erased)
        longest = search(self.left, self.model, self.limits, foresee=False)
        if longest.explained is False:
            self.outcome = longest
        return self.result()

    def keep(self, operations: list[Operation] | None) -> bool:
        """Go on with these if no order explains them, which must mean the same of the whole."""
        if operations is None or time.monotonic() > self.limits.deadline:
            return False
        outcome = search(operations, self.model, self.limits)
        if outcome.explained is not False:
            return False
        self.left, self.outcome = operations, outcome
        return True

    def is_read(self, operation: Operation) -> bool:
        return operation.f in self.model.reads

    def may_go(self, operation: Operation) -> bool:
        return not self.is_read(operation) and operation is not self.first

    def cut_end(self) -> None:
        """Leave out what happened after the first return that cannot be explained."""
        assert self.outcome.stuck_at is not None
        end = self.outcome.stuck_at.returned
        assert end is not None
        kept: list[Operation] = []
        for operation in self.left:
            if operation.invoked > end:
                continue
            if operation.returned is None or operation.returned <= end:
                kept.append(operation)
            elif not self.is_read(operation):
                kept.append(opened(operation))
        self.keep(kept)

    def drop(
        self,
        may_go: Callable[[Operation], bool],
        rest: Callable[[list[Operation]], list[Operation] | None],
    ) -> None:
        """Leave out as many operations as possible: large groups first, then single ones."""
        size = len(self.left)
        while size and time.monotonic() < self.limits.deadline:
            goers = [operation for operation in self.left if may_go(operation)]
            for start in range(0, len(goers), size):
                self.keep(rest(goers[start : start + size]))
            size //= 2

    def without(self, gone: list[Operation]) -> list[Operation]:
        """Return what is left without these."""
        numbers = {operation.number for operation in gone}
        return [operation for operation in self.left if operation.number not in numbers]

    def erased(self, gone: list[Operation]) -> list[Operation] | None:
        """Return what is left without these and every trace of them, or ``None`` if that cannot be told."""
        return self.model.erase(gone, self.without(gone))

    def start_late(self) -> None:
        """Begin with the latest operation that overwrites whatever was there before."""
        model = self.model
        for first in reversed(self.left):
            if first.f not in model.overwrites or first.returned is None:
                continue
            later: list[Operation] = []
            for operation in self.left:
                if operation.returned is not None and operation.returned < first.invoked:
                    continue
                if operation is first or operation.invoked > first.returned:
                    later.append(operation)
                elif not self.is_read(operation):
                    later.append(operation if operation.f in model.unconditional else opened(operation))
            if len(later) < len(self.left) and self.keep(later):
                self.first = first
                return

    def set_free(self) -> None:
        """Open what need not have happened at its time."""
        for operation in list(self.left):
            if self.may_go(operation) and not operation.is_open:
                self.keep([opened(other) if other is operation else other for other in self.left])

    def result(self) -> Counterexample:
        outcome = self.outcome
        assert outcome.stuck_at is not None
        original = {operation.number: operation for operation in self.all}

        def shown(operation: Operation) -> Operation:
            return operation if self.is_read(operation) else original[operation.number]

        return Counterexample(
            self.all[0].key,
            tuple(map(shown, self.left)),
            frozenset(
                operation.number
                for operation in self.left
                if operation.is_open and not original[operation.number].is_open
            ),
            self.first,
            any(shown(operation) is not original[operation.number] for operation in self.left),
            len(self.all) - len(self.left),
            tuple(map(shown, outcome.order)),
            outcome.model.show(outcome.state),
            shown(outcome.stuck_at),
            tuple((shown(operation), self.why_not(operation)) for operation in outcome.candidates),
        )

    def why_not(self, operation: Operation) -> str:
        """Say why ``operation`` cannot be next after the longest order."""
        outcome = self.outcome
        assert outcome.stuck_at is not None
        following = outcome.model.step(outcome.state, operation)
        if following is REFUSED:
            return f"refused, the state is {outcome.model.show(outcome.state)}"
        return f"possible, but then no order explains {outcome.stuck_at} (line {outcome.stuck_at.line})"
