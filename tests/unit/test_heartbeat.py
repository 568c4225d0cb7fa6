"""Heartbeat rounds and what a node concludes from them (protocol section 6)."""

from __future__ import annotations

import pytest

from paxos._core import ballot as ballots
from paxos._core.codec import decode_frame
from paxos.types import Config
from tests.unit.engine_kit import KIND, PONG, Node, frame, ping, pong
from tests.unit.test_engine import leading, open_round

LEADS, CONNECTED, HAPPY, VOTES = 1, 2, 4, 8
B2, B3 = ballots.make(2, 2), ballots.make(3, 3)


def close(node: Node, *answers: dict[str, int], now: int = 100_000) -> Node:
    """Run one round of ``node`` in which these Pongs come, and close it."""
    number = open_round(node, now)
    for answer in answers:
        fields = {"round": number, **answer}
        node.step(pong(fields.pop("sender"), 1, **fields), now_us=now + 1)  # type: ignore[arg-type]
    node.engine.tick(now + 95_000)
    node.carry_out(now + 95_000)
    return node


def test_a_node_that_hears_a_quorum_of_voters_is_connected() -> None:
    assert close(Node(1).greet(), {"sender": 2}).is_connected
    assert not close(Node(1).greet(), {"sender": 2, "flags": 0}).is_connected
    assert not close(Node(1).greet()).is_connected
    five = Node(1, members=(1, 2, 3, 4, 5)).greet()
    assert not close(five, {"sender": 2}).is_connected


def test_h9_only_answers_to_this_round_and_this_life_count() -> None:
    """h9: a Pong to an earlier incarnation may bear the same round number."""
    assert not close(Node(1).greet(), {"sender": 2, "asker": 2}).is_connected
    assert not close(Node(1).greet(), {"sender": 2, "round": 0}).is_connected
    assert not close(Node(1).greet(), {"sender": 2, "round": 2**64 - 1}).is_connected


def test_repeated_answers_count_once() -> None:
    five = Node(1, members=(1, 2, 3, 4, 5)).greet()
    assert not close(five, {"sender": 2}, {"sender": 2}, {"sender": 2}).is_connected


def test_a_candidate_is_connected_and_hears_nobody_happy() -> None:
    assert close(Node(1).greet(), {"sender": 2}).is_candidate
    assert not close(Node(1).greet()).is_candidate
    assert not close(Node(1).greet(), {"sender": 2, "flags": HAPPY | VOTES}).is_candidate


def test_happiness_is_heard_from_the_leader_itself_never_second_hand() -> None:
    """Section 6: so it cannot circulate."""
    leader = {"sender": 2, "leader": B2, "flags": LEADS | CONNECTED | HAPPY | VOTES}
    node = close(Node(1).greet(), leader)
    assert node.is_happy and node.leader == 2
    node = close(Node(1).greet(), {"sender": 3, "leader": B2, "flags": HAPPY | VOTES})
    assert not node.is_happy and not node.is_candidate


def test_a_leader_that_is_not_connected_makes_nobody_happy() -> None:
    node = close(Node(1).greet(), {"sender": 2, "leader": B2, "flags": LEADS | VOTES})
    assert not node.is_happy and node.leader == 2 and node.is_candidate


def test_the_leader_with_the_highest_ballot_is_followed() -> None:
    old = {"sender": 2, "leader": B2, "flags": LEADS | CONNECTED | HAPPY | VOTES}
    new = {"sender": 3, "leader": B3, "flags": LEADS | CONNECTED | HAPPY | VOTES}
    for answers in ((old, new), (new, old)):
        assert close(Node(1).greet(), *answers).leader == 3


def test_a_leader_below_the_own_promise_is_not_followed() -> None:
    node = Node(1).greet()
    node.step(frame(KIND.PREPARE, 3, 1, ballot=B3, slot=1))
    close(node, {"sender": 2, "leader": B2, "flags": LEADS | CONNECTED | HAPPY | VOTES})
    assert not node.is_happy and node.leader == 0


def test_h22_a_leader_whose_quorum_promised_more_is_not_connected() -> None:
    """h22: its values can no longer be accepted."""
    node, ballot = leading(Config(election_timeout_ms=100_000))
    close(node, {"sender": 2, "promised": B3}, {"sender": 3, "promised": B3})
    assert not node.is_connected
    node, ballot = leading(Config(election_timeout_ms=100_000))
    close(node, {"sender": 2, "promised": ballot})
    assert node.is_connected and node.is_happy


def test_a_pong_repeats_the_round_and_tells_the_durable_marks() -> None:
    """h8, D3: promised and upto as they are on disk."""
    node = Node(1).greet()
    node.engine.step(frame(KIND.PREPARE, 3, 1, ballot=B3, slot=1), 0)
    node.engine.step(ping(2, 1, round=77), 0)
    pongs = [
        PONG.unpack(decode_frame(data)["payload"])
        for _, data in node.engine.effects.take_send_now()
        if decode_frame(data)["kind"] == KIND.PONG
    ]
    [(number, asker, promised, *_rest)] = pongs
    assert (number, asker, promised) == (77, 1, 0)
    [answer] = [f for f in node.step(ping(2, 1, round=78)) if f["kind"] == KIND.PONG]
    assert PONG.unpack(answer["payload"])[2] == 0  # still before the sync of the same pass
    [answer] = [f for f in node.step(ping(2, 1, round=79)) if f["kind"] == KIND.PONG]
    assert PONG.unpack(answer["payload"])[2] == B3


def test_h5_a_quarantined_node_says_that_it_does_not_vote() -> None:
    node = Node(1).greet()
    node.engine.acceptor_role.quarantine()
    [answer] = [f for f in node.step(ping(2, 1)) if f["kind"] == KIND.PONG]
    assert not PONG.unpack(answer["payload"])[8] & VOTES
    assert not close(node, {"sender": 2}).is_candidate


def test_a_dead_peer_costs_one_long_round() -> None:
    """A round waits three periods for who answered of late, and one for who did not."""
    node = Node(1).greet()
    period = node.config.heartbeat_ms * 1000
    number = open_round(node, 1_000_000)
    node.step(pong(2, 1, round=number), pong(3, 1, round=number), now_us=1_000_001)
    open_round(node, 1_000_000 + period)
    assert node.engine.deadline_us == 1_000_000 + 4 * period
    node.engine.tick(1_000_000 + 4 * period)
    assert node.engine.deadline_us == 1_000_000 + 5 * period


@pytest.mark.parametrize("incarnation", [2, 3])
def test_a_later_life_of_a_member_is_asked_who_it_is(incarnation: int) -> None:
    """Its frames do not count before its Hello; the Hello is asked for once a round."""
    node = Node(1).greet()
    open_round(node, 100_000)
    unknown = ping(2, 1, incarnation=incarnation)
    answers = node.step(unknown, unknown, now_us=100_001)
    assert [f["kind"] for f in answers] == [KIND.HELLO]


def test_a_node_of_one_needs_nobody() -> None:
    node = Node(1, members=(1,))
    node.engine.tick(1_000_000)
    assert node.is_connected and node.is_candidate
