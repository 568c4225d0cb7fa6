"""A slot whose value rotted on disk: it is reported as damaged, never as empty and never as an older value."""

from __future__ import annotations

from typing import Any

from paxos._core import ballot as ballots
from paxos._core.codec import FrameKind, PromiseFlag, ValueKind, decode_frame, encode_frame
from paxos._core.effects import RecordKind, RecordView
from paxos.engine import Engine
from paxos.messages import PROMISE_ENTRY, PROMISE_HEAD, Campaign
from paxos.types import Config

FIRST = ballots.make(1, 2)
SECOND = ballots.make(2, 2)
OWN = ballots.make(3, 1)


def record(kind: int, slot: int, ballot: int, value: bytes | None = None, mark: int = 0) -> RecordView:
    return RecordView(int(kind), int(ValueKind.BATCH), 0, slot, ballot, mark, 0, 0, value)


def damaged(kind: int, slot: int, ballot: int, mark: int = 0) -> RecordView:
    """Return a record as the log hands it on when its header is good and its value is not."""
    return record(kind, slot, ballot, mark=mark)._replace(length=9)


def recovered(*records: RecordView) -> Any:
    engine = Engine(1, 7, 2, bytes(16), {1: None, 2: None, 3: None}, Config())
    for item in records:
        engine.recover_record(item)
    engine.recovered()
    return engine


def reported(engine: Any) -> dict[int, tuple[int, bool]]:
    """Let the node campaign, and return its own promise: slot to (ballot, damaged)."""
    engine.act(Campaign(ballot=OWN, from_slot=1))
    engine.durable(0)
    (page,) = (
        fields["payload"]
        for fields in map(decode_frame, engine.effects.take_cold())
        if fields["kind"] == FrameKind.PROMISE
    )
    return {
        slot: (ballot, bool(flags & PromiseFlag.ENTRY_DAMAGED))
        for slot, ballot, _length, _crc, _kind, flags, _reserved in PROMISE_ENTRY.iter_unpack(
            page[PROMISE_HEAD.size :]
        )
    }


def test_h6_a_damaged_slot_is_listed_in_the_promise() -> None:
    engine = recovered(
        record(RecordKind.RECORD_ACCEPT, 1, FIRST, b"x"), damaged(RecordKind.RECORD_ACCEPT, 2, FIRST)
    )
    assert reported(engine) == {1: (FIRST, False), 2: (FIRST, True)}


def test_k2_no_older_record_stands_in_for_a_damaged_one() -> None:
    engine = recovered(
        record(RecordKind.RECORD_ACCEPT, 1, FIRST, b"old"), damaged(RecordKind.RECORD_ACCEPT, 1, SECOND)
    )
    assert reported(engine) == {1: (SECOND, True)}


def test_h7_a_damaged_accept_still_says_what_was_promised() -> None:
    assert recovered(damaged(RecordKind.RECORD_ACCEPT, 1, SECOND)).glance()["promised"] == SECOND


def test_a_damaged_chosen_record_is_no_promise_and_ends_the_chosen_prefix() -> None:
    engine = recovered(
        record(RecordKind.RECORD_CHOSEN, 1, ballots.CHOSEN, b"x"),
        damaged(RecordKind.RECORD_CHOSEN, 2, ballots.CHOSEN, mark=1),
        record(RecordKind.RECORD_CHOSEN, 3, ballots.CHOSEN, b"y", mark=2),
    )
    glance = engine.glance()
    assert (glance["promised"], glance["chosen_upto"]) == (0, 1)


def test_k2_a_later_record_of_the_slot_heals_it() -> None:
    later = record(RecordKind.RECORD_ACCEPT, 1, SECOND, b"new")
    assert reported(recovered(damaged(RecordKind.RECORD_ACCEPT, 1, FIRST), later)) == {1: (SECOND, False)}
    assert reported(recovered(damaged(RecordKind.RECORD_CHOSEN, 1, ballots.CHOSEN), later)) == {
        1: (SECOND, False)
    }


def test_h24_the_chosen_value_from_a_peer_heals_a_damaged_slot() -> None:
    engine = recovered(damaged(RecordKind.RECORD_ACCEPT, 1, FIRST))
    hello = encode_frame(
        FrameKind.HELLO, sender=2, receiver=1, cluster=7, incarnation=1,
        payload=(1).to_bytes(2, "little") * 2 + bytes(4) + bytes(16),
    )  # fmt: skip
    chosen = encode_frame(
        FrameKind.CHOSEN, sender=2, receiver=1, cluster=7, incarnation=1, slot=1, mark=1,
        detail=int(ValueKind.NOOP),
    )  # fmt: skip
    engine.step(hello, 0)
    engine.step(chosen, 0)
    assert [view.kind for view in engine.effects.records] == [RecordKind.RECORD_CHOSEN]
    engine.durable(0)
    assert engine.glance()["chosen_upto"] == 1
