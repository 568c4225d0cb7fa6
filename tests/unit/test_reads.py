"""The read rule on the engine: which answers confirm which reads (protocol, "Reads"; h8, h9, h10, R1 to R3)."""

from __future__ import annotations

from typing import Any

import pytest

from paxos import messages
from paxos._core import ballot as ballots
from paxos._core.codec import ValueKind, decode_frame, encode_frame
from tests.unit.engine_kit import CLUSTER, KIND, PING, PONG, Cluster, Node, frame, hello, ping, pong

VOTES = 8


class Reading:
    """A settled leader of a cluster, taken out of it: every answer comes by hand."""

    def __init__(self, members: int = 3) -> None:
        cluster = Cluster(members)
        leader = cluster.lead()
        cluster[leader].propose(b"first")
        cluster.settle(b"first")
        cluster.run(200)
        assert cluster.leaders == [leader]
        self.cluster = cluster
        self.node = cluster[leader]
        self.others = [node for node in cluster.nodes if node != leader]
        self.ballot = self.node.ballot
        self.now_us = cluster.now_us

    def ask(self, number: int) -> list[dict[str, Any]]:
        """Have own reads up to ``number`` arrive; return the frames of the round that this opens."""
        self.node.engine.read(number, self.now_us)
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        return [decode_frame(data) for _, data in self.node.carry_out(self.now_us)]

    def answer(self, sender: int, read_round: int, **fields: Any) -> tuple[int, int] | None:
        fields = {"round": 0, "promised": self.ballot, "read_round": read_round} | fields
        self.node.engine.step(pong(sender, self.node.id, **fields), self.now_us)
        return self.node.engine.effects.take_reads()


def rounds(frames: list[dict[str, Any]]) -> set[int]:
    return {PING.unpack(f["payload"])[6] for f in frames if f["kind"] == KIND.PING} - {0}


def test_one_round_confirms_all_reads_that_arrived_before_it() -> None:
    reading = Reading()
    (number,) = rounds(reading.ask(3))
    assert reading.answer(reading.others[0], number) == (3, reading.node.chosen_upto)
    assert reading.answer(reading.others[1], number) is None


def test_r3_a_round_sent_before_a_read_arrived_does_not_confirm_it() -> None:
    reading = Reading()
    (first,) = rounds(reading.ask(1))
    assert reading.ask(2) == []  # one round at a time
    assert reading.answer(reading.others[0], first) == (1, reading.node.chosen_upto)
    (second,) = rounds(reading.sent())
    assert second > first
    assert reading.answer(reading.others[1], first) is None
    assert reading.answer(reading.others[1], second) == (2, reading.node.chosen_upto)


def test_h8_an_answer_with_a_higher_durable_promise_does_not_count() -> None:
    """h8: what B promised decides, whomever it follows."""
    reading = Reading()
    (number,) = rounds(reading.ask(1))
    above = ballots.next_above(reading.ballot, reading.others[0])
    for sender in reading.others:
        assert reading.answer(sender, number, promised=above, leader=reading.ballot) is None
    assert reading.answer(reading.others[0], number) is not None


@pytest.mark.parametrize("wrong", [{"asker": 2}, {"asker": 0}, {"read_round": 10**6}, {"flags": 0}])
def test_h9_only_answers_of_voters_to_this_life_and_round_count(wrong: dict[str, int]) -> None:
    """h9: an answer to an earlier life may bear the same number; h5: a node in quarantine has no say."""
    reading = Reading()
    (number,) = rounds(reading.ask(1))
    for sender in reading.others:
        fields = {"read_round": number} | wrong
        assert reading.answer(sender, fields.pop("read_round"), **fields) is None


def test_repeated_answers_of_one_member_count_once() -> None:
    reading = Reading(5)
    (number,) = rounds(reading.ask(1))
    for _ in range(4):
        assert reading.answer(reading.others[0], number) is None
    assert reading.answer(reading.others[1], number) is not None


def test_a_round_is_no_answer_to_a_heartbeat_and_a_heartbeat_none_to_a_round() -> None:
    reading = Reading()
    (number,) = rounds(reading.ask(1))
    assert reading.answer(reading.others[0], 0, round=number) is None
    before = reading.node.engine.answered()
    reading.answer(reading.others[0], number, round=reading.node.round)
    assert reading.node.engine.answered() == before


