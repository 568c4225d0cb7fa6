"""What each node can do, worked out once: the local states of a node and the transitions between them.

A cluster has millions of states, its nodes have thousands. So each (local state, input) is carried out once on
the real engine and control plane, rebuilt from the inputs that led to that local state, and the outcome is
kept here; the search (``search.py``) then moves through the table alone.

That two local states may be treated as one when their keys are equal is itself tested: of every
:data:`RECHECK_EVERY` merges one is remembered, and the next input is carried out both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paxos._core import ballot as ballots
from paxos._core.effects import RecordKind
from paxos.sim import wire
from paxos.sim.explore import claims
from paxos.sim.explore.replica import FIRST_BALLOT_ROUND, Effects, Replica
from paxos.types import Config

RECHECK_EVERY = 64

Do = tuple[Any, ...]
"""One input of a node: the name of a method of :class:`Replica` and its arguments."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What makes the configuration tiny.

    Attributes:
        rounds: how many ballot rounds each node may campaign in; the sum is the number of ballots.
        clients: nodes that have a client, which proposes one command.
        slots: slots after the configuration that are fought for; Accepts of later ones are lost.
        crashes: how often a node may lose power and start again, over all nodes.
        crashers: nodes to which that may happen.
        lost: frame kinds that are never delivered.
        is_prompt: what happens within one moment in most runs happens at once: an intent to lead is carried out
            when it is made, and all nodes hear of a restart when it happens. Otherwise both may come at any
            later time, again and again, or never.
    """

    rounds: tuple[int, ...] = (2, 1, 1)
    clients: tuple[int, ...] = (1, 2)
    slots: int = 2
    crashes: int = 1
    crashers: tuple[int, ...] = (1, 2, 3)
    lost: frozenset[int] = frozenset({wire.Kind.NACK})
    is_prompt: bool = False

    @property
    def members(self) -> tuple[int, ...]:
        """Node ids."""
        return tuple(range(1, len(self.rounds) + 1))

    @property
    def last_slot(self) -> int:
        """The last slot that is fought for."""
        return 1 + self.slots


class Step(NamedTuple):
    """The outcome of one input: the next local state, the messages sent as bits, records in the first group."""

    local: Local
    sent: int
    group: int


@dataclass(slots=True, eq=False)
class Local:
    """One local state of one node.

    Attributes:
        number: of this state among those of its node.
        before, do: the input that first led here, for the replay; the root has none.
        promised: durably.
        answered: the ballot of the last Prepare that this life answered.
        stream: ballot of the leader that is followed, and the next slot expected of it.
        votes: every accept that was ever durable here, as bits of :attr:`Table.votes`.
        chosen: every (slot, value) that was applied here or is recorded as chosen, as bits of :attr:`Table.values`.
        ignored: messages that are known to change nothing here.
        steps: outcomes known so far, by message bit or by input.
    """

    node: int
    number: int
    incarnation: int
    before: Local | None
    do: Do | None
    promised: int
    votes: int
    chosen: int
    best: dict[int, dict[int, int]]
    unsynced: int
    inputs: tuple[Do, ...]
    answered: int
    stream: tuple[int, int]
    ignored: int = 0
    steps: dict[Any, Step] = field(default_factory=dict)

    def chain(self) -> list[Do]:
        """Return the inputs that led here, oldest first."""
        found: list[Do] = []
        state: Local | None = self
        while state is not None and state.do is not None:
            found.append(state.do)
            state = state.before
        return found[::-1]


class Table:
    """All local states met so far, the messages sent so far, and how they are numbered.

    Args:
        bounds: of the exploration.
        replica_class: the nodes; another one for tests that the exploration can fail.
        checks_claims: also check every single frame and record against the node's own disk (I5 - I7), not only
            what comes out of it all.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        replica_class: type[Replica] = Replica,
        checks_claims: bool = True,
    ) -> None:
        self.bounds = bounds
        self.config = Config(window_slots=bounds.slots, promise_page_entries=1)
        self.replica_class = replica_class
        self.checks_claims = checks_claims
        self.messages: list[tuple[int, Do]] = []
        self.proposals: list[tuple[int, int, int] | None] = []
        self.conflicts: dict[int, int] = {}
        self.announced: list[int] = []
        self.served: list[int] = []
        self.votes: list[tuple[int, int, int]] = []
        self.values: list[tuple[int, int]] = []
        self.locals: dict[int, list[Local]] = {node: [] for node in bounds.members}
        self.executions = 0
        self.merges = 0
        self.rechecked = 0
        self._numbers: dict[Any, int] = {}
        self._bits: dict[Any, int] = {}
        self._known: dict[Any, Local] = {}
        self._other_ways: dict[Local, list[Do]] = {}
        self._addressed: dict[tuple[int, int], int] = {}
        self._frames_to: dict[int, int] = dict.fromkeys(bounds.members, 0)
        for node in bounds.members:
            self._intern(node, self._build(node, []), None, None)

    # --- numbering -------------------------------------------------------------------------------------------

    def _bit(self, thing: Any, listing: list[Any], entry: Any) -> int:
        """Return the bit of ``thing``, which is put into ``listing`` as ``entry`` when it is new."""
        bit = self._bits.get(thing)
        if bit is None:
            bit = self._bits[thing] = 1 << len(listing)
            listing.append(entry)
        return bit

    def value_number(self, kind: int, value: bytes) -> int:
        """Return a small number for a value."""
        return self._numbers.setdefault((kind, value), len(self._numbers))

    def value_text(self, number: int) -> str:
        """Return a value as people read it."""
        for (kind, value), known in self._numbers.items():
            if known == number:
                return claims.value_text(kind, value)
        raise KeyError(number)

    def vote_bit(self, slot: int, ballot: int, value: int) -> int:
        """Return the bit of a vote."""
        return self._bit(("vote", slot, ballot, value), self.votes, (slot, ballot, value))

    def value_bit(self, slot: int, value: int) -> int:
        """Return the bit of a value in a slot."""
        return self._bit(("value", slot, value), self.values, (slot, value))

    def _message(self, receiver: int, incarnation: int, do: Do, key: Any) -> int:
        """Return the bit of a message; ``incarnation`` 0: whatever life of the receiver takes it."""
        bit = self._bits.get(key)
        if bit is None:
            number = len(self.messages)
            bit = self._bit(key, self.messages, (receiver, do))
            self.proposals.append(None)
            self.announced.append(0)
            self.served.append(0)
            if incarnation:
                place = (receiver, incarnation)
                self._addressed[place] = self._addressed.get(place, 0) | bit
            else:
                self._frames_to[receiver] |= bit
                self._describe(number, wire.view(do[1]))
        return bit

    def _describe(self, number: int, frame: wire.Frame) -> None:
        """Note what a frame claims, for the checks of the search."""
        if frame.kind in (wire.Kind.ACCEPT, wire.Kind.DECIDE, wire.Kind.PROMISE, wire.Kind.ACCEPTED):
            self.announced[number] = frame.mark
        if frame.kind == wire.Kind.CHOSEN:
            value = self.value_number(frame.detail, frame.payload)
            self.served[number] = self.value_bit(frame.slot, value)
        if frame.kind != wire.Kind.ACCEPT:
            return
        mine = (frame.slot, frame.ballot, self.value_number(frame.detail, frame.payload))
        self.proposals[number] = mine
        self.conflicts[number] = 0
        for other, proposal in enumerate(self.proposals):
            if proposal is not None and proposal[:2] == mine[:2] and proposal[2] != mine[2]:
                self.conflicts[number] |= 1 << other
                self.conflicts[other] |= 1 << number

    def addressed(self, local: Local) -> int:
        """Return the bits of all messages that this life of the node may take."""
        return self._frames_to[local.node] | self._addressed.get((local.node, local.incarnation), 0)

    # --- carrying out ----------------------------------------------------------------------------------------

    def _build(self, node: int, chain: Sequence[Do]) -> Replica:
        replica = self.replica_class(node, self.bounds.members, self.config, is_prompt=self.bounds.is_prompt)
        for do in chain:
            replica.take(do)
        return replica

    def step(self, local: Local, key: Any, do: Do) -> Step:
        """Return the outcome of ``do``, from the table or from the real node; ``key`` is its place in the table."""
        known = local.steps.get(key)
        if known is None:
            known = local.steps[key] = self._carry_out(local, do)
        return known

    def _carry_out(self, local: Local, do: Do) -> Step:
        replica = self._build(local.node, local.chain())
        effects = replica.take(do)
        self.executions += 1
        if self.checks_claims:
            claims.check(replica, effects, local.promised)
        other_way = self._other_ways.get(local)
        if other_way is not None:
            self._recheck(local, do, other_way, replica, effects)
        child = self._intern(local.node, replica, local, do)
        return Step(child, self._sent(replica, effects), effects.first_group)

    def _recheck(self, local: Local, do: Do, other_way: list[Do], replica: Replica, effects: Effects) -> None:
        """Hold ``local`` against another history with the same key: it must answer alike."""
        other = self._build(local.node, other_way)
        if self.heard(other.take(do)) != self.heard(effects) or other.key() != replica.key():
            raise AssertionError(
                f"two histories with one key differ at {do}: {local.chain()} and {other_way}"
            )
        self.rechecked += 1

    def heard(self, effects: Effects) -> Effects:
        """Return the effects without the frames that are lost anyway."""
        return effects._replace(
            frames=tuple(data for data in effects.frames if data[3] not in self.bounds.lost), synced=()
        )

    def _sent(self, replica: Replica, effects: Effects) -> int:
        sent = 0
        for data in effects.frames:
            frame = wire.view(data)
            if frame.kind in self.bounds.lost:
                continue
            if frame.kind == wire.Kind.ACCEPT and frame.slot > self.bounds.last_slot:
                continue
            sent |= self._message(frame.receiver, 0, ("frame", data), data)
        for intent in effects.intents:
            key = (replica.id, replica.incarnation, intent.ballot, intent.first_slot, tuple(intent.values))
            sent |= self._message(replica.id, replica.incarnation, ("lead", intent), key)
        return sent

    def _intern(self, node: int, replica: Replica, before: Local | None, do: Do | None) -> Local:
        key = (node, replica.key())
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._new_local(node, replica, before, do)
        elif before is not None and do is not None:
            self.merges += 1
            if self.merges % RECHECK_EVERY == 0 and known not in self._other_ways:
                self._other_ways[known] = [*before.chain(), do]
        return known

    def _new_local(self, node: int, replica: Replica, before: Local | None, do: Do | None) -> Local:
        votes = chosen = promised = 0
        best: dict[int, dict[int, int]] = {}
        for record in replica.disk:
            if record.kind == RecordKind.RECORD_PROMISE:
                promised = max(promised, record.ballot)
            elif record.kind == RecordKind.RECORD_ACCEPT:
                value = self.value_number(record.value_kind, record.value or b"")
                votes |= self.vote_bit(record.slot, record.ballot, value)
                best.setdefault(record.slot, {})[record.ballot] = value
                promised = max(promised, record.ballot)
            elif record.kind == RecordKind.RECORD_CHOSEN and record.slot > 1:
                value = self.value_number(record.value_kind, record.value or b"")
                chosen |= self.value_bit(record.slot, value)
        for slot, (kind, held) in enumerate(replica.log.values, 1):
            if slot > 1:
                chosen |= self.value_bit(slot, self.value_number(kind, held))
        acceptor = replica.engine.acceptor_role
        found = Local(
            node, len(self.locals[node]), replica.incarnation, before, do, promised, votes, chosen, best,
            len(replica.unsynced), tuple(self._own_inputs(replica)), replica.answered,
            (acceptor.stream_ballot, acceptor.stream_next),
        )  # fmt: skip
        self.locals[node].append(found)
        return found

    def _own_inputs(self, replica: Replica) -> Iterator[Do]:
        """Yield what may happen here without any message."""
        bounds = self.bounds
        if ballots.round_of(replica.next_ballot) <= FIRST_BALLOT_ROUND + bounds.rounds[replica.id - 1]:
            yield ("campaign",)
        if replica.id in bounds.clients and replica.may_offer:
            if replica.engine.glance()["next_slot"] <= bounds.last_slot:
                yield ("offer",)
        if replica.unsynced:
            yield ("flush",)

    def may_take(self, local: Local, number: int) -> bool:
        """Return False for what the bounds exclude.

        One life answers each ballot once; and where refusals are lost, an Accept that could only be refused is
        no event.
        """
        do = self.messages[number][1]
        if do[0] != "frame":
            return True
        frame = wire.view(do[1])
        if frame.kind == wire.Kind.PREPARE:
            return frame.ballot > local.promised or (frame.ballot == local.promised != local.answered)
        if (
            frame.kind == wire.Kind.ACCEPT
            and wire.Kind.NACK in self.bounds.lost
            and self.replica_class.refuses
        ):
            return frame.ballot == local.stream[0] and frame.slot <= local.stream[1]
        return True
