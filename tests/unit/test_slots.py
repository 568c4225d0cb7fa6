"""The window of slots that a node holds, seen through the roles that fill it (G9)."""

from __future__ import annotations

import pytest

from paxos._core import ballot as ballots
from paxos._core.codec import ValueKind
from paxos._core.slots import SlotTable
from paxos.types import Config
from tests.unit.engine_kit import KIND, Node, batch, frame
from tests.unit.test_acceptor import acceptor, reported, stream

LOW, HIGH = ballots.make(1, 1), ballots.make(2, 3)


def test_an_empty_table_holds_nothing() -> None:
    table = SlotTable()
    assert (table.base, table.top, table.held_bytes, table.held()) == (1, 0, 0, {})


@pytest.mark.parametrize("count", [255, 256, 257, 1000])
def test_growing_loses_no_slot(count: int) -> None:
    """The ring doubles at 256, 512, ...: every vote is still where it was."""
    role = acceptor(10_000)
    stream(role, LOW, 1, *(b"%d" % slot for slot in range(1, count + 1)))
    held = role.slots.held()
    assert [held[slot][2] for slot in range(1, count + 1)] == [b"%d" % s for s in range(1, count + 1)]
    assert set(reported(role)) == set(range(1, count + 1))


def test_a_jump_over_the_end_of_the_ring_keeps_what_was_there() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"1", b"2")
    stream(role, HIGH, 5000, b"far")
    assert set(role.slots.held()) == {1, 2, 5000} and role.slots.top == 5000


def test_the_bytes_held_are_counted_through_replacement() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"12345", b"")
    assert role.slots.held_bytes == 5
    stream(role, HIGH, 1, b"123")
    assert role.slots.held_bytes == 3 and role.slots.held()[2][2] is None


@pytest.mark.parametrize("slot", [(1 << 22) + 1, 2**32, 2**63, 2**64 - 1])
def test_g9_a_slot_beyond_the_table_is_not_held(slot: int) -> None:
    role = acceptor()
    stream(role, LOW, slot, b"x")
    assert role.slots.held() == {} and role.slots.top == 0


def chosen(node: Node, count: int, size: int = 20) -> None:
    for slot in range(node.chosen_upto + 1, node.chosen_upto + count + 1):
        node.step(
            frame(
                KIND.CHOSEN, 2, 1, slot=slot, mark=slot, detail=ValueKind.BATCH,
                payload=batch(2, slot, b"x" * size),
            )
        )  # fmt: skip


def test_g9_chosen_slots_are_let_go_by_count() -> None:
    node = Node(1, config=Config(window_slots=4)).greet()
    chosen(node, 300)
    assert node.chosen_upto == 300 and len(node.accepted) <= 17 and node.slots_base >= 284


def test_g9_chosen_slots_are_let_go_by_bytes() -> None:
    node = Node(1, config=Config(retained_bytes_max=1000)).greet()
    chosen(node, 100, 200)
    assert node.held_bytes <= 1000 and node.chosen_upto == 100


def test_g9_a_follower_takes_no_more_unchosen_bytes_than_it_may() -> None:
    node = Node(1, config=Config(unchosen_bytes_max=500)).greet()
    ballot = ballots.make(1, 2)
    node.step(frame(KIND.OPEN, 2, 1, ballot=ballot, slot=1))
    for slot in range(1, 50):
        node.step(
            frame(
                KIND.ACCEPT, 2, 1, ballot=ballot, slot=slot, detail=ValueKind.BATCH,
                payload=batch(2, slot, b"x" * 50),
            )
        )  # fmt: skip
    assert node.held_bytes <= 700 and node.engine.counters()["refused_accepts"] > 0


def test_a_slot_that_was_let_go_is_counted_and_not_stored_again() -> None:
    """Section 2: a leader may re-propose what this node forgot; the vote counts, the value is on disk."""
    node = Node(1, config=Config(window_slots=1)).greet()
    chosen(node, 50)
    ballot = ballots.make(9, 2)
    before = len(node.disk)
    node.step(frame(KIND.OPEN, 2, 1, ballot=ballot, slot=1))
    answers = node.step(
        frame(
            KIND.ACCEPT, 2, 1, ballot=ballot, slot=1, detail=ValueKind.BATCH, payload=batch(2, 1, b"x" * 20)
        )
    )
    assert [f["slot"] for f in answers if f["kind"] == KIND.ACCEPTED] == [1]
    assert len(node.disk) == before + 1  # the promise


def test_l4_a_follower_asks_for_what_it_refused_as_soon_as_there_is_room() -> None:
    """A full follower costs no heartbeat rounds: the leader is told the slot from which to send again."""
    node = Node(1, config=Config(unchosen_bytes_max=100)).greet()
    ballot = ballots.make(1, 2)
    node.step(frame(KIND.OPEN, 2, 1, ballot=ballot, slot=1))
    sent = [
        frame(
            KIND.ACCEPT, 2, 1, ballot=ballot, slot=slot, detail=ValueKind.BATCH, payload=batch(2, slot, b"x" * 50)
        )
        for slot in range(1, 6)
    ]  # fmt: skip
    node.step(*sent)
    refused = node.engine.glance()["stream_next"]
    assert refused < 6
    node.step(frame(KIND.DECIDE, 2, 1, ballot=ballot, mark=refused - 1))
    [asked] = [f for f in node.step() if f["kind"] == KIND.NACK]
    assert (asked["slot"], asked["receiver"], asked["ballot"]) == (refused, 2, ballot)
    assert node.step() == []