def test_r2_no_read_before_the_own_no_op_is_chosen() -> None:
    cluster = Cluster(3)
    cluster.lead()
    cluster.run(100)
    cluster.drop = lambda fields: fields["kind"] == KIND.ACCEPTED  # nothing is chosen from here on
    for node in cluster.nodes.values():
        node.engine.step(hello(node.id % 3 + 1, node.id), cluster.now_us)
    old = cluster.leaders[0]
    cluster.crash(old)

    def took_over() -> bool:
        return any(node != old for node in cluster.leaders)

    # Its Accepted do not arrive, nor does a Pong tell how far a stream came: the no-op stays unchosen.
    cluster.drop = lambda fields: fields["kind"] in (KIND.ACCEPTED, KIND.PONG) and took_over()
    cluster.until(took_over)
    leader = cluster[next(node for node in cluster.leaders if node != old)]
    other = next(node for node in cluster.nodes if node not in (old, leader.id))
    assert leader.chosen_upto < leader.own_noop_slot
    leader.engine.read(1, cluster.now_us)
    frames = [decode_frame(data) for _, data in leader.carry_out(cluster.now_us)]
    assert not rounds(frames)
    leader.step(pong(other, leader.id, round=0, promised=leader.ballot, read_round=1), now_us=cluster.now_us)
    assert leader.engine.effects.take_reads() is None
    accepted = frame(KIND.ACCEPTED, other, leader.id, ballot=leader.ballot, slot=leader.own_noop_slot)
    (number,) = rounds(leader.step(accepted, now_us=cluster.now_us))
    leader.step(
        pong(other, leader.id, round=0, promised=leader.ballot, read_round=number), now_us=cluster.now_us
    )
    assert leader.engine.effects.take_reads() == (1, leader.own_noop_slot)


def test_a_leader_that_stops_asks_the_next_one_and_its_round_is_void() -> None:
    reading = Reading()
    (number,) = rounds(reading.ask(1))
    other = reading.others[0]
    above = ballots.next_above(reading.ballot, other)
    start = reading.node.chosen_upto + 1
    reading.node.engine.step(
        frame(KIND.OPEN, other, reading.node.id, ballot=above, slot=start), reading.now_us
    )
    assert not reading.node.engine.is_leader
    for sender in reading.others:
        assert reading.answer(sender, number) is None
    (asked,) = [f for f in reading.sent() if f["kind"] == KIND.READ_INDEX]
    assert asked["receiver"] == other and asked["slot"] > number


def test_a_lost_round_is_sent_again_under_its_number() -> None:
    reading = Reading()
    (number,) = rounds(reading.ask(1))
    reading.now_us += reading.node.config.heartbeat_ms * 1000
    reading.node.engine.tick(reading.now_us)
    assert rounds(reading.sent()) == {number}
    assert reading.answer(reading.others[0], number) is not None


def test_h10_nothing_is_confirmed_while_a_chosen_configuration_is_not_in_force() -> None:
    """h10: the old quorum could confirm while the new one has elected another leader."""
    node = Node(1)
    node.frozen_control = True
    node.greet()
    ballot = ballots.make(1, 1)
    node.engine.act(messages.Campaign(ballot=ballot, from_slot=1))
    node.carry_out(0)
    # Chosen, and nobody can tell who its members are.
    node.engine.act(
        messages.Lead(ballot=ballot, first_slot=1, values=((int(ValueKind.CONFIGURATION), b"?"),))
    )
    node.carry_out(0)
    for slot in (1, 2):
        node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=slot))
    assert node.chosen_upto >= 1 and node.config_slot == 0
    node.engine.read(1, 0)
    assert not rounds([decode_frame(data) for _, data in node.carry_out(0)])
    node.step(pong(2, 1, round=0, promised=ballot, read_round=1))
    assert node.engine.effects.take_reads() is None


def test_one_node_confirms_its_reads_itself() -> None:
    cluster = Cluster(1)
    node = cluster[cluster.lead()]
    cluster.run(100)
    node.engine.read(1, cluster.now_us)
    assert node.engine.effects.take_reads() == (1, node.chosen_upto)


# ---- followers -----------------------------------------------------------------------------------------------


def settled(members: int = 3) -> tuple[Cluster, int, list[int]]:
    cluster = Cluster(members)
    leader = cluster.lead()
    cluster.run(200)
    return cluster, leader, [node for node in cluster.nodes if node != leader]


def read_at(cluster: Cluster, node: int, number: int, ms: int = 1000) -> tuple[int, int] | None:
    """Have reads up to ``number`` arrive at ``node``; return what confirms them."""
    cluster[node].engine.read(number, cluster.now_us)
    for _ in range(ms):
        found = cluster[node].engine.effects.take_reads()
        if found is not None and found[0] >= number:
            return found
        cluster.step()
    return None


def test_a_follower_asks_its_leader() -> None:
    cluster, leader, followers = settled()
    for node in (*followers, leader):
        assert read_at(cluster, node, 1) == (1, cluster[leader].chosen_upto)


def test_a_follower_that_hears_its_leader_through_a_peer_asks_that_peer() -> None:
    """L3, chained: A leads, B hears only C."""
    cluster, leader, (middle, end) = settled()
    cluster.cut((leader, end))
    cluster.run(1000)
    assert cluster.leaders == [leader]
    assert read_at(cluster, end, 1) is not None
    assert read_at(cluster, middle, 1) is not None
    cluster.cut((leader, end), (leader, middle))
    assert read_at(cluster, leader, 1, ms=100) is None


