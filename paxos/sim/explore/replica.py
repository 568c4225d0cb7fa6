"""One real node outside of time: the production engine and control plane, driven input by input.

The simulator's nodes live in virtual time; here there is none. An *input* is what may happen to a node next:
a frame or a late intent arrives, its control thread decides to campaign, a client offers a batch, power is
lost. What follows from it (records, sync, frames, the control thread's answer to what the node tells itself)
is carried out at once, in the order of ``_core/effects.pxd``.

A node is a function of the inputs it took since its first start, so it can be built again from them, and two
nodes are the same when :meth:`Replica.key` is the same.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from paxos._core import ballot as ballots
from paxos._core import codec, witness
from paxos._core.crc32c import checksum
from paxos._core.effects import ChosenView, RecordKind, RecordView
from paxos.control import Control
from paxos.engine import Engine
from paxos.membership import Configuration, Member
from paxos.messages import Lead
from paxos.sim import wire
from paxos.sim.snapshot import MemoryLog
from paxos.types import Config

CLUSTER = 0x5EED
NOW_US = 1_000_000
"""The one moment at which everything happens: no timer ever runs out by itself."""
LATER_US = NOW_US + 3_600_000_000
"""Long enough after it for any attempt to be over."""
FIRST_BALLOT_ROUND = 1
HELLO = struct.Struct("<HHI16s")
SUMMARY = struct.Struct("<QQQQQQQIHHQ")

CLIENT_COMMANDS = {1: b"A", 2: b"B", 3: b"C"}
"""What clients propose at which node."""

NEVER_DECIDES = frozenset(
    {
        *(
            "election",
            "_attempt_until_us",
            "_resend_at_us",
            "_reclaim_at_us",
            "_last_reclaim_us",
            "_asked_us",
        ),
        *("_promised", "_led_ballot"),
        *("_handlers", "_log", "_frame_fields", "proposer", "learner"),
    }
)
"""Attributes of the control plane that decide only *when* something is tried, are told anew before each campaign,
or never change."""
OF_AN_ATTEMPT = frozenset({"promises", "values", "unsound", "asked", "members", "prepare_size", "needs_all"})
"""What a proposer forgets when it begins phase 1, and does not look at before."""


class Effects(NamedTuple):
    """What one input led to.

    Attributes:
        frames: for other nodes, as they leave.
        intents: to lead, on their way from the control thread to the reactor.
        synced: records that became durable, and how many of them were written in the first group.
        applied: slots handed to the application.
    """

    frames: tuple[bytes, ...]
    intents: tuple[Lead, ...]
    synced: tuple[RecordView, ...]
    first_group: int
    applied: tuple[tuple[int, int, bytes], ...]


class PowerLoss(Exception):
    """Power is lost between an append and its sync."""


def storage_of(node_id: int) -> bytes:
    """Return the storage UUID of a node."""
    return node_id.to_bytes(2, "big") * 8


def first_configuration(members: Sequence[int]) -> bytes:
    """Return the value of slot 1: who the members are, bound to their disks."""
    size = len(members) // 2 + 1
    bound = {node: Member(address=f"sim://{node}", storage=storage_of(node)) for node in members}
    return Configuration(members=bound, prepare_size=size, accept_size=size).encode()


def first_disk(members: Sequence[int]) -> list[RecordView]:
    """Return what every disk holds at the beginning: slot 1 is chosen, its leader is gone."""
    ballot = ballots.make(FIRST_BALLOT_ROUND, members[-1])
    value = first_configuration(members)
    crc = checksum(value)
    kinds = RecordKind
    return [
        RecordView(kinds.RECORD_INCARNATION, 0, 0, 1, 0, 0, 0, 1, None),
        RecordView(kinds.RECORD_PROMISE, 0, 0, 0, ballot, 0, 0, 2, None),
        RecordView(
            kinds.RECORD_CHOSEN, codec.ValueKind.CONFIGURATION, 0, 1, wire.BALLOT_CHOSEN, 0, crc, 3, value
        ),
    ]


def frozen(value: Any) -> Any:
    """Return plain, hashable data that is equal exactly when ``value`` is equal."""
    if isinstance(value, dict):
        return tuple(sorted((frozen(key), frozen(item)) for key, item in value.items()))
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(frozen(item) for item in value))
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if value is None or isinstance(value, (int, bytes, str, float)):
        return value
    names = getattr(type(value), "__slots__", None) or vars(value)
    return (type(value).__name__, *(frozen(getattr(value, name)) for name in names))


class NoLuck(random.Random):
    """Randomness that always says the same: it decides nothing but waiting times here."""

    def random(self) -> float:
        """Return 0."""
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        """Return 0."""
        return 0


class Replica:
    """One node: its disk, and the engine and control plane that run on it.

    Args:
        node_id: of this node.
        members: of the cluster.
        config: limits.
        is_prompt: an intent to lead is carried out when it is made.

    Attributes:
        refuses: frames below the promise change nothing but what is answered. (Not so in some mutants.)
    """

    refuses = True

    def __init__(
        self, node_id: int, members: Sequence[int], config: Config, *, is_prompt: bool = False
    ) -> None:
        self.id = node_id
        self.members = tuple(members)
        self.config = config
        self.is_prompt = is_prompt
        self.disk = first_disk(self.members)
        self.unsynced: list[RecordView] = []
        self.incarnation = 1
        self.start()

    def start(self) -> None:
        """Begin a life on the disk; the first frames of it are in :meth:`take`'s next effects."""
        self.incarnation = max(r.slot for r in self.disk if r.kind == RecordKind.RECORD_INCARNATION)
        self.engine = Engine(
            self.id,
            CLUSTER,
            self.incarnation,
            storage_of(self.id),
            dict.fromkeys(self.members, None),
            self.config,
        )
        self.log = MemoryLog()
        self.control = Control(
            node_id=self.id,
            cluster=CLUSTER,
            incarnation=self.incarnation,
            members={member: f"sim://{member}" for member in self.members},
            proposer=self.engine.proposer_role,
            learner=self.engine.learner_role,
            log=self.log,
            config=self.config,
            random=NoLuck(),
        )
        self.has_offered = False
        self.answered = 0
        self._clear()
        self.recover()
        self.settle()
        # The first life of every node is known to all; a later one must introduce itself.
        for member in self.members:
            if member != self.id:
                self.engine.step(hello(member, self.id, 1), NOW_US)
        self.settle()
        if self.incarnation > 1:
            for member in self.members:
                if member != self.id:
                    self._frames.append(hello(self.id, member, self.incarnation))

    def _clear(self) -> None:
        self._frames: list[bytes] = []
        self._intents: list[Lead] = []
        self._synced: list[RecordView] = []
        self._applied: list[tuple[int, int, bytes]] = []
        self._first_group = 0
        self._power_lost_after: int | None = None

    def recover(self) -> None:
        """Replay the disk."""
        for record in self.disk:
            self.engine.recover_record(record)
        self.engine.recovered()

    # --- inputs: each of these methods is one, down to flush ----------------------------------------------

    def take(self, do: tuple[Any, ...]) -> Effects:
        """Carry out one input, ``(method, argument, ...)``; return what it led to."""
        self._clear()
        getattr(self, do[0])(*do[1:])
        return self._effects()

    def _effects(self) -> Effects:
        return Effects(
            tuple(self._frames),
            tuple(self._intents),
            tuple(self._synced),
            self._first_group,
            tuple(self._applied),
        )

    def frame(self, data: bytes) -> None:
        """A frame arrives."""
        self.engine.step(data, NOW_US)
        self.settle()

    def lead(self, intent: Lead) -> None:
        """An intent of this life arrives at the reactor: late, or not for the first time."""
        self.engine.act(intent)
        self.settle()

    def campaign(self) -> None:
        """The control thread begins phase 1; an attempt that is under way is given up first."""
        intents = self.control.on_frame(self.summary(), NOW_US)
        if self.control.proposer.candidate_ballot:
            intents += self.control.tick(LATER_US)
        start = codec.encode_frame(codec.FrameKind.TRANSFER, sender=self.id, receiver=self.id)
        intents += self.control.on_frame(start, NOW_US)
        self._act(intents)
        self.settle()

    def summary(self) -> bytes:
        """Return what the reactor tells the control thread at the close of a heartbeat round."""
        seen = self.engine.glance()
        payload = SUMMARY.pack(
            0, seen["promised"], seen["chosen_upto"], seen["ballot"], seen["leader_ballot"], 0,
            seen["config_slot"], codec.RoundFlag.ROUND_VOTES, 0, 0, 0,
        )  # fmt: skip
        return codec.encode_frame(
            codec.FrameKind.ROUND_CLOSED, sender=self.id, receiver=self.id, payload=payload
        )

    def offer(self) -> None:
        """A client proposes this node's command here."""
        value = codec.encode_batch(
            [CLIENT_COMMANDS[self.id]], origin=self.id, incarnation=self.incarnation, first_ticket=1
        )
        self.has_offered = True
        self.engine.offer_batch(value)
        self.settle()

    def restart(self, keep: int) -> None:
        """Power is lost at rest, ``keep`` of what is not synced survives, and the node starts again."""
        self.disk += self.unsynced[:keep]
        self.unsynced = []
        self.disk.append(
            RecordView(
                RecordKind.RECORD_INCARNATION, 0, 0, self.incarnation + 1, 0, 0, 0, len(self.disk) + 1, None
            )
        )
        self.start()

    def crash(self, keep: int, do: tuple[Any, ...]) -> None:
        """Power is lost while the first records of another input are written; ``keep`` of them survive."""
        self._power_lost_after = keep
        try:
            getattr(self, do[0])(*do[1:])
        except PowerLoss:
            sent = self._frames
            self.restart(0)
            self._frames = sent + self._frames
            return
        raise AssertionError(f"{do} wrote nothing")

    def flush(self) -> None:
        """What a node that does not wait for its disk has written becomes durable."""
        self._synced += self.unsynced
        self.disk += self.unsynced
        self.unsynced = []

    @property
    def may_offer(self) -> bool:
        """True if a client's command would be proposed here now, for the first time in this life."""
        return self.incarnation == 1 and not self.has_offered and self.engine.is_leader and self.engine.room

    @property
    def next_ballot(self) -> int:
        """The ballot of the next campaign: above all that this node promised or was refused with."""
        seen = vars(self.control)
        promised = self.engine.acceptor_role.promised
        return ballots.next_above(max(promised, seen["_promised"], seen["_highest_seen"]), self.id)

    # --- effects, in order -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out effects until there are none; the control thread answers at once what concerns it."""
        ready = self.engine.effects
        while True:
            self.send(ready.take_send_now())
            records = ready.records
            if records:
                self.write(records)
            self.engine.durable(NOW_US)
            self.send(ready.take_send_after_sync())
            self.send(ready.take_send_now())
            for chosen in ready.take_chosen():
                self.apply(chosen)
            cold = ready.take_cold()
            for data in cold:
                self._act(self.control.on_frame(self.unnumbered(data), NOW_US))
            if ready.is_empty and not cold:
                return

    def write(self, records: list[RecordView]) -> None:
        """Append and sync a group of records, unless power is lost in between."""
        placed = []
        for index, record in enumerate(records):
            position = len(self.disk) + 1 + index
            self.engine.effects.set_position(index, position)
            placed.append(record._replace(position=position))
        if self._power_lost_after is not None:
            self.disk += placed[: self._power_lost_after]
            raise PowerLoss
        self._first_group = self._first_group or len(placed)
        self.disk += placed
        self._synced += placed

    def send(self, frames: list[tuple[int, bytes]]) -> None:
        """Let frames leave."""
        self._frames += [self.unnumbered(data) for _, data in frames]

    def unnumbered(self, data: bytes) -> bytes:
        """Return a promise without the running number of its report.

        The number tells two reports at one ballot apart, and within the bounds of an exploration one life
        answers each ballot once. With it, nodes that differ in nothing but old promises would not be equal.
        """
        if data[3] != codec.FrameKind.PROMISE:
            return data
        fields = codec.decode_frame(data)
        if fields["sender"] == self.id:
            self.answered = fields["ballot"]
        head = list(wire.PROMISE_HEAD.unpack_from(fields["payload"]))
        head[5] = 1
        fields["payload"] = wire.PROMISE_HEAD.pack(*head) + fields["payload"][wire.PROMISE_HEAD.size :]
        return codec.encode_frame(**fields)

    def apply(self, chosen: ChosenView) -> None:
        """Hand one chosen slot to the application."""
        value = chosen.value or b""
        self.log.values.append((chosen.kind, value))
        self._applied.append((chosen.slot, chosen.kind, value))

    def _act(self, intents: Sequence[Any]) -> None:
        """Let the reactor act; an intent to lead takes its time and may come late, twice or never."""
        for intent in intents:
            if isinstance(intent, Lead) and not self.is_prompt:
                self._intents.append(intent)
            else:
                self.engine.act(intent)

    # --- identity --------------------------------------------------------------------------------------------

    def key(self) -> tuple[Any, ...]:
        """Return everything that decides what this node does next, and what its disk has held.

        Of the disk, what counts is the highest promise and mark and which votes were ever cast, not their order.
        """
        marks = [0, 0, 0]
        held = set()
        for record in self.disk:
            if record.kind == RecordKind.RECORD_ACCEPT or record.kind == RecordKind.RECORD_CHOSEN:
                held.add((record.slot, record.ballot, record.value_crc))
            elif record.kind == RecordKind.RECORD_PROMISE:
                marks[0] = max(marks[0], record.ballot)
            else:
                marks[1] = max(marks[1], record.slot)
            marks[2] = max(marks[2], record.mark)
        control, proposer = self.control, self.control.proposer
        tries = proposer.candidate_ballot != 0
        own = [
            frozen(value)
            for thing in (control, proposer, control.learner)
            for name, value in sorted(vars(thing).items())
            if name not in NEVER_DECIDES and (tries or name not in OF_AN_ATTEMPT)
        ]
        return (
            tuple(marks),
            frozenset(held),
            tuple((r.kind, r.slot, r.ballot, r.mark, r.value_crc) for r in self.unsynced),
            self.has_offered,
            self.answered,
            tuple(self.log.values),
            witness.state(self.engine),
            tuple(own),
        )


def hello(sender: int, receiver: int, incarnation: int) -> bytes:
    """Return the frame with which a life of a node introduces itself."""
    return codec.encode_frame(
        codec.FrameKind.HELLO,
        sender=sender,
        receiver=receiver,
        cluster=CLUSTER,
        incarnation=incarnation,
        payload=HELLO.pack(1, 1, 0, storage_of(sender)),
    )
