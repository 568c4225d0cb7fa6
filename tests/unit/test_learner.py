"""The learner: when a value is chosen (Lamport, section 2.3; protocol section 5)."""

from __future__ import annotations

import pytest

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos.learner import BURST_SLOTS, Learner, Range
from paxos.messages import PROMISE_ENTRY, PROMISE_HEAD
from tests.unit.engine_kit import KIND, Node, batch, frame, hello, ping

BATCH = codec.ValueKind.BATCH
OLD, NEW = ballots.make(1, 2), ballots.make(2, 3)


def following(ballot: int = OLD, start: int = 1) -> Node:
    node = Node(1).greet()
    node.step(frame(KIND.OPEN, ballots.node_of(ballot), 1, ballot=ballot, slot=start))
    return node


def accept(node: Node, ballot: int, slot: int, value: bytes, chosen: int = 0) -> None:
    sender = ballots.node_of(ballot)
    node.step(
        frame(KIND.ACCEPT, sender, 1, ballot=ballot, slot=slot, detail=BATCH, mark=chosen, payload=value)
    )


def decide(node: Node, ballot: int, upto: int) -> None:
    node.step(frame(KIND.DECIDE, ballots.node_of(ballot), 1, ballot=ballot, mark=upto))


# ---- counting -----------------------------------------------------------------------------------------------------


def test_i3_a_quorum_at_one_ballot_chooses() -> None:
    learner = Learner.alone(1, (1, 2, 3, 4, 5))
    learner.expect(OLD, 1)
    assert [learner.vote(member, OLD, 4) for member in (1, 2)] == [False, False]
    assert learner.vote(3, OLD, 2) and learner.counted_upto == 2
    assert learner.vote(3, OLD, 9) and learner.counted_upto == 4


def test_p10_votes_of_different_ballots_never_add_up() -> None:
    learner = Learner.alone(1, (1, 2, 3))
    learner.expect(OLD, 1)
    learner.vote(1, OLD, 5)
    assert not learner.vote(2, NEW, 5) and learner.counted_upto == 0
    learner.expect(NEW, 1)
    assert not learner.vote(2, NEW, 5) and learner.counted_upto == 0


def test_p10_duplicates_and_strangers_do_not_count() -> None:
    learner = Learner.alone(1, (1, 2, 3))
    learner.expect(OLD, 1)
    assert not any(learner.vote(member, OLD, 5) for member in (1, 1, 9, 1, 0))
    assert learner.counted_upto == 0


def test_a_late_lower_mark_takes_nothing_back() -> None:
    """I5: a reordered Accepted changes nothing."""
    learner = Learner.alone(1, (1, 2, 3))
    learner.expect(OLD, 1)
    learner.vote(1, OLD, 5)
    learner.vote(2, OLD, 5)
    assert not learner.vote(2, OLD, 3) and learner.counted_upto == 5


# ---- what a follower believes ---------------------------------------------------------------------------------------


def test_an_announced_value_of_the_stream_is_chosen() -> None:
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"a"))
    assert node.commands == []
    decide(node, OLD, 1)
    assert node.commands == [b"a"] and node.chosen_upto == 1


def test_a_ping_of_the_leader_announces_too() -> None:
    """L8: a lost Decide is made up for by the next round."""
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"a"))
    node.step(ping(2, 1, ballot=OLD, chosen=1, leads=True))
    assert node.commands == [b"a"]


def test_p9_a_value_of_an_older_ballot_is_not_chosen_by_an_announcement() -> None:
    """P9: what lies below the new leader's stream may be another value; it has to be fetched."""
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"stale"))
    node.step(frame(KIND.OPEN, 3, 1, ballot=NEW, slot=2))
    decide(node, NEW, 1)
    assert node.commands == [] and node.chosen_upto == 0
    node.step(frame(KIND.CHOSEN, 3, 1, slot=1, mark=1, detail=BATCH, payload=batch(3, 1, b"right")))
    assert node.commands == [b"right"]


def test_p9_an_announcement_of_an_older_leader_is_not_heeded() -> None:
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"stale"))
    node.step(frame(KIND.OPEN, 3, 1, ballot=NEW, slot=1))
    decide(node, OLD, 1)
    assert node.chosen_upto == 0


def test_p9_an_announcement_reaches_no_further_than_what_is_held() -> None:
    node = following()
    decide(node, OLD, 2**64 - 1)
    accept(node, OLD, 1, batch(2, 1, b"a"))
    assert node.chosen_upto == 1


def test_h4_a_learned_value_replaces_the_vote_and_survives_a_restart() -> None:
    """h4: written as chosen, above every ballot, and reported so."""
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"stale"))
    node.step(frame(KIND.CHOSEN, 3, 1, slot=1, mark=1, detail=BATCH, payload=batch(3, 1, b"right")))
    accept(node, OLD, 2, batch(2, 1, b"next"))  # its record carries the mark
    node.start()
    assert node.engine.inspect()["accepted"][1][0] == ballots.CHOSEN
    assert node.commands == [b"right"]


