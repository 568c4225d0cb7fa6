"""Nodes that each break one rule; the exploration must find what becomes of it, and say how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos._core.effects import RecordKind, RecordView
from paxos.messages import Send
from paxos.proposer import Proposer, Vote
from paxos.sim import wire
from paxos.sim.explore.replica import CLUSTER, Replica

Kind = wire.Kind


def changed(data: bytes, **changes: Any) -> bytes:
    """Return a frame with some fields changed and valid checksums."""
    return codec.encode_frame(**(codec.decode_frame(data) | changes))


class AcceptsBelowItsPromise(Replica):
    """P4: an Accept of a ballot that the node has promised not to serve is written all the same."""

    refuses = False

    def frame(self, data: bytes) -> None:
        seen = wire.view(data)
        if seen.kind == Kind.ACCEPT and seen.ballot < self.engine.acceptor_role.promised:
            crc = wire.HEADER.unpack_from(data)[15]
            self.disk.append(
                RecordView(
                    RecordKind.RECORD_ACCEPT, seen.detail, 0, seen.slot, seen.ballot, 0, crc,
                    len(self.disk) + 1, seen.payload,
                )
            )  # fmt: skip
        super().frame(data)


class ForgetsPromises(Replica):
    """P1: promises without a vote are not read back from the disk."""

    def recover(self) -> None:
        for record in self.disk:
            if record.kind != RecordKind.RECORD_PROMISE or self.incarnation == 1:
                self.engine.recover_record(record)
        self.engine.recovered()


class AnswersBeforeItsSync(Replica):
    """P1, P2: what waits for the disk leaves at once; the records become durable later, or never."""

    def write(self, records: list[RecordView]) -> None:
        self.unsynced += records


class CountsItselfBeforeItsSync(Replica):
    """P2: a leader counts its own vote before that is durable."""

    def write(self, records: list[RecordView]) -> None:
        for record in records:
            if record.kind == RecordKind.RECORD_ACCEPT and ballots.node_of(record.ballot) == self.id:
                self.unsynced.append(record)
            else:
                self.flush()
                self.disk.append(record)


class ReportsThePromiseAsItsVote(Replica):
    """P5: one ballot stands for what was promised and for what was accepted."""

    reported_ballot = 0

    def unnumbered(self, data: bytes) -> bytes:
        seen = wire.view(data)
        if seen.sender == self.id and seen.kind == Kind.PROMISE:
            head = data[wire.HEADER.size : wire.HEADER.size + wire.PROMISE_HEAD.size]
            entries = wire.PROMISE_ENTRY.iter_unpack(seen.payload[wire.PROMISE_HEAD.size :])
            payload = head + b"".join(
                wire.PROMISE_ENTRY.pack(slot, seen.ballot, *rest) for slot, _, *rest in entries
            )
            data = changed(data, payload=payload)
        elif seen.sender == self.id and seen.kind == Kind.FETCHED:
            data = changed(data, ballot=self.reported_ballot)
        return super().unnumbered(data)

    def _held(self, data: bytes) -> bytes:
        """Return a Fetch of what was reported as a Fetch of what is held."""
        seen = wire.view(data)
        if seen.kind != Kind.FETCH or seen.receiver != self.id:
            return data
        self.reported_ballot = seen.ballot
        return changed(data, ballot=self.engine.inspect()["accepted"][seen.slot][0])

    def frame(self, data: bytes) -> None:
        super().frame(self._held(data))

    def _act(self, intents: Sequence[Any]) -> None:
        super()._act([Send(frame=self._held(i.frame)) if isinstance(i, Send) else i for i in intents])


class WithProposer(Replica):
    """A node with another phase 1."""

    proposer_class: type[Proposer]

    def recover(self) -> None:
        self.engine.proposer_role.__class__ = self.proposer_class
        super().recover()


class FirstReported(Proposer):
    def _votes_at(self, slot: int) -> tuple[int, list[tuple[int, int, Vote]]]:
        sound, votes = super()._votes_at(slot)
        return sound, votes[:1]


class TakesTheFirstReported(WithProposer):
    """P7: phase 1 takes the vote that came first instead of the one at the highest ballot."""

    proposer_class = FirstReported


class Impatient(Proposer):
    def start_phase_1(self, ballot: int, members: frozenset[int], *, needs_all: bool = False) -> None:
        super().start_phase_1(ballot, members, needs_all=needs_all)
        self.prepare_size = 1


class NeedsNobody(WithProposer):
    """P10: a quorum of one in phase 1."""

    proposer_class = Impatient


class BelievesTheMark(Replica):
    """P9: a follower takes whatever it holds for chosen when a leader says "chosen up to k"."""

    def frame(self, data: bytes) -> None:
        super().frame(data)
        seen = wire.view(data)
        if seen.kind not in (Kind.DECIDE, Kind.ACCEPT):
            return
        held = self.engine.inspect()["accepted"]
        for slot in range(self.engine.glance()["known_upto"] + 1, seen.mark + 1):
            records = [r for r in self.disk if r.kind == RecordKind.RECORD_ACCEPT and r.slot == slot]
            if slot in held and records:
                value = records[-1]
                super().frame(
                    codec.encode_frame(
                        Kind.CHOSEN, sender=seen.sender, receiver=self.id, cluster=CLUSTER, mark=slot, slot=slot,
                        incarnation=seen.incarnation, detail=value.value_kind, payload=value.value or b"",
                    )
                )  # fmt: skip
