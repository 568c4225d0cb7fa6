"""A new leader that already holds some of the recovered values as chosen, out of order."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from paxos import messages
from paxos._core import ballot as ballots
from paxos._core import codec, crc32c
from paxos._core.effects import RecordView
from paxos.engine import Engine
from paxos.sim.history import BATCH, NOOP, RECORD_ACCEPT, RECORD_CHOSEN, RECORD_PROMISE
from paxos.sim.scenario import QUICK
from paxos.sim.wire import Kind

CLUSTER = 7
OLD, BALLOT = ballots.make(1, 1), ballots.make(2, 1)


def batch(ticket: int) -> bytes:
    return codec.encode_batch([b"command"], origin=2, incarnation=1, first_ticket=ticket)


def frame(kind: int, **fields: object) -> bytes:
    return codec.encode_frame(kind, sender=2, receiver=1, cluster=CLUSTER, incarnation=1, **fields)


@pytest.mark.parametrize("window", [1, 2, 3, 1024])
def test_slots_already_held_as_chosen_are_skipped_not_proposed(window: int) -> None:
    config = replace(QUICK, window_slots=window, retained_bytes_max=1)
    members: dict[int, bytes | None] = dict.fromkeys([1, 2, 3])
    engine = Engine(1, CLUSTER, 2, bytes(16), members, config)
    engine.recover_record(RecordView(RECORD_PROMISE, 0, 0, 0, OLD, 0, 0, 1, None))
    engine.recover_record(RecordView(RECORD_ACCEPT, NOOP, 0, 1, OLD, 0, 0, 2, None))
    for slot in (2, 3):
        value = batch(slot - 1)
        record = RecordView(
            RECORD_CHOSEN, BATCH, 0, slot, (1 << 64) - 1, 0, crc32c.checksum(value), slot + 1, value
        )
        engine.recover_record(record)
    engine.recovered()
    engine.durable(0)
    engine.step(frame(Kind.HELLO, payload=struct.pack("<HHI16s", 1, 1, 0, bytes([2]) * 16)), 10)
    engine.act(messages.Campaign(ballot=BALLOT, from_slot=1))
    engine.durable(20)
    values = [(NOOP, b""), (BATCH, batch(1)), (BATCH, batch(2))]
    engine.act(messages.Lead(ballot=BALLOT, first_slot=1, values=values))
    for _ in range(8):
        engine.durable(30)
        engine.step(frame(Kind.ACCEPTED, ballot=BALLOT, slot=engine.glance()["stream_next"] - 1), 40)
    assert engine.fault_code == 0
    assert engine.is_leader
    seen = engine.glance()
    assert (seen["chosen_upto"], seen["next_slot"], seen["last_index"]) == (4, 5, 2)