@pytest.mark.parametrize("kind", [KIND.READ_INDEX, KIND.READ_MARK, KIND.PING, KIND.PONG])
def test_l8_a_lost_frame_delays_a_read_and_no_more(kind: int) -> None:
    cluster, _leader, followers = settled()
    left = [2]

    def lose(fields: dict[str, Any]) -> bool:
        about_reads = fields["kind"] in (KIND.READ_INDEX, KIND.READ_MARK) or (
            fields["kind"] in (KIND.PING, KIND.PONG) and any(fields["payload"][-8:])
        )
        if about_reads and fields["kind"] == kind and left[0]:
            left[0] -= 1
            return True
        return False

    cluster.drop = lose
    assert read_at(cluster, followers[0], 1) is not None
    assert left == [0]


def test_a_read_outlives_the_leader_that_was_asked() -> None:
    cluster, leader, followers = settled()
    cluster[followers[0]].engine.read(1, cluster.now_us)
    cluster.step()
    cluster.crash(leader)
    assert read_at(cluster, followers[0], 2, ms=3000) is not None


def test_h9_an_answer_to_an_earlier_life_of_the_asker_confirms_nothing() -> None:
    """The numbers of two lives are the same; the answer names the life that asked."""
    cluster, leader, followers = settled()
    node = cluster[followers[0]]
    node.engine.read(1, cluster.now_us)
    (asked,) = [f for f in node.step(now_us=cluster.now_us) if f["kind"] == KIND.READ_INDEX]
    for life, confirmed in ((node.incarnation + 1, None), (0, None), (node.incarnation, (1, 99))):
        answer = frame(
            KIND.READ_MARK, leader, node.id, ballot=5, slot=asked["slot"], mark=99,
            payload=life.to_bytes(8, "little"),
        )  # fmt: skip
        node.step(answer, now_us=cluster.now_us)
        assert node.engine.effects.take_reads() == confirmed


def test_a_leader_answers_a_new_life_of_a_member_as_such() -> None:
    reading = Reading()
    asker = reading.others[0]
    ask = {"slot": 7}
    number = 0
    for life in (1, 2):
        reading.node.step(hello(asker, reading.node.id, incarnation=life), now_us=reading.now_us)
        index = frame(KIND.READ_INDEX, asker, reading.node.id, incarnation=life, **ask)
        frames = reading.node.step(index, now_us=reading.now_us)
        number = max(rounds(frames) | {number})
    reading.answer(reading.others[1], number)
    frames = reading.sent()
    if not [f for f in frames if f["kind"] == KIND.READ_MARK]:
        (number,) = rounds(frames)
        reading.answer(reading.others[1], number)
        frames = reading.sent()
    (mark,) = [f for f in frames if f["kind"] == KIND.READ_MARK]
    assert mark["slot"] == 7 and mark["payload"] == (2).to_bytes(8, "little")


def test_who_has_nobody_to_ask_refuses_and_who_asks_on_is_not_asked_on() -> None:
    node = Node(1).greet()
    node.step(frame(KIND.READ_INDEX, 2, 1, slot=1))
    assert node.engine.counters()["refused_reads"] == 1
    cluster, _leader, followers = settled()
    middle = cluster[followers[0]]
    asked_on = frame(KIND.READ_INDEX, followers[1], middle.id, slot=1, detail=1)
    assert not [f for f in middle.step(asked_on, now_us=cluster.now_us) if f["kind"] == KIND.READ_INDEX]
    assert middle.engine.counters()["refused_reads"] == 1


def test_malformed_reads_are_counted_and_dropped() -> None:
    node = Node(1).greet()
    node.step(frame(KIND.READ_INDEX, 2, 1, slot=0))
    node.step(frame(KIND.READ_MARK, 2, 1, slot=1, payload=b"1234"))
    assert node.engine.counters()["broken"] == 2


def test_what_ends_before_the_read_round_names_none() -> None:
    """A release without read rounds sends 40 and 72 bytes."""
    node = Node(1).greet()
    short = encode_frame(
        KIND.PING, sender=2, receiver=1, cluster=CLUSTER, incarnation=1,
        payload=PING.pack(5, 0, 0, 0, 0, 0, 9)[:40],
    )  # fmt: skip
    (answer,) = [f for f in node.step(short) if f["kind"] == KIND.PONG]
    assert PONG.unpack(answer["payload"])[0] == 5 and PONG.unpack(answer["payload"])[10] == 0
    (answer,) = [f for f in node.step(ping(2, 1, read_round=9)) if f["kind"] == KIND.PONG]
    assert PONG.unpack(answer["payload"])[10] == 9
