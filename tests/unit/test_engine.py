"""The composition of one node: what passes the gate, and histories of small clusters."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos.messages import Campaign, Configure, Lead, Resign, Send, Transfer
from paxos.types import Config
from tests.unit.engine_kit import KIND, PING, Cluster, Node, batch, frame, hello, ping, pong, storage_of

BATCH, NOOP = codec.ValueKind.BATCH, codec.ValueKind.NOOP
LEADS, CONNECTED, HAPPY, VOTES = 1, 2, 4, 8


def leading(config: Config | None = None, values: tuple[Any, ...] = ()) -> tuple[Node, int]:
    """Return node 1 of three, which leads ballot 1.1 by its own word: no answer has come yet."""
    node = Node(1, config=config).greet()
    ballot = ballots.make(1, 1)
    node.engine.act(Campaign(ballot=ballot, from_slot=1))
    node.step()
    node.engine.act(Lead(ballot=ballot, first_slot=1, values=values))
    node.step()
    assert node.engine.is_leader
    return node, ballot


def open_round(node: Node, now_us: int) -> int:
    """Let a heartbeat round open and return its number."""
    node.engine.tick(now_us)
    frames = [codec.decode_frame(data) for _, data in node.carry_out(now_us)]
    return int(next(PING.unpack(f["payload"])[0] for f in frames if f["kind"] == KIND.PING))


# ---- the gate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "data"),
    [
        ("wrong_cluster", codec.encode_frame(KIND.PREPARE, sender=2, receiver=1, cluster=8, incarnation=1)),
        ("wrong_cluster", frame(KIND.PREPARE, 2, 1, group=1)),
        ("wrong_receiver", frame(KIND.PREPARE, 2, 3)),
        ("wrong_receiver", frame(KIND.PREPARE, 1, 1)),
        ("unknown_sender", frame(KIND.PREPARE, 9, 1)),
        ("unverified", frame(KIND.PREPARE, 2, 1, incarnation=2)),
        ("unverified", frame(KIND.PREPARE, 2, 1, incarnation=0)),
        ("broken", frame(KIND.PREPARE, 2, 1, ballot=ballots.MAX + 1)),
        ("broken", frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 3))),
        ("broken", frame(KIND.OPEN, 2, 1, ballot=ballots.make(1, 3), slot=1)),
        ("broken", frame(KIND.PING, 2, 1)),
        ("broken", frame(KIND.PONG, 2, 1, payload=b"short")),
        ("broken", frame(KIND.HELLO, 2, 1, payload=b"short")),
        ("broken", frame(KIND.FORWARD, 2, 1)),
        ("broken", frame(KIND.ACCEPT, 2, 1, ballot=ballots.make(1, 2), slot=1, detail=0)),
        ("broken", frame(KIND.ACCEPT, 2, 1, ballot=ballots.make(1, 2), slot=1, detail=0x0102)),
        ("broken", frame(KIND.FORWARD, 2, 1, payload=b"xy")[:-1]),
        ("broken", frame(KIND.FORWARD, 2, 1, payload=b"xy") + b"z"),
        ("unknown_kind", frame(200, 2, 1)),
        ("unknown_kind", frame(KIND.ROUND_CLOSED, 2, 1, payload=bytes(68))),
        ("unknown_kind", frame(KIND.STOPPED_LEADING, 2, 1)),
        ("wrong_storage", b""),
    ],
)
def test_the_gate_drops_and_counts(counter: str, data: bytes) -> None:
    """Section 7: what is not for this node, this life, this cluster or this release is dropped and counted."""
    node = Node(1).greet()
    if counter == "wrong_storage":
        node.engine.act(Configure(slot=1, members={n: storage_of(n) for n in (1, 2, 3)}))
        data = hello(2, 1, incarnation=2, life=1)
    before = node.engine.counters()[counter]
    answers = {f["kind"] for f in node.step(data)}
    assert answers <= {"unverified": {KIND.HELLO}, "wrong_storage": {KIND.REFUSE}}.get(counter, set())
    assert node.engine.counters()[counter] == before + 1
    assert node.promised == 0 and not node.accepted


def test_s1_a_wiped_disk_under_a_members_id_is_not_heard() -> None:
    """S1, h13: once a configuration binds storage UUIDs, another disk under the id has no vote."""
    node = Node(1).greet()
    node.engine.act(Configure(slot=1, members={n: storage_of(n) for n in (1, 2, 3)}))
    node.step(hello(2, 1, incarnation=2, life=1))
    assert node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), incarnation=2)) == []
    assert node.promised == 0


def test_a_binding_unverifies_whoever_showed_another_disk_before() -> None:
    """h13: what was heard of an unbound member does not outlive the binding."""
    node = Node(1)
    node.step(hello(2, 1, life=1))
    node.engine.act(Configure(slot=1, members={n: storage_of(n) for n in (1, 2, 3)}))
    assert not [
        f
        for f in node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2)))
        if f["kind"] == KIND.PROMISE
    ]


def test_p3_frames_of_a_former_incarnation_are_dropped() -> None:
    """P3: once a member has said Hello anew, nothing of its earlier life counts."""
    node = Node(1).greet()
    node.step(hello(2, 1, incarnation=2))
    assert node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), incarnation=1)) == []
    node.step(hello(2, 1, incarnation=1))
    answers = node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), incarnation=2))
    assert [f["kind"] for f in answers] == [KIND.PROMISE]


def test_every_frame_kind_has_a_place_or_is_empty_on_purpose() -> None:
    """Dispatch: who takes which kind. `nobody` are kinds that this release reserves or never puts on the wire."""
    acceptor = {KIND.PREPARE, KIND.OPEN, KIND.ACCEPT, KIND.ACCEPT_REF, KIND.FETCH, KIND.TRANSFER}
    proposer = {KIND.ACCEPTED, KIND.NACK, KIND.FORWARD, KIND.PONG}
    learner = {KIND.DECIDE, KIND.CHOSEN}
    heartbeat = {KIND.HELLO, KIND.REFUSE, KIND.PING}
    control = {KIND.PROMISE, KIND.FETCHED, KIND.FETCH_CHOSEN, KIND.CHOSEN_GONE}
    reads = {KIND.READ_INDEX, KIND.READ_MARK}
    nobody = {
        KIND.RESULT, KIND.SNAPSHOT_OFFER, KIND.SNAPSHOT_CHUNK, KIND.MEMBER_CHANGE, KIND.ROUND_CLOSED,
        KIND.STOPPED_LEADING,
    }  # fmt: skip
    assert acceptor | proposer | learner | heartbeat | control | reads | nobody == set(KIND)
    ballot = ballots.make(1, 2)
    bare = {KIND.PREPARE, KIND.NACK, KIND.TRANSFER}
    for kind in KIND:
        node = Node(1).greet()
        payload = b"" if kind in bare else bytes(80)
        node.engine.step(frame(kind, 2, 1, ballot=ballot, slot=1, mark=1, detail=2, payload=payload), 0)
        assert node.engine.counters()["unknown_kind"] == (kind in nobody), kind
        kinds = {codec.decode_frame(cold)["kind"] for cold in node.engine.effects.take_cold()}
        assert kinds <= {kind} and (kind not in control or kinds == {kind})


# ---- intents are checked against the present state --------------------------------------------------------------


def test_h15_a_ballot_is_led_once() -> None:
    """h15: a late or repeated Lead of a ballot that was led changes nothing."""
    node, ballot = leading()
    node.engine.act(Lead(ballot=ballot, first_slot=1, values=((BATCH, batch(2, 1, b"other")),)))
    node.step()
    assert node.next_slot == 2
    assert node.engine.counters()["stale_intents"] == 1


def test_h15_no_lead_after_a_higher_promise() -> None:
    """h15: Lead(b) is taken only while `promised` is b."""
    node = Node(1).greet()
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(2, 2), slot=1))
    node.engine.act(Lead(ballot=ballots.make(1, 1), first_slot=1))
    assert not node.engine.is_leader


def test_p1_no_lead_before_the_own_promise_is_durable() -> None:
    """P1: the own promise is as good as any other, so it is durable first."""
    node = Node(1).greet()
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    node.engine.act(Lead(ballot=ballots.make(1, 1), first_slot=1))
    assert not node.engine.is_leader
    node.step()
    node.engine.act(Lead(ballot=ballots.make(1, 1), first_slot=1))
    assert node.engine.is_leader


def test_p3_a_ballot_of_an_earlier_life_is_never_led() -> None:
    """P3, P11: after a restart a Lead or Campaign of the former life is stale."""
    node, ballot = leading()
    node.start()
    node.greet()
    node.engine.act(Campaign(ballot=ballot, from_slot=1))
    node.engine.act(Lead(ballot=ballot, first_slot=1))
    assert not node.engine.is_leader and node.step() == []


def test_a_lead_that_skips_slots_is_stale() -> None:
    """Rule 3.2: who does not know the log up to the first slot cannot lead from there."""
    node = Node(1).greet()
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    node.step()
    node.engine.act(Lead(ballot=ballots.make(1, 1), first_slot=2))
    assert not node.engine.is_leader


def test_prepare_leaves_after_the_own_promise_is_durable() -> None:
    """Section 3.1: Prepare(b) is sent after the sync of the own promise b."""
    node = Node(1).greet()
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    ready = node.engine.effects
    assert ready.take_send_now() == [] and [r.ballot for r in ready.records] == [ballots.make(1, 1)]
    node.engine.durable(0)
    kinds = [codec.decode_frame(data)["kind"] for _, data in ready.take_send_after_sync()]
    assert kinds == [KIND.PREPARE, KIND.PREPARE]


def test_resign_and_transfer_of_a_follower_do_nothing() -> None:
    node = Node(1).greet()
    node.engine.act(Resign())
    node.engine.act(Transfer(heir=2))
    assert node.step() == []


def test_send_passes_a_frame_on() -> None:
    node = Node(1).greet()
    node.engine.act(Send(frame=frame(KIND.FETCH_CHOSEN, 1, 2, slot=1, mark=4)))
    [sent] = node.step()
    assert (sent["kind"], sent["slot"], sent["mark"]) == (KIND.FETCH_CHOSEN, 1, 4)


# ---- leading ----------------------------------------------------------------------------------------------------


def test_p2_the_own_vote_counts_after_the_own_sync() -> None:
    """P2: with n = 1 a value is chosen when it is durable, and not before."""
    node = Node(1, members=(1,))
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    node.step()
    node.engine.act(Lead(ballot=ballots.make(1, 1), first_slot=1))
    assert node.engine.glance()["known_upto"] == 0
    node.step()
    assert node.engine.glance()["chosen_upto"] == 1


def test_i13_nothing_is_proposed_above_an_unchosen_configuration() -> None:
    """I13: the no-op and everything after it wait until the configuration is chosen."""
    node, ballot = leading(values=((codec.ValueKind.CONFIGURATION, b"c"), (BATCH, batch(2, 1, b"x"))))
    assert node.next_slot == 2
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=1))
    assert node.next_slot == 4 and node.chosen_upto == 1


def test_votes_for_what_was_never_proposed_do_not_count() -> None:
    """P10: an Accepted beyond the highest slot proposed at this ballot is no answer to this leader."""
    node, ballot = leading()
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=2**64 - 1))
    assert node.chosen_upto == 0
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=1))
    assert node.chosen_upto == 1


def test_p10_votes_of_another_ballot_do_not_count() -> None:
    node, _ballot = leading()
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballots.make(0, 1), slot=1))
    assert node.chosen_upto == 0


def test_a_byte_window_full_of_values_learned_elsewhere_opens_again() -> None:
    """Values that a leader proposed and then learned as chosen from a peer no longer fill its window."""
    values = tuple((BATCH, batch(2, i, b"x" * 100)) for i in (1, 2, 3))
    node, _ = leading(Config(window_bytes=200, batch_bytes_max=100), values)
    proposed = node.next_slot - 1
    assert proposed < 3
    for slot in range(1, proposed + 1):
        node.step(frame(KIND.CHOSEN, 2, 1, slot=slot, mark=slot, detail=BATCH, payload=values[slot - 1][1]))
    assert node.chosen_upto == proposed and node.next_slot > proposed + 1


def test_acknowledgements_that_come_after_the_slots_were_let_go_open_the_stream_again() -> None:
    """A follower whose answers were lost for a while gets new values from the same leader, without an election."""
    config = Config(window_slots=64, window_bytes=300, retained_bytes_max=1, batch_bytes_max=100)
    cluster = Cluster(3, config)
    leader = cluster.lead()
    slow, other = (n for n in (1, 2, 3) if n != leader)
    cluster.drop = lambda f: f["sender"] == slow and f["kind"] in (KIND.ACCEPTED, KIND.PONG)
    for _ in range(100):
        if cluster[leader].engine.room:
            cluster[leader].propose(b"x" * 50)
        cluster.step()
    cluster.drop = lambda _: False
    cluster.run(600)
    ballot = cluster[leader].ballot
    cluster.crash(other)
    cluster[leader].propose(b"last")
    cluster.until(lambda: b"last" in cluster[slow].commands, 60)
    assert cluster[leader].ballot == ballot


def promise_in_vain(cluster: Cluster, loser: int) -> int:
    """Let a node that hears nobody promise a ballot of its own that nobody else hears of; return it."""
    cluster.drop = lambda f: loser in (f["sender"], f["receiver"])
    cluster.run(300)
    above = ballots.next_above(cluster[loser].promised, loser)
    cluster[loser].engine.act(Campaign(ballot=above, from_slot=1))
    cluster.run(5)
    assert cluster[loser].promised == above
    cluster.drop = lambda _: False
    return above


def test_l5_a_candidate_looks_again_before_it_starts() -> None:
    """An attempt that was planned before a leader was heard is dropped: it would only depose that leader."""
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster.run(100)
    late = leader % 3 + 1
    before = cluster[late].promised
    cluster[late].engine.act(Campaign(ballot=ballots.next_above(before, late), from_slot=1))
    cluster.run(500)
    assert cluster[late].promised == before
    assert cluster.leaders == [leader]


def test_h20_a_leader_that_hears_a_later_leader_follows_it() -> None:
    """Section 4: who leads b and hears a leader above b stops at the close of the round; it does not fight back."""
    node, _ = leading()
    number = open_round(node, 100_000)
    later = ballots.make(2, 3)
    node.step(
        pong(3, 1, round=number, promised=later, leader=later, flags=LEADS | CONNECTED | HAPPY | VOTES),
        pong(2, 1, round=number, promised=later, leader=later, flags=HAPPY | VOTES),
        now_us=101_000,
    )
    assert not node.engine.is_leader and node.leader == 3


def test_h20_a_peer_that_is_happy_with_a_later_leader_is_enough() -> None:
    """Section 4: the later leader itself need not be heard."""
    node, _ = leading()
    number = open_round(node, 100_000)
    later = ballots.make(2, 3)
    node.step(pong(2, 1, round=number, promised=later, leader=later, flags=HAPPY | VOTES), now_us=101_000)
    node.engine.tick(200_000)
    assert not node.engine.is_leader


def test_p12_a_leader_stops_when_its_own_acceptor_promises_more() -> None:
    node, _ = leading()
    node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(9, 2), slot=1))
    assert not node.engine.is_leader


def test_l6_a_leader_without_a_quorum_steps_down_within_two_election_timeouts() -> None:
    """L6: cut from everybody, it stops by itself."""
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster.cut(*((leader, n) for n in (1, 2, 3) if n != leader))
    cluster.until(
        lambda: not cluster[leader].engine.is_leader, 2 * cluster[leader].config.election_timeout_ms
    )


def test_a_recovered_value_that_is_no_batch_moves_no_session() -> None:
    """The leader's view of the sessions is the learner's, or a resent batch would be refused for ever."""
    torn = batch(2, 1, b"a")[:-1]
    node, _ballot = leading(values=((BATCH, torn),))
    node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, 1, b"a")))
    assert node.next_slot == 4


# ---- values -------------------------------------------------------------------------------------------------------


def test_g3_a_batch_that_is_forwarded_twice_is_proposed_once() -> None:
    """G3: the leader knows which tickets it has proposed already."""
    node, _ballot = leading()
    value = batch(2, 1, b"a", b"b")
    node.step(frame(KIND.FORWARD, 2, 1, payload=value), frame(KIND.FORWARD, 2, 1, payload=value))
    assert node.next_slot == 3 and node.engine.counters()["refused_forwards"] == 1


def test_c6_a_batch_behind_a_gap_waits_for_its_predecessor() -> None:
    """C6: tickets of one origin keep their order; the origin sends again from the gap."""
    node, _ = leading()
    node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, 2, b"second")))
    assert node.next_slot == 2
    node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, 1, b"first")))
    node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, 2, b"second")))
    assert node.next_slot == 4


def test_g3_a_resent_batch_after_failover_counts_once() -> None:
    """G3: proposed at two ballots, applied once, with one index on every node."""
    cluster = Cluster(3)
    leader = cluster.lead()
    origin = leader % 3 + 1
    cluster[origin].propose(b"once")
    cluster.run(2)
    cluster.crash(leader)
    cluster.lead()
    cluster.settle(b"once")
    cluster.restart(leader)
    cluster.settle(b"once")
    cluster.run(300)
    assert [node.commands for node in cluster.nodes.values()] == [[b"once"]] * 3


def test_an_offer_that_is_not_an_own_batch_is_refused() -> None:
    node = Node(1).greet()
    for value in (b"", b"garbage", batch(2, 1, b"x"), batch(1, 1, b"x", incarnation=9)):
        with pytest.raises(ValueError, match="batch"):
            node.engine.offer_batch(value)


def test_a_frame_is_forwarded_one_hop_and_no_further() -> None:
    """Section 5: through a peer that hears the leader, never in circles."""
    node = Node(1).greet()
    node.step(ping(3, 1, ballot=ballots.make(1, 3), leads=True))
    value = batch(2, 1, b"x")
    onward = [f for f in node.step(frame(KIND.FORWARD, 2, 1, payload=value)) if f["kind"] == KIND.FORWARD]
    assert [(f["receiver"], f["detail"]) for f in onward] == [(3, 1)]
    assert node.step(frame(KIND.FORWARD, 2, 1, detail=1, payload=value)) == []


# ---- restarts -----------------------------------------------------------------------------------------------------


def test_h1_a_restart_forgets_no_promise_and_no_vote() -> None:
    """I6, h1: what was said before a restart is known after it."""
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster[leader].propose(b"a")
    cluster.settle(b"a")
    cluster.run(100)
    for node in (1, 2, 3):
        before = cluster[node].engine.inspect()
        cluster.restart(node)
        after = cluster[node].engine.inspect()
        assert after["promised"] == before["promised"]
        assert set(after["accepted"]) >= set(before["accepted"])
    cluster.lead()
    cluster.settle(b"a")


def test_d8_a_poisoned_engine_says_nothing() -> None:
    """D8: after a failed sync nothing is ever sent, and nothing that was waiting leaves."""
    node = Node(1).greet()
    node.engine.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1), 0)
    node.engine.disk_failed()
    assert node.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(2, 2), slot=1)) == []
    node.engine.tick(10_000_000)
    node.engine.act(Campaign(ballot=ballots.make(3, 1), from_slot=1))
    assert node.carry_out(0) == [] and node.engine.fault_code


# ---- liveness: the scenarios of Omni-Paxos, and lost frames ---------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_a_cluster_of_any_size_starts_and_commits(count: int) -> None:
    cluster = Cluster(count)
    leader = cluster.lead()
    for node in cluster.nodes.values():
        cluster.until(lambda node=node: node.engine.room)
        node.propose(b"from %d" % node.id)
    cluster.settle(*(b"from %d" % node for node in cluster.nodes))
    assert cluster.leaders == [leader]


@pytest.mark.parametrize("count", [3, 5])
def test_l1_quorum_loss(count: int) -> None:
    """L1: everybody reaches only the hub, the leader too: the hub leads within four election timeouts."""
    cluster = Cluster(count)
    leader = cluster.lead()
    hub = leader % count + 1
    ids = range(1, count + 1)
    if count == 3:
        cluster.cut(*((leader, n) for n in ids if n not in (hub, leader)))
        cluster.run(600)
        assert cluster.leaders == [leader]  # it still reaches a quorum: chained, nothing changes
        return
    cluster.cut(*((a, b) for a in ids for b in ids if a < b and hub not in (a, b)))
    cluster.until(lambda: hub in cluster.leaders, 4 * 150)
    cluster[hub].propose(b"x")
    cluster.settle(b"x")


def test_l2_constrained_election() -> None:
    """L2: only a node with an old log reaches a quorum: it catches up and leads."""
    cluster = Cluster(5, Config(window_slots=8, retained_bytes_max=64))
    leader = cluster.lead()
    hub = leader % 5 + 1
    ids = range(1, 6)
    cluster.cut(*((hub, n) for n in ids if n != hub))
    for i in range(40):
        cluster.until(lambda: cluster[leader].engine.room)
        cluster[leader].propose(b"%d" % i)
        cluster.step()
    cluster.run(100)
    cluster.crash(leader)
    cluster.cut(*((a, b) for a in ids for b in ids if a < b and hub not in (a, b)))
    cluster.until(lambda: hub in cluster.leaders, 4 * 150 + 200)
    cluster.settle(*(b"%d" % i for i in range(40)))


def test_l3_chained_nodes_follow_and_propose_through_the_middle() -> None:
    """L3: B hears a happy C, stays, proposes through C and gets the log from C; nobody raises a ballot."""
    cluster = Cluster(3)
    leader = cluster.lead()
    middle, far = (n for n in (1, 2, 3) if n != leader)
    ballot = cluster[leader].ballot
    cluster.cut((leader, far))
    cluster.run(300)
    cluster[far].propose(b"via")
    cluster.settle(b"via")
    cluster.run(600)
    assert cluster.leaders == [leader] and cluster[leader].ballot == ballot
    assert cluster[middle].commands == cluster[far].commands == [b"via"]


def test_l5_a_node_that_comes_back_disturbs_nobody() -> None:
    """L5: after a long isolation it follows; the leader and its ballot stay."""
    cluster = Cluster(3)
    leader = cluster.lead()
    lost = leader % 3 + 1
    cluster.cut(*((lost, n) for n in (1, 2, 3) if n != lost))
    cluster.run(2000)
    ballot = cluster[leader].ballot
    cluster[leader].propose(b"meanwhile")
    cluster.cut()
    cluster.settle(b"meanwhile")
    cluster.run(600)
    assert cluster.leaders == [leader] and cluster[leader].ballot == ballot


def test_h20_a_member_that_promised_more_is_taken_back() -> None:
    """h20: a failed candidate's promise does not cost the cluster its last spare member."""
    cluster = Cluster(3)
    leader = cluster.lead()
    loser, other = (n for n in (1, 2, 3) if n != leader)
    promise_in_vain(cluster, loser)
    cluster.run(500)
    cluster.crash(other)
    cluster.until(lambda: any(cluster[n].engine.room for n in cluster.leaders))
    cluster[cluster.leaders[0]].propose(b"x")
    cluster.settle(b"x")


