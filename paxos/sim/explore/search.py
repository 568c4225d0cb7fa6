"""The search: every state that the cluster can get into, breadth first, each checked once.

A state of the cluster is one local state for each node and the set of messages sent so far. Messages are never
taken out of that set, so a frame may arrive at any later time, in any order, any number of times, or never:
delay, reordering, duplication and loss need no actions of their own (as in Lamport's specifications of Paxos).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeVar

from paxos._core import ballot as ballots
from paxos.sim import wire
from paxos.sim.explore.describe import describe
from paxos.sim.explore.table import Bounds, Do, Local, Step, Table
from paxos.sim.invariants import Violation

Entry = TypeVar("Entry")

LOCAL_BITS = 21
"""Width of the number of a local state in a packed state."""
LOCAL_MASK = (1 << LOCAL_BITS) - 1


class State(NamedTuple):
    """One state of the cluster: the nodes, in order, and the messages sent so far as bits."""

    nodes: tuple[Local, ...]
    sent: int


@dataclass(slots=True)
class Outcome:
    """What an exploration found.

    Attributes:
        states: distinct states, all checked.
        is_complete: nothing was left to visit within the bounds.
        frontier: states whose successors were not visited.
        depth: steps from the beginning to the farthest state.
        violation: ``None``, or what was broken, and ``trace`` says how, step by step.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    frontier: int = 0
    is_complete: bool = False
    violation: str | None = None
    trace: tuple[str, ...] = ()
    seconds: float = 0.0
    local_states: int = 0
    executions: int = 0
    merges: int = 0
    rechecked: int = 0
    messages: int = 0
    chosen: int = 0
    ballots: int = 0
    crashed: int = 0


