"""Nodes, disks and networks that each break one rule; the simulator must notice every one of them."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from paxos import messages
from paxos._core import codec
from paxos._core.effects import ChosenView, RecordView
from paxos.engine import Engine
from paxos.sim import wire
from paxos.sim.disk import MemoryDisk
from paxos.sim.history import RECORD_ACCEPT, RECORD_INCARNATION, RECORD_MARK, RECORD_PROMISE
from paxos.sim.invariants import d8_poisoned_is_silent
from paxos.sim.network import Network
from paxos.sim.node import Node
from paxos.sim.world import World

Kind = wire.Kind


def reseal(frame: wire.Frame, **changes: Any) -> wire.Frame:
    """Return the frame with some fields changed and valid checksums."""
    fields = codec.decode_frame(frame.data)
    fields.update(changes)
    return wire.view(codec.encode_frame(**fields))


# --- drivers -------------------------------------------------------------------------------------------------


class SendsBeforeSync(Node):
    """P1, P2: lets acknowledgements out between the append and the sync."""

    def synced(self) -> None:
        self.engine.durable(self.clock.read(self.world.now_us))
        self.send(self.engine.effects.take_send_after_sync())
        super().synced()


class ReusesIncarnation(Node):
    """P3: every start is the first one."""

    def _next_incarnation(self) -> int:
        return 1


class NumbersFromOne(Node):
    """S1: a new directory counts its starts from 1, like the one that it replaces."""

    def _next_incarnation(self) -> int:
        return 1 + max((r.slot for r in self.disk.durable if r.kind == RECORD_INCARNATION), default=0)


class VotesInQuarantine(Node):
    """h5, K4: a disk with damaged headers is replayed as if nothing had happened."""

    def build_engine(self) -> Engine:
        engine = super().build_engine()
        engine.quarantine = lambda reason: None
        return engine


class SyncsAgain(Node):
    """D8: after a failed sync the next one is believed, although the system has thrown the pages away."""

    def fail_disk(self) -> None:
        self.disk_error = False
        self.world.count("disk_error")
        self.disk.pending = []
        self.finish()


class TalksWhenPoisoned(Node):
    """D8: a disk error is noted, and the node goes on."""

    def fail_disk(self) -> None:
        self.world.count("disk_error")
        self.disk_error = False
        d8_poisoned_is_silent(
            self.id, self.engine.effects.take_send_after_sync(), bool(self.engine.is_leader)
        )
        self.synced()


class DropsWhenFull(Node):
    """D7: what a full disk did not take is forgotten, and acknowledged all the same."""

    def append(self, records: list[RecordView]) -> None:
        if self.disk_full_from <= self.world.now_us < self.disk_low_until:
            self.syncing = False
            self.finish()
        else:
            super().append(records)


class ForgetsPromises(Node):
    """P1: the promises on the disk are not read back."""

    def recover(self, records: list[RecordView]) -> None:
        for record in records:
            if record.kind in (RECORD_PROMISE, RECORD_MARK):
                record = record._replace(ballot=0)
            if record.kind != RECORD_ACCEPT:
                self.engine.recover_record(record)
        self.engine.recovered()


class AppliesTwice(Node):
    """Y2: hands every seventh slot to the state machine twice."""

    def apply(self, chosen: ChosenView) -> None:
        super().apply(chosen)
        if chosen.slot % 7 == 0:
            super().apply(chosen)


class LeadsWithoutRecovery(Node):
    """P6: throws away what phase 1 found."""

    def post(self, intent: Any) -> None:
        if isinstance(intent, messages.Lead):
            intent = messages.Lead(ballot=intent.ballot, first_slot=intent.first_slot, values=())
        super().post(intent)


class HidesVotes(Node):
    """P6, P13: the candidate sees promises without their entries."""

    def _to_control(self, frame: bytes) -> None:
        seen = wire.view(frame)
        if seen.kind == Kind.PROMISE:
            head = wire.PROMISE_HEAD.unpack_from(frame, wire.HEADER.size)
            empty = wire.PROMISE_HEAD.pack(head[0], head[1], head[2], head[3], 0, 0, head[6])
            frame = reseal(seen, payload=empty).data
        super()._to_control(frame)


class ForgetsChosenMark(Node):
    """h1: pages of promises arrive without their chosen_upto."""

    def _to_control(self, frame: bytes) -> None:
        seen = wire.view(frame)
        if seen.kind == Kind.PROMISE and seen.sender != self.id:
            frame = reseal(seen, mark=0).data
        super()._to_control(frame)


class ServesUnconfirmed(Node):
    """R1: a leader serves what it has applied, at once."""

    def _offer(self) -> None:
        super()._offer()
        if self.leads:
            self.reads._upto = self.reads._asked


class CountsAnyRound(Node):
    """h9, R3: an answer to whatever round of whatever life counts for the one that is open."""

    def _run(self, life: int, at_us: int) -> None:
        if self.up:
            self.inbox = deque(self._renumber(frame) for frame in self.inbox)
        super()._run(life, at_us)

    def _renumber(self, frame: bytes) -> bytes:
        seen = wire.view(frame)
        if seen.kind != Kind.PONG or not wire.pong(frame).read_round:
            return frame
        newest = self.engine.counters()["read_rounds"]
        pong = wire.pong(frame)._replace(read_round=newest, asker=self.incarnation)
        return reseal(seen, payload=wire.PONG.pack(*pong)).data


class ServesBeforeApplied(Node):
    """R6: a confirmed read is served whatever is applied."""

    def finish(self) -> None:
        self.reads._mark = 0
        super().finish()


# --- disks ---------------------------------------------------------------------------------------------------


class LosesSyncedRecords(MemoryDisk):
    """D1: a crash takes the last records although they were synced."""

    def crash(self, rng: random.Random, keep: int | None = None) -> list[RecordView]:
        kept = super().crash(rng, keep)
        if len(self.durable) > 4:
            del self.durable[-3:], self.claims[-3:]
        return kept


class Wiped(MemoryDisk):
    """S1: a crash empties the disk; the node comes back under its old name."""

    def crash(self, rng: random.Random, keep: int | None = None) -> list[RecordView]:
        super().crash(rng, 0)
        self.durable.clear()
        self.claims.clear()
        return []


class LosesWrites(MemoryDisk):
    """A vote now and then never reaches the disk, and the sync says that all is well."""

    def sync(self) -> list[RecordView]:
        for index, record in enumerate(self.pending):
            if record.kind == RECORD_ACCEPT and record.slot % 5 == 3:
                del self.pending[index]
                break
        return super().sync()


# --- networks ------------------------------------------------------------------------------------------------


class Tampering(Network):
    """Changes frames on their way, after the observer has seen them leave."""

    def send(self, frame: wire.Frame) -> None:
        super().send(self.tamper(frame))

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        raise NotImplementedError


class InflatesAccepted(Tampering):
    """D3, P10: an acknowledgement covers one slot more than was accepted."""

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind == Kind.ACCEPTED and frame.slot:
            return reseal(frame, slot=frame.slot + 1)
        return frame


class InflatesDecide(Tampering):
    """P9: a leader seems to announce more than is chosen."""

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind in (Kind.DECIDE, Kind.ACCEPT):
            return reseal(frame, mark=frame.mark + 2)
        return frame


class ChangesAccepts(Tampering):
    """P11: one follower gets another value at the same ballot and slot."""

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind == Kind.ACCEPT and frame.receiver == 2 and frame.detail == codec.ValueKind.BATCH:
            return reseal(frame, detail=int(codec.ValueKind.NOOP), payload=b"")
        return frame


class ChangesChosen(Tampering):
    """h4: a value learned as chosen is not the chosen one."""

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind == Kind.CHOSEN and frame.detail == codec.ValueKind.BATCH:
            return reseal(frame, detail=int(codec.ValueKind.NOOP), payload=b"")
        return frame


class HidesPromises(Tampering):
    """h8: answers to read rounds arrive without what their sender has promised."""

    def tamper(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind == Kind.PONG and wire.pong(frame.data).read_round:
            return reseal(frame, payload=wire.PONG.pack(*wire.pong(frame.data)._replace(promised=0)))
        return frame


def world_with(
    *,
    node: type[Node] = Node,
    disk: type[MemoryDisk] = MemoryDisk,
    network: type[Network] = Network,
) -> type[World]:
    """Return a world class with one part replaced."""
    return type("MutantWorld", (World,), {"node_class": node, "disk_class": disk, "network_class": network})