def test_h20_a_member_that_promised_more_is_taken_back_while_nothing_is_proposed() -> None:
    """h20: no value is sent that it could refuse, so its answers to the heartbeats must tell the leader."""
    cluster = Cluster(3)
    leader = cluster.lead()
    loser = leader % 3 + 1
    above = promise_in_vain(cluster, loser)
    cluster.run(1000)
    assert cluster.leaders == [leader] and cluster[leader].ballot > above
    assert {cluster[n].engine.inspect()["leader_ballot"] for n in (1, 2, 3)} == {cluster[leader].ballot}


def test_l7_a_follower_that_restarts_while_nothing_is_proposed_catches_up() -> None:
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster[leader].propose(b"a")
    cluster.settle(b"a")
    cluster.run(200)
    follower = leader % 3 + 1
    cluster.restart(follower)
    cluster.settle(b"a", ms=400)
    cluster.until(lambda: cluster[follower].stream_ballot == cluster[leader].ballot, 400)


def test_l7_a_follower_behind_the_kept_slots_catches_up_under_load() -> None:
    config = Config(window_slots=4, retained_bytes_max=200)
    cluster = Cluster(3, config)
    leader = cluster.lead()
    lost = leader % 3 + 1
    cluster.crash(lost)
    proposed = 0
    for step in range(600):
        if step == 200:
            cluster.restart(lost)
        if cluster[leader].engine.room:
            cluster[leader].propose(b"%d" % proposed)
            proposed += 1
        cluster.step()
    cluster.settle(*(b"%d" % i for i in range(proposed)))
    assert cluster.leaders == [leader]


