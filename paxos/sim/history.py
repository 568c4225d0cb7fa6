"""What an all-knowing observer has seen of a run: every node's durable records, every proposal, every choice.

The history only grows. A vote that was durable once counts for ever, also after the node that cast it is
gone: that is what "chosen" means (I3 is a statement about history, not about the present).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from paxos._core.effects import ChosenView, RecordView
from paxos.sim.wire import BALLOT_CHOSEN

RECORD_PROMISE = 1
RECORD_ACCEPT = 2
RECORD_CHOSEN = 3
RECORD_MARK = 4
RECORD_INCARNATION = 5
RECORD_TRIM = 6

NOOP = 1
BATCH = 2
CONFIGURATION = 3
CHOSEN_SNAPSHOT = 0

Held = tuple[int, bytes]
"""A value as it is compared: ``(value kind, bytes)``."""

DAMAGED: Held = (0, b"")
"""What a record holds whose header is good and whose value is not."""


class Vote(NamedTuple):
    """The highest-ranking durable record of one slot on one node."""

    rank: int
    held: Held


class Marks(NamedTuple):
    """How far a node believes to be, in the order of I11."""

    promised: int = 0
    trimmed: int = 0
    applied: int = 0
    chosen_upto: int = 0
    known_upto: int = 0
    last: int = 0


class Applied(NamedTuple):
    """One slot of the one log that all nodes must apply."""

    held: Held
    first_index: int
    command_count: int
    digest: int


def held_in(record: RecordView) -> Held:
    """Return what a record of a vote or a choice holds."""
    return DAMAGED if record.is_damaged else (record.value_kind, record.value or b"")


@dataclass(slots=True)
class Durable:
    """What is durable on one node, told from its records alone.

    Attributes:
        promised: highest ballot in a PROMISE or MARK record.
        best: slot to its highest-ranking record.
        votes: slot to every ballot that was accepted there, with the value.
        runs: ballot to {slot: first slot of the unbroken run of accepts that ends in it}.
        prefix: every slot up to it is held here with its chosen value.
    """

    promised: int = 0
    incarnation: int = 0
    mark: int = 0
    best: dict[int, Vote] = field(default_factory=dict)
    votes: dict[int, dict[int, Held]] = field(default_factory=dict)
    runs: dict[int, dict[int, int]] = field(default_factory=dict)
    prefix: int = 0

    def add(self, record: RecordView) -> None:
        """Take one record that has become durable."""
        kind = record.kind
        if kind == RECORD_ACCEPT:
            slot, ballot = record.slot, record.ballot
            held = held_in(record)
            best = self.best.get(slot)
            if best is None or ballot >= best.rank:
                self.best[slot] = Vote(ballot, self._readable(slot, held))
            if held is not DAMAGED:
                self.votes.setdefault(slot, {})[ballot] = held
            run = self.runs.setdefault(ballot, {})
            run[slot] = run.get(slot - 1, slot)
        elif kind == RECORD_CHOSEN:
            self.best[record.slot] = Vote(BALLOT_CHOSEN, self._readable(record.slot, held_in(record)))
        elif kind in (RECORD_PROMISE, RECORD_MARK):
            self.promised = max(self.promised, record.ballot)
        elif kind == RECORD_INCARNATION:
            self.incarnation = max(self.incarnation, record.slot)
        self.mark = max(self.mark, record.mark)

    def _readable(self, slot: int, held: Held) -> Held:
        """Return what the slot is known to hold after a record with ``held``.

        An older record stands in for a damaged one only where a mark before it says that the older one's
        value is chosen: then nothing else can ever be written there.
        """
        if held is DAMAGED and slot <= self.mark and slot in self.best:
            return self.best[slot].held
        return held

    def covered_from(self, ballot: int, upto: int) -> int:
        """Return the first slot from which everything up to ``upto`` is durable at ``ballot`` or as chosen.

        A slot whose chosen value is durable needs no second record; ``upto + 1`` means that not even
        ``upto`` is covered.
        """
        run = self.runs.get(ballot, {})
        slot = upto
        while slot > self.prefix:
            best = self.best.get(slot)
            if slot in run:
                slot = run[slot] - 1
            elif best is not None and best.rank == BALLOT_CHOSEN:
                slot -= 1
            else:
                break
        return 1 if slot <= self.prefix else slot + 1


class History:
    """All that was ever durable, proposed, chosen, submitted and applied in one run.

    Attributes:
        members: node ids of the one configuration.
        quorum: how many of them make one (q1 = q2 = majority).
        durable: node to its durable state now.
        promised_ever: node to the highest ballot it ever promised durably.
        proposals: (slot, ballot) to the value proposed there.
        votes: (slot, ballot) to the nodes whose accept was durable at some time.
        chosen: slot to its value; `chosen_prefix` is the end of its unbroken start.
        leaders: ballot to (node, incarnation) that uses it.
        opens: (node, ballot) to the stream starts that the leader of that ballot sent to it.
        submitted: (origin, incarnation) to the commands in ticket order.
        log: what every node must apply: slot 1 is ``log[0]``.
        acknowledged: command to its index, as its proposer was told; `acknowledged_us`: and when, first.
        time: tells the virtual time.
        votes_ever: node to slot to {ballot: value}: every durable vote of the bound storage, readable or not.
        quarantined: nodes whose disk cannot be trusted: they may only learn.
        foreign: nodes that started from another storage than the one that was bound: nothing of theirs counts.
        events: named things that happened, for the coverage report.
        snapshots: node to the slot of its durable snapshot.
        index_at: last index at the end of each slot of the log, slot 0 first.
    """

    def __init__(self, members: list[int]) -> None:
        self.members = members
        self.quorum = len(members) // 2 + 1
        self.durable = {node: Durable() for node in members}
        self.promised_ever = dict.fromkeys(members, 0)
        self.votes_ever: dict[int, dict[int, dict[int, Held]]] = {node: {} for node in members}
        self.quarantined: set[int] = set()
        self.foreign: set[int] = set()
        self.proposals: dict[tuple[int, int], Held] = {}
        self.votes: dict[tuple[int, int], set[int]] = {}
        self.ballots_of_slot: dict[int, list[int]] = {}
        self.chosen: dict[int, Held] = {}
        self.chosen_ballot: dict[int, int] = {}
        self.chosen_prefix = 0
        self.slot_max = 0
        self.leaders: dict[int, tuple[int, int]] = {}
        self.opens: dict[tuple[int, int], list[int]] = {}
        self.submitted: dict[tuple[int, int], list[bytes]] = {}
        self.log: list[Applied] = []
        self.last_index = 0
        self.tickets: dict[int, tuple[int, int]] = {}
        self.commands_applied: set[bytes] = set()
        self.acknowledged: dict[bytes, int] = {}
        self.acknowledged_us: dict[bytes, int] = {}
        self.time: Callable[[], int] = int
        self.applied_upto = dict.fromkeys(members, 0)
        self.events: Counter[str] = Counter()
        self.snapshots = dict.fromkeys(members, 0)
        self.index_at: list[int] = [0]

    def configuration_at(self, slot: int) -> tuple[int, bytes]:
        """Return slot and value of the newest configuration in the slots up to ``slot``; 0 if there is none."""
        for at in range(slot, 0, -1):
            if self.log[at - 1].held[0] == CONFIGURATION:
                return at, self.log[at - 1].held[1]
        return 0, b""

    def acknowledge(self, command: bytes, index: int) -> None:
        """Note that the proposer of ``command`` was told its index."""
        self.acknowledged[command] = index
        self.acknowledged_us.setdefault(command, self.time())

    def is_proposal_new(self, slot: int, ballot: int) -> bool:
        """Return True until a value was seen for this slot and ballot."""
        return (slot, ballot) not in self.proposals

    def add_vote(self, node: int, slot: int, ballot: int) -> bool:
        """Count a durable accept; True if this very vote made a quorum."""
        voters = self.votes.get((slot, ballot))
        if voters is None:
            voters = self.votes[slot, ballot] = set()
            self.ballots_of_slot.setdefault(slot, []).append(ballot)
            self.slot_max = max(self.slot_max, slot)
        if node in voters:
            return False
        voters.add(node)
        return len(voters) == self.quorum

    def add_chosen(self, slot: int, held: Held, ballot: int) -> None:
        """Note that a slot is chosen."""
        if slot not in self.chosen:
            self.chosen[slot] = held
            self.chosen_ballot[slot] = ballot
            while self.chosen_prefix + 1 in self.chosen:
                self.chosen_prefix += 1

    def durable_prefix(self, node: int, upto: int) -> int:
        """Return up to where ``node`` durably holds the chosen values, looking no further than ``upto``."""
        state = self.durable[node]
        prefix = state.prefix
        while prefix < upto:
            slot = prefix + 1
            best = state.best.get(slot)
            if best is None or self.chosen.get(slot) != best.held:
                break
            prefix = slot
        state.prefix = prefix
        return prefix

    def highest_vote_below(self, node: int, slot: int, ballot: int) -> tuple[int, Held] | None:
        """Return the vote that ``node`` ever cast in ``slot`` with the highest ballot below ``ballot``."""
        votes = self.votes_ever[node].get(slot)
        if not votes:
            return None
        below = [b for b in votes if b < ballot]
        if not below:
            return None
        highest = max(below)
        return highest, votes[highest]

    def expected_index(self, chosen: ChosenView, held: Held) -> tuple[int, int]:
        """Return (index, count) that the next slot of the log must be applied with.

        A batch counts iff its first ticket follows the last one of its origin's incarnation, and no later
        incarnation of the origin was heard of before; anything else takes a slot and no index.
        """
        if held[0] != BATCH:
            return 0, 0
        incarnation, last_ticket = self.tickets.get(chosen.origin, (0, 0))
        if chosen.incarnation > incarnation:
            last_ticket = 0
        if chosen.incarnation < incarnation or chosen.first_ticket != last_ticket + 1:
            self.events["batch_not_applied_again"] += 1
            return 0, chosen.count
        self.tickets[chosen.origin] = (chosen.incarnation, chosen.first_ticket + chosen.count - 1)
        first_index = self.last_index + 1
        self.last_index += chosen.count
        return first_index, chosen.count