def test_h3_nothing_is_handed_on_before_it_is_durable() -> None:
    node = following()
    node.engine.step(
        frame(KIND.ACCEPT, 2, 1, ballot=OLD, slot=1, detail=BATCH, mark=1, payload=batch(2, 1, b"a")), 0
    )
    seen = node.engine.glance()
    assert (seen["known_upto"], seen["chosen_upto"]) == (1, 0)
    assert node.engine.effects.take_chosen() == []
    node.carry_out(0)
    assert node.commands == [b"a"]


def test_h3_a_record_says_only_of_earlier_ones_that_they_are_chosen() -> None:
    """h3: were its own slot in the mark, a restart would take a vote that nobody confirmed for chosen."""
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"a"))
    accept(node, OLD, 2, batch(2, 2, b"b"), chosen=1)
    accept(node, OLD, 3, batch(2, 3, b"c"), chosen=1)
    votes = [record for record in node.disk if record.slot and record.ballot == OLD]
    assert [(record.slot, record.mark) for record in votes] == [(1, 0), (2, 1), (3, 1)]
    node.start()
    assert node.commands == [b"a"] and node.chosen_upto == 1


def test_h1_a_promise_says_what_is_chosen_instead_of_what_was_accepted() -> None:
    """h1, P13: slots that are chosen here need no entry, so the promise must say that they are."""
    node = following()
    for slot in (1, 2, 3):
        accept(node, OLD, slot, batch(2, slot, b"v"), chosen=slot - 1)
    [promise] = node.step(frame(KIND.PREPARE, 3, 1, ballot=NEW, slot=1))
    assert promise["kind"] == KIND.PROMISE and promise["mark"] == 2
    entries = PROMISE_ENTRY.iter_unpack(promise["payload"][PROMISE_HEAD.size :])
    assert [slot for slot, *_ in entries] == [3]


def test_slots_are_handed_on_in_order_and_once() -> None:
    """I12: a hole holds everything back."""
    node = following()
    for slot in (3, 2, 2):
        node.step(
            frame(KIND.CHOSEN, 2, 1, slot=slot, mark=3, detail=BATCH, payload=batch(2, slot, b"%d" % slot))
        )
    assert node.applied == []
    node.step(frame(KIND.CHOSEN, 2, 1, slot=1, mark=3, detail=BATCH, payload=batch(2, 1, b"1")))
    node.step(frame(KIND.CHOSEN, 2, 1, slot=1, mark=3, detail=BATCH, payload=batch(2, 1, b"1")))
    assert [item.slot for item in node.applied] == [1, 2, 3] and node.commands == [b"1", b"2", b"3"]


def test_i3_a_leader_that_contradicts_a_chosen_value_stops_the_node() -> None:
    """I3, G6: two values in one slot: stop rather than guess."""
    node = following()
    accept(node, OLD, 1, batch(2, 1, b"a"), chosen=1)
    node.step(frame(KIND.OPEN, 3, 1, ballot=NEW, slot=1))
    accept(node, NEW, 1, batch(2, 1, b"b"))
    assert node.engine.fault_code and "slot 1" in node.engine.fault_text


def test_p8_a_no_op_has_no_index() -> None:
    node = Node(1).greet()
    node.step(frame(KIND.CHOSEN, 2, 1, slot=1, mark=2, detail=codec.ValueKind.NOOP))
    node.step(frame(KIND.CHOSEN, 2, 1, slot=2, mark=2, detail=BATCH, payload=batch(2, 1, b"a", b"b")))
    assert [(item.slot, item.index, item.count) for item in node.applied] == [(1, 0, 0), (2, 1, 2)]


# ---- catch-up -----------------------------------------------------------------------------------------------------


def test_a_node_that_does_not_lag_asks_nobody() -> None:
    learner = Learner.alone(1, (1, 2, 3))
    learner.aim(10)
    assert learner.next_range(0, 2, False, 100, 0) is None
    assert learner.next_range(10, 2, True, 100, 0) is None
    assert learner.next_range(0, 0, True, 100, 0) is None


def test_l7_catch_up_goes_on_until_the_target() -> None:
    """L7: burst after burst, and again from somebody else when no answer comes."""
    learner = Learner.alone(1, (1, 2, 3))
    learner.aim(2 * BURST_SLOTS + 5)
    assert learner.next_range(0, 2, True, 100, 0) == Range(2, 1, BURST_SLOTS)
    assert learner.next_range(7, 2, True, 100, 50) is None
    assert learner.next_range(7, 3, True, 100, 100) == Range(3, 8, 7 + BURST_SLOTS)
    assert learner.next_range(7 + BURST_SLOTS, 3, False, 100, 101) == Range(
        3, 8 + BURST_SLOTS, 2 * BURST_SLOTS + 5
    )


@pytest.mark.parametrize("slot", [0, 2**63, 2**64 - 1, 100_000])
def test_g10_a_chosen_value_far_from_what_was_asked_is_dropped(slot: int) -> None:
    node = Node(1).greet()
    node.step(frame(KIND.CHOSEN, 2, 1, slot=slot, mark=slot, detail=BATCH, payload=batch(2, 1, b"a")))
    assert node.accepted == {} and node.disk == []


def test_a_hello_alone_teaches_nothing() -> None:
    node = Node(1)
    node.step(hello(2, 1, answer=True))
    assert node.chosen_upto == 0 and node.accepted == {}