def test_a_transfer_moves_leadership_to_the_heir() -> None:
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster.run(100)
    heir = leader % 3 + 1
    cluster[leader].engine.act(Transfer(heir=heir))
    cluster.until(lambda: cluster.leaders == [heir], 150)
    cluster[heir].propose(b"x")
    cluster.settle(b"x")


def test_h13_a_wiped_node_and_an_unaware_one_are_no_quorum() -> None:
    """h13: with the only node down that knows the binding, a wiped member cannot start the cluster anew."""
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster[leader].propose(b"a")
    cluster.settle(b"a")
    wiped = leader % 3 + 1
    cluster.nodes[wiped] = Node(wiped, (1, 2, 3), life=1)
    cluster[wiped].incarnation = 5
    cluster[wiped].start()
    cluster.crash(leader)
    cluster.run(1000)
    assert not cluster.leaders
    cluster.restart(leader)
    cluster.lead()
    assert cluster[wiped].commands == []


@pytest.mark.parametrize("kind", [k for k in KIND if k < KIND.RESULT])
def test_l8_any_single_lost_frame_is_made_up_for(kind: int) -> None:
    """L8: drop exactly the k-th frame of a kind, through start, failover and restart: the logs converge."""
    for k in range(1, 4):
        if lose_one(kind, k) < k:
            return