class Search:
    """One exploration.

    Args:
        table: of the nodes.
        states_max: stop after so many states.
        progress: called now and then with the outcome so far.
    """

    def __init__(
        self, table: Table, *, states_max: int = 1 << 40, progress: Callable[[Outcome], None] | None = None
    ) -> None:
        self.table = table
        self.states_max = states_max
        self.outcome = Outcome()
        self._progress = progress
        self._members = table.bounds.members
        self._quorums = list(combinations(range(len(self._members)), len(self._members) // 2 + 1))
        self._masks: dict[int, int] = {}
        self._mask_of: list[int] = []
        self._seen: set[int] = set()
        self._came_from = array("I")
        self._came_by = array("I")
        self._actions: dict[tuple[int, Do], int] = {}
        self._action_list: list[tuple[int, Do]] = []
        self._values_of: dict[int, int] = {}
        self._agreed: dict[int, int] = {}
        self._ballots: set[int] = set()

    # --- packing ---------------------------------------------------------------------------------------------

    def _pack(self, nodes: tuple[Local, ...], sent: int) -> int:
        number = self._masks.get(sent)
        if number is None:
            number = self._masks[sent] = len(self._mask_of)
            self._mask_of.append(sent)
        packed = number
        for local in nodes:
            packed = packed << LOCAL_BITS | local.number
        return packed

    def _unpack(self, packed: int) -> State:
        found = []
        for node in reversed(self._members):
            found.append(self.table.locals[node][packed & LOCAL_MASK])
            packed >>= LOCAL_BITS
        return State(tuple(reversed(found)), self._mask_of[packed])

    # --- the search ------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Explore; return what was found. A violation ends it."""
        outcome = self.outcome
        began = time.monotonic()
        shown = began
        nodes = tuple(self.table.locals[node][0] for node in self._members)
        level = [(self._pack(nodes, 0), 0)]
        self._seen.add(level[0][0])
        self._came_from.append(0)
        self._came_by.append(0)
        self._action_list.append((0, ()))
        while level and outcome.violation is None and len(self._seen) < self.states_max:
            following: list[tuple[int, int]] = []
            for done, (packed, index) in enumerate(level):
                self._expand(packed, index, following)
                if outcome.violation is not None or len(self._seen) >= self.states_max:
                    outcome.frontier = len(level) - done - 1 + len(following)
                    break
                if not done & 0x3FF and self._progress is not None and time.monotonic() - shown > 2:
                    shown = time.monotonic()
                    self._fill(shown - began)
                    self._progress(outcome)
            outcome.depth += bool(following)
            level = following
        outcome.is_complete = not level and outcome.violation is None
        self._fill(time.monotonic() - began)
        return outcome

    def _fill(self, seconds: float) -> None:
        outcome, table = self.outcome, self.table
        outcome.seconds = seconds
        outcome.states = len(self._seen)
        outcome.local_states = sum(map(len, table.locals.values()))
        outcome.executions, outcome.merges, outcome.rechecked = (
            table.executions,
            table.merges,
            table.rechecked,
        )
        outcome.messages = len(table.messages)
        outcome.ballots = len({ballot for _, ballot, _ in table.votes})

    def _expand(self, packed: int, index: int, following: list[tuple[int, int]]) -> None:
        state = self._unpack(packed)
        bounds = self.table.bounds
        crashes = bounds.crashes - sum(local.incarnation - 1 for local in state.nodes)
        for place, local in enumerate(state.nodes):
            may_crash = crashes > 0 and local.node in bounds.crashers
            for do, step in self._steps(state, local, may_crash):
                if step is None:
                    self._report(index, local.node, do)
                    return
                self.outcome.transitions += 1
                child = step.local
                nodes = (*state.nodes[:place], child, *state.nodes[place + 1 :])
                sent = state.sent | step.sent
                if bounds.is_prompt and child.incarnation != local.incarnation:
                    nodes = self._introduce(nodes, place, step.sent)
                packed = self._pack(nodes, sent)
                if packed in self._seen:
                    continue
                self._seen.add(packed)
                action = (local.node, do)
                number = self._actions.get(action)
                if number is None:
                    number = self._actions[action] = len(self._action_list)
                    self._action_list.append(action)
                following.append((packed, len(self._came_from)))
                self._came_from.append(index)
                self._came_by.append(number)
                try:
                    self._check(state, nodes, local, child, step.sent & ~state.sent, sent)
                except Violation as violation:
                    self.outcome.violation = str(violation)
                    self.outcome.trace = self._trace(len(self._came_from) - 1)
                    return

    def _introduce(self, nodes: tuple[Local, ...], place: int, sent: int) -> tuple[Local, ...]:
        """Let the others hear of the new life of the node at ``place``."""
        found = list(nodes)
        while sent:
            bit = sent & -sent
            sent ^= bit
            receiver, do = self.table.messages[bit.bit_length() - 1]
            if do[0] == "frame" and wire.view(do[1]).kind == wire.Kind.HELLO:
                other = self._members.index(receiver)
                found[other] = self.table.step(found[other], bit, do).local
        return tuple(found)

    def _steps(self, state: State, local: Local, may_crash: bool) -> Iterator[tuple[Do, Step | None]]:
        """Yield everything that may happen to one node now; ``None`` when carrying it out broke an invariant."""
        table = self.table
        waiting = state.sent & table.addressed(local) & ~local.ignored
        while waiting:
            bit = waiting & -waiting
            waiting ^= bit
            number = bit.bit_length() - 1
            if bit not in local.steps and not table.may_take(local, number):
                local.ignored |= bit
                continue
            do = table.messages[number][1]
            step = self._carry_out(local, bit, do)
            if step is not None and step.local is local and not step.sent:
                local.ignored |= bit
                continue
            yield do, step
            if may_crash and step is not None:
                yield from self._crashes_during(local, do, step.group)
        for do in local.inputs:
            step = self._carry_out(local, do, do)
            yield do, step
            if may_crash and step is not None:
                yield from self._crashes_during(local, do, step.group)
        if may_crash:
            for keep in range(local.unsynced + 1):
                do = ("restart", keep)
                yield do, self._carry_out(local, do, do)

    def _crashes_during(self, local: Local, do: Do, group: int) -> Iterator[tuple[Do, Step | None]]:
        for keep in range(group):
            crash = ("crash", keep, do)
            yield crash, self._carry_out(local, crash, crash)

    def _carry_out(self, local: Local, key: object, do: Do) -> Step | None:
        known = local.steps.get(key)
        if known is not None:
            return known
        try:
            return self.table.step(local, key, do)
        except Violation as violation:
            self.outcome.violation = str(violation)
            return None

    # --- the invariants of the whole cluster -----------------------------------------------------------------

    def _check(
        self, state: State, nodes: tuple[Local, ...], before: Local, after: Local, new: int, sent: int
    ) -> None:
        """Check a new state, given that the one before it was checked."""
        votes_changed = after.votes != before.votes
        if not votes_changed and after.chosen == before.chosen and not new:
            return
        if votes_changed:
            self._check_one_value_per_ballot(nodes)
        chosen = self._chosen_values(nodes)
        if votes_changed and self._chosen_values(state.nodes) & ~chosen:
            raise Violation("I5", "a chosen value is no longer chosen")
        for local in nodes:
            if local.chosen & ~chosen:
                slot, value = self.table.values[(local.chosen & ~chosen).bit_length() - 1]
                raise Violation(
                    "I8",
                    f"node {local.node} takes {self.table.value_text(value)} for chosen in slot {slot}, and it is not",
                )
        if new:
            self._check_messages(nodes, new, sent, chosen)

    def _check_one_value_per_ballot(self, nodes: tuple[Local, ...]) -> None:
        """I1: all votes for a slot and ballot carry one value."""
        union = 0
        for local in nodes:
            union |= local.votes
        if union in self._agreed:
            return
        self._agreed[union] = 1
        seen: dict[tuple[int, int], int] = {}
        for slot, ballot, value in self._listed(union, self.table.votes):
            if seen.setdefault((slot, ballot), value) != value:
                raise Violation(
                    "I1", f"two values were accepted in slot {slot} at ballot {ballots.text(ballot)}"
                )

    @staticmethod
    def _listed(bits: int, listing: list[Entry]) -> Iterator[Entry]:
        while bits:
            bit = bits & -bits
            bits ^= bit
            yield listing[bit.bit_length() - 1]

    def _chosen_values(self, nodes: tuple[Local, ...]) -> int:
        """Return the values that a quorum accepted at one ballot, as bits (I3: one for each slot)."""
        votes = 0
        for quorum in self._quorums:
            common = -1
            for place in quorum:
                common &= nodes[place].votes
            votes |= common
        known = self._values_of.get(votes)
        if known is None:
            known = 0
            by_slot: dict[int, int] = {}
            for slot, _ballot, value in self._listed(votes, self.table.votes):
                if by_slot.setdefault(slot, value) != value:
                    first, second = map(self.table.value_text, (by_slot[slot], value))
                    raise Violation("I3", f"slot {slot} is chosen twice: {first} and {second}")
                known |= self.table.value_bit(slot, value)
            self._values_of[votes] = known
            self.outcome.chosen = max(self.outcome.chosen, len(by_slot))
        return known

    def _check_messages(self, nodes: tuple[Local, ...], new: int, sent: int, chosen: int) -> None:
        table = self.table
        while new:
            bit = new & -new
            new ^= bit
            number = bit.bit_length() - 1
            if table.announced[number] > 1:
                slots = {slot for slot, _ in self._listed(chosen, table.values)}
                if not slots.issuperset(range(2, table.announced[number] + 1)):
                    raise Violation(
                        "I8",
                        f"a message says chosen up to {table.announced[number]}, chosen are slots {sorted(slots)}",
                    )
            if table.served[number] & ~chosen:
                raise Violation("I8", "a value is served as chosen that is not")
            proposal = table.proposals[number]
            if proposal is not None:
                if table.conflicts[number] & sent:
                    raise Violation(
                        "I1", f"two values are proposed in slot {proposal[0]} at {ballots.text(proposal[1])}"
                    )
                self._check_shows_safe(nodes, *proposal)

    def _check_shows_safe(self, nodes: tuple[Local, ...], slot: int, ballot: int, value: int) -> None:
        """I2: some quorum that promised the ballot shows that nothing else can be chosen below it."""
        for quorum in self._quorums:
            members = [nodes[place] for place in quorum]
            if any(local.promised < ballot for local in members):
                continue
            below = [
                (earlier, voted)
                for local in members
                for earlier, voted in local.best.get(slot, {}).items()
                if earlier < ballot
            ]
            if not below or max(below)[1] == value:
                return
        if self._chosen_values(nodes) & self.table.value_bit(slot, value):
            return
        raise Violation(
            "I2",
            f"slot {slot}, ballot {ballots.text(ballot)}: {self.table.value_text(value)} is proposed, which is not "
            f"the vote at the highest ballot of any quorum that promised",
        )

    # --- the trace -------------------------------------------------------------------------------------------

    def _report(self, index: int, node: int, do: Do) -> None:
        self.outcome.trace = (*self._trace(index), f"node {node}: {describe(do)}")

    def _trace(self, index: int) -> tuple[str, ...]:
        """Return the steps that led to a state, oldest first."""
        steps = []
        while index:
            node, do = self._action_list[self._came_by[index]]
            steps.append(f"node {node}: {describe(do)}")
            index = self._came_from[index]
        return tuple(reversed(steps))


def explore(
    bounds: Bounds,
    *,
    table: Table | None = None,
    states_max: int = 1 << 40,
    progress: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Explore every state within ``bounds``, or the first ``states_max`` of them."""
    return Search(table or Table(bounds), states_max=states_max, progress=progress).run()