def lose_one(kind: int, k: int) -> int:
    """Run a small history without the k-th frame of ``kind``; return how many of them there were."""
    cluster = Cluster(3)
    seen = 0

    def drops(fields: dict[str, Any]) -> bool:
        nonlocal seen
        seen += fields["kind"] == kind
        return bool(fields["kind"] == kind and seen == k)

    cluster.drop = drops
    leader = cluster.lead()
    follower = leader % 3 + 1
    cluster[leader].propose(b"a")
    cluster[follower].propose(b"b")
    cluster.settle(b"a", b"b", ms=3000)
    cluster.crash(leader)
    cluster.lead()
    cluster[follower].propose(b"c")
    cluster.until(lambda: b"c" in cluster[follower].commands, 3000)
    cluster.restart(leader)
    cluster.settle(b"a", b"b", b"c", ms=3000)
    return seen


@pytest.mark.parametrize("kind", [k for k in KIND if k < KIND.RESULT])
def test_i3_a_frame_that_comes_again_much_later_changes_nothing(kind: int) -> None:
    """I3, G3: the first frame of each kind is repeated later, after failover and after a restart."""
    cluster = Cluster(3)
    kept: list[tuple[int, bytes]] = []

    def record(fields: dict[str, Any]) -> bool:
        if fields["kind"] == kind and len(kept) < 4:
            kept.append((fields["receiver"], codec.encode_frame(**fields)))
        return False

    cluster.drop = record
    leader = cluster.lead()
    cluster[leader].propose(b"a")
    cluster[leader % 3 + 1].propose(b"b")
    cluster.settle(b"a", b"b")
    cluster.wire += kept
    cluster.run(10)
    cluster.crash(leader)
    cluster.wire += kept
    survivor = cluster.lead()
    cluster[survivor].propose(b"c")
    cluster.until(lambda: b"c" in cluster[survivor].commands)
    cluster.restart(leader)
    cluster.wire += kept
    cluster.settle(b"a", b"b", b"c")
    cluster.run(200)
    logs = [node.commands for node in cluster.nodes.values()]
    assert logs[0] == logs[1] == logs[2] and sorted(logs[0]) == [b"a", b"b", b"c"]


# ---- hostile frames ---------------------------------------------------------------------------------------------

NUMBERS = (
    0,
    1,
    2,
    3,
    255,
    256,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 2,
    2**64 - 1,
    (1 << 16) | 2,
    (9 << 16) | 3,
)
KINDS = tuple(kind for kind in range(70) if kind != KIND.HELLO)


def hostile(random: Random) -> bytes:
    """Return a frame that passes its checksums and says anything."""
    sizes = (0, 0, 1, 31, 32, 40, 48, 72, 80, 200)
    payload = random.randbytes(random.choice(sizes))
    if random.random() < 0.2:
        payload = batch(random.randrange(1, 4), random.choice((1, 2, 2**64 - 1)), b"x")
    return frame(
        random.choice(KINDS), random.choice((2, 3)), 1, detail=random.choice((0, 1, 2, 3, 4, 0xFFFF)),
        ballot=random.choice((*NUMBERS, ballots.make(random.randrange(50), 2), ballots.make(random.randrange(50), 3))),
        slot=random.choice((*NUMBERS, random.randrange(20))), mark=random.choice((*NUMBERS, random.randrange(20))),
        payload=payload,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_g10_hostile_frames_do_not_crash_or_eat_memory(seed: int) -> None:
    """G10, F17: a verified member says anything at all: no crash, everything counted, memory bounded."""
    random = Random(seed)
    node = Node(1, config=Config(window_slots=8, promise_page_entries=2)).greet()
    node.frozen_control = seed % 2 == 1  # the control plane sees half of the runs
    taken = 0
    for now in range(1000, 4_000_000, 1000):
        node.engine.step(hostile(random), now)
        taken += 1
        if random.random() < 0.3:
            node.engine.tick(now)
        if random.random() < 0.3:
            node.carry_out(now)
            for intent in node.intents:
                node.engine.act(intent)
            node.intents = node.control.tick(now)
        if node.engine.fault_code:  # the one thing that a forger can reach: a contradiction stops the node
            assert "I3" in node.engine.fault_text
            node = Node(1, config=node.config).greet()
        assert node.engine.glance()["held_bytes"] < 1 << 20
    counted = node.engine.counters()
    assert taken == 3999 and counted["frames"] > 0 and counted["broken"] > 0


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200))
def test_g10_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    node = Node(1).greet()
    assert node.engine.step(data, 0) is False
    node.control.on_frame(data, 0)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), place=st.integers(0, 2000), value=st.integers(1, 255))
def test_d10_one_flipped_byte_is_always_seen(seed: int, place: int, value: int) -> None:
    """D10: header and payload have checksums of their own; nothing of a damaged frame is believed."""
    data = bytearray(frame(KIND.FORWARD, 2, 1, payload=batch(2, 1, b"command", seed.to_bytes(4, "big"))))
    data[place % len(data)] ^= value
    node, _ = leading()
    node.engine.step(bytes(data), 0)
    node.step()
    assert node.next_slot == 2
