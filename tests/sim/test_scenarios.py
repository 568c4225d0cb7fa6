"""The histories behind the rules of the protocol, scripted on the real roles; named after rule and bug ids.

The invariants are checked after every step of every scenario; what is asserted here is what comes on top.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paxos import messages
from paxos._core import ballot as ballots
from paxos._core import codec
from paxos.sim import wire
from paxos.sim.disk import MemoryDisk
from paxos.sim.history import RECORD_ACCEPT, RECORD_PROMISE, Durable
from paxos.sim.node import CLUSTER, CrashPoint
from paxos.sim.scenario import QUICK, Scenario

Kind = wire.Kind


def others(cluster: Scenario, *ids: int) -> list[int]:
    return [id for id in cluster.members if id not in ids]


# --- the normal case -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5])
def test_a_cluster_elects_one_leader_and_commits(nodes: int) -> None:
    cluster = Scenario(nodes)
    leader = cluster.wait_leader(within_ms=10 * cluster.election_timeout_ms)
    for id in cluster.members:
        cluster.wait_committed(cluster.propose(id, 5))
    cluster.wait_same_log()
    assert cluster.leaders() == [leader]


def test_one_prepare_covers_the_whole_suffix() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    prepares = cluster.world.network.sent[Kind.PREPARE]
    for _ in range(10):
        cluster.wait_committed(cluster.propose(leader, 3))
    assert cluster.world.network.sent[Kind.PREPARE] == prepares


def test_p8_no_ops_take_a_slot_and_no_index() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 3))
    cluster.crash(leader)
    second = cluster.wait_leader(among=others(cluster, leader))
    commands = cluster.propose(second, 3)
    cluster.wait_committed(commands)
    acknowledged = cluster.world.history.acknowledged
    assert [acknowledged[command] for command in commands] == [4, 5, 6]
    assert len(cluster.world.history.log) > 6 // 3


# --- durability ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", list(CrashPoint))
@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_p1_p2_a_crash_around_the_sync_loses_nothing_told(point: CrashPoint, victim: str) -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 2))
    target = leader if victim == "leader" else others(cluster, leader)[0]
    if point is CrashPoint.NOW:
        cluster.crash(target)
    else:
        cluster.node(target).crash_point = point
    commands = cluster.propose(others(cluster, target)[0], 4)
    cluster.wait_committed(commands)
    if cluster.node(target).up:
        cluster.crash(target)
    cluster.restart(target)
    cluster.wait_same_log()


def test_p2_a_single_node_acknowledges_after_its_own_sync_only() -> None:
    cluster = Scenario(1)
    cluster.wait_leader()
    cluster.node(1).crash_point = CrashPoint.AFTER_APPEND
    commands = cluster.propose(1, 1)
    cluster.wait(lambda: not cluster.node(1).up, what="the crash")
    assert not cluster.is_committed(commands)
    cluster.restart(1)
    cluster.wait_committed(cluster.propose(1, 1))
    assert len(cluster.world.history.commands_applied) in (1, 2)  # nobody was told of the first one


def test_h1_d2_f4_power_loss_everywhere_keeps_what_was_acknowledged() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    commands = cluster.propose(leader, 8)
    cluster.wait_committed(commands)
    log = list(cluster.world.history.log)
    for id in cluster.members:
        cluster.crash(id)
    for id in cluster.members:
        cluster.restart(id)
    second = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(second, 1))
    cluster.wait_same_log()
    assert cluster.world.history.log[: len(log)] == log


def test_h7_every_vote_stands_behind_a_promise_record_of_its_own() -> None:
    cluster = Scenario(5)
    for _ in range(3):
        leader = cluster.wait_leader()
        cluster.wait_committed(cluster.propose(leader, 2))
        cluster.crash(leader)
        cluster.run(400)
        cluster.restart(leader)
    for id in cluster.members:
        promised = 0
        for record in cluster.node(id).disk.durable:
            if record.kind == RECORD_PROMISE:
                promised = max(promised, record.ballot)
            if record.kind == RECORD_ACCEPT:
                assert record.ballot == promised


def test_p3_ballots_rise_over_restarts_and_old_answers_count_for_nothing() -> None:
    cluster = Scenario()
    heard: list[wire.Frame] = []

    def copy(frame: wire.Frame) -> bool:
        if frame.kind in (Kind.PROMISE, Kind.ACCEPTED, Kind.PONG):
            heard.append(frame)
        return True

    cluster.world.network.filters.append(copy)
    for _ in range(12):
        leader = cluster.wait_leader()
        cluster.wait_committed(cluster.propose(leader, 1))
        cluster.crash(leader)
        cluster.restart(leader)
        for frame in heard[-200:]:
            if frame.receiver == leader:
                cluster.world.deliver(frame)
    used = sorted(cluster.world.history.leaders)
    by_node: dict[int, list[int]] = {}
    for ballot in used:
        node, incarnation = cluster.world.history.leaders[ballot]
        assert ballots.node_of(ballot) == node
        by_node.setdefault(node, []).append(incarnation)
    assert all(incarnations == sorted(incarnations) for incarnations in by_node.values())


def rot_last_vote(cluster: Scenario, id: int) -> int:
    """Make the value of a node's newest vote unreadable; return its slot."""
    records = cluster.node(id).disk.durable
    place = max(
        place for place, record in enumerate(records) if record.kind == RECORD_ACCEPT and record.value
    )
    record = records[place]
    records[place] = record._replace(value=None, length=len(record.value or b""))
    return record.slot


def test_h6_h24_a_damaged_vote_is_no_missing_one_and_heals_for_good() -> None:
    cluster = Scenario()
    leader = cluster.settle()
    keeper, third = others(cluster, leader)
    cluster.isolate(third)
    commands = cluster.propose(leader, 1)
    cluster.wait_committed(commands)
    cluster.crash(leader)
    cluster.crash(keeper)
    slot = rot_last_vote(cluster, keeper)
    assert cluster.world.history.chosen[slot][0] == codec.ValueKind.BATCH
    cluster.heal()
    cluster.restart(keeper)
    # The damaged slot may be chosen, so the two that are left can put nothing there ...
    cluster.run(20 * cluster.election_timeout_ms)
    assert cluster.leaders() == []
    # ... until somebody comes back who can say what it holds.
    cluster.restart(leader)
    cluster.wait_same_log()
    cluster.wait_committed(cluster.propose(cluster.wait_leader(), 1))
    cluster.wait_same_log()
    # Healed for good: the other two are enough now.
    cluster.crash(keeper)
    cluster.crash(leader)
    cluster.restart(keeper)
    second = cluster.wait_leader(among=[keeper, third])
    cluster.wait_committed(cluster.propose(second, 1))
    assert set(commands) <= cluster.world.history.commands_applied


def test_h24_a_healed_slot_does_not_hide_what_was_known_above_it() -> None:
    # Slot 3 rots, the node restarts, learns slot 3 alone again, and restarts before it learns the rest.
    cluster = Scenario()
    leader = cluster.settle()
    for _ in range(6):
        cluster.wait_committed(cluster.propose(leader))
    cluster.wait_same_log()
    target = others(cluster, leader)[0]
    cluster.crash(target)
    records = cluster.node(target).disk.durable
    place = next(place for place, r in enumerate(records) if r.kind == RECORD_ACCEPT and r.slot == 3)
    records[place] = records[place]._replace(value=None, length=len(records[place].value or b""))
    chosen = cluster.hold(Kind.CHOSEN, receiver=target)
    accepts = cluster.hold(Kind.ACCEPT, receiver=target)
    cluster.restart(target)
    cluster.wait(lambda: any(frame.slot == 3 for frame in chosen.frames), what="the fetch")
    cluster.world.deliver(next(frame for frame in chosen.frames if frame.slot == 3))
    cluster.run(5)
    cluster.crash(target)
    chosen.stop()
    accepts.stop()
    cluster.restart(target)
    cluster.wait_committed(cluster.propose(target))
    cluster.wait_same_log()


# --- taking over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 1024])
def test_p6_a_new_leader_recovers_every_slot_whatever_the_page_size(page: int) -> None:
    cluster = Scenario(3, config=replace(QUICK, promise_page_entries=page, batch_bytes_max=16))
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 2))
    accepted = cluster.drop(Kind.ACCEPTED)
    commands = cluster.propose(leader, 12)
    cluster.run(cluster.election_timeout_ms / 2)
    cluster.crash(leader)
    accepted.stop()
    second = cluster.wait_leader(among=others(cluster, leader))
    cluster.wait_committed(cluster.propose(second, 1))
    cluster.restart(leader)
    cluster.wait_same_log()
    assert set(commands) <= cluster.world.history.commands_applied


def test_p6_phase_2_waits_for_every_page_of_a_promise() -> None:
    cluster = Scenario(3, config=replace(QUICK, promise_page_entries=1, batch_bytes_max=16))
    leader = cluster.wait_leader()
    accepted = cluster.drop(Kind.ACCEPTED)
    commands = cluster.propose(leader, 10)
    cluster.run(cluster.election_timeout_ms / 2)
    # Only one follower keeps the log; of its promise the first three pages are lost once.
    keeper, candidate = others(cluster, leader)
    cluster.crash(leader)
    accepted.stop()
    cluster.drop(Kind.PROMISE, sender=keeper, count=3)
    cluster.drop(Kind.PROMISE, sender=candidate, count=3)
    cluster.wait_leader(among=[keeper, candidate])
    cluster.restart(leader)
    cluster.wait_same_log()
    cluster.wait(lambda: set(commands) <= cluster.world.history.commands_applied, what="recovery")


def test_p9_h4_a_value_learned_as_chosen_replaces_the_older_vote() -> None:
    cluster = Scenario()
    old = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(old, 1))
    cluster.wait_same_log()
    cluster.isolate(old)
    stale = cluster.propose(old, 3)
    cluster.run(30)
    new = cluster.wait_leader(among=others(cluster, old))
    for _ in range(4):
        cluster.wait_committed(cluster.propose(new, 1))
    cluster.heal()
    cluster.wait_same_log()
    cluster.crash(old)
    cluster.restart(old)
    cluster.wait_same_log()
    assert not cluster.world.history.commands_applied.issuperset(stale) or cluster.is_committed(stale)


def test_p12_a_deposed_leader_stops() -> None:
    cluster = Scenario(5)
    old = cluster.settle()
    minority = [old, others(cluster, old)[0]]
    cluster.cut_between(minority, others(cluster, *minority))
    lost = cluster.propose(old, 2)
    new = cluster.wait_leader(among=others(cluster, *minority))
    cluster.wait_committed(cluster.propose(new, 2))
    cluster.wait(lambda: not cluster.node(old).leads, what="the old leader stepping down")
    assert not cluster.is_committed(lost)
    cluster.heal()
    cluster.wait_same_log()
    cluster.wait_committed(lost)


@pytest.mark.parametrize("seed", range(12))
def test_p14_simultaneous_candidates_settle(seed: int) -> None:
    cluster = Scenario(5, seed=seed)
    leader = cluster.settle()
    cluster.crash(leader)
    took = cluster.wait(
        lambda: any(cluster.node(id).leads_firmly for id in others(cluster, leader) if cluster.node(id).up),
        what="a new leader",
    )
    assert took <= 10 * cluster.election_timeout_ms


# --- heartbeats, answers, intents ----------------------------------------------------------------------------


def test_h9_pongs_to_an_earlier_incarnation_count_for_nothing() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    target = others(cluster, leader)[0]
    pongs = cluster.hold(Kind.PONG, receiver=target)
    cluster.run(100)
    cluster.crash(target)
    cluster.isolate(target)
    cluster.restart(target)
    prepares = cluster.world.network.sent[Kind.PREPARE]
    pongs.release()
    cluster.run(5 * cluster.election_timeout_ms)
    assert cluster.world.network.sent[Kind.PREPARE] == prepares


def test_h13_nothing_is_chosen_before_all_initial_members_are_up() -> None:
    cluster = Scenario(start=False)
    for id in (1, 2):
        cluster.node(id).start()
    cluster.run(10 * cluster.election_timeout_ms)
    assert cluster.leaders() == []
    assert not cluster.world.history.chosen
    cluster.node(3).start()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 1))


def test_h13_f10_a_wiped_disk_does_not_vote_under_its_old_name() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 1))
    cluster.wait_same_log()
    wiped, gone = others(cluster, leader)
    cluster.crash(gone)
    cluster.crash(wiped)
    node = cluster.node(wiped)
    node.disk = MemoryDisk()
    node.storage = b"another storage!"
    cluster.world.history.durable[wiped] = Durable()
    cluster.restart(wiped)
    commands = cluster.propose(leader, 1)
    cluster.run(20 * cluster.election_timeout_ms)
    assert not cluster.is_committed(commands)
    cluster.restart(gone)
    cluster.wait_committed(commands)


def test_h15_a_late_or_repeated_lead_changes_nothing() -> None:
    cluster = Scenario(start=False)
    leads: dict[int, list[messages.Lead]] = {}
    for node in cluster.world.nodes.values():
        original = node.post

        def post(intent: Any, id: int = node.id, original: Any = original) -> None:
            if isinstance(intent, messages.Lead):
                leads.setdefault(id, []).append(intent)
            original(intent)

        node.post = post  # type: ignore[method-assign]
    cluster.world.start()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 3))
    (lead,) = leads[leader][-1:]
    node = cluster.node(leader)
    other = messages.Lead(ballot=lead.ballot, first_slot=lead.first_slot, values=[(1, b"")])
    node.mailbox.append(other)
    node.wake(cluster.world.now_us)
    cluster.wait_committed(cluster.propose(leader, 1))
    cluster.isolate(leader)
    cluster.wait(lambda: not node.leads, what="stepping down")
    node.mailbox.append(other)
    node.wake(cluster.world.now_us)
    cluster.run(100)
    assert not node.leads
    cluster.heal()
    cluster.wait_leader()
    cluster.wait_same_log()


def test_h17_a_lost_accepted_is_repeated() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    cluster.wait_committed(cluster.propose(leader, 1))
    tap = cluster.drop(Kind.ACCEPTED, count=2)
    commands = cluster.propose(leader, 1)
    cluster.wait_committed(commands, within_ms=4 * cluster.election_timeout_ms)
    assert len(tap.frames) == 2


def test_h20_a_member_that_promised_more_does_not_block_the_cluster() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    loser, third = others(cluster, leader)
    # The loser promises itself a high ballot while nobody hears it ...
    cluster.isolate(loser)
    node = cluster.node(loser)
    ballot = ballots.make(1000, loser)
    node.mailbox.append(messages.Campaign(ballot=ballot, from_slot=1))
    node.wake(cluster.world.now_us)
    cluster.run(50)
    cluster.heal()
    # ... and then the third node dies.
    cluster.crash(third)
    commands = cluster.propose(leader, 1)
    cluster.wait_committed(commands, within_ms=20 * cluster.election_timeout_ms)


def test_h22_a_leader_whose_accepts_do_not_pass_gives_way() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    cluster.drop(Kind.ACCEPT, sender=leader)
    cluster.propose(leader, 1)
    second = cluster.wait_leader(among=others(cluster, leader), within_ms=20 * cluster.election_timeout_ms)
    cluster.wait_committed(cluster.propose(second, 1))


# --- found by seeds ------------------------------------------------------------------------------------------


def test_an_older_leader_stops_no_node_that_learned_otherwise() -> None:
    # A node that learned a slot as chosen without promising the ballot hears an older leader propose another
    # value there. That breaks no invariant: no quorum is left for the older ballot.
    config = replace(QUICK, election_timeout_ms=2_000, backoff_ms_max=60)
    cluster = Scenario(5, config=config)
    old = cluster.settle()
    witness, *rest = others(cluster, old)
    for kind in (Kind.PREPARE, Kind.OPEN, Kind.ACCEPT, Kind.DECIDE):
        for id in rest:
            cluster.drop(kind, sender=id, receiver=witness)
    cluster.cut_between([old], rest)
    cluster.cut((witness, old))
    cluster.pause(old, 1_000)
    new = cluster.wait_leader(among=rest)
    cluster.wait_committed(cluster.propose(new, 2))
    cluster.wait_same_log(among=[witness])
    sent = cluster.world.network.sent[Kind.ACCEPT]
    cluster.propose(old, 1)
    cluster.wait(lambda: cluster.world.now_us >= cluster.node(old).paused_until, what="the old leader waking")
    cluster.run(20)
    assert cluster.world.network.sent[Kind.ACCEPT] > sent
    cluster.wait_committed(cluster.propose(new, 1))
    cluster.heal()
    cluster.wait_same_log(among=[old, *rest])


def test_h25_an_unaware_leader_announces_nothing_that_it_learned_otherwise() -> None:
    # The old leader's value in a slot is held by one follower; the others choose another one at a higher ballot
    # that reaches neither of the two. The old leader lags, and fetches the chosen value.
    cluster = Scenario(5, config=replace(QUICK, election_timeout_ms=3_000, backoff_ms_max=60))
    old = cluster.settle()
    follower, *rest = others(cluster, old)
    for outside in rest:
        for inside in (old, follower):
            for kind in (Kind.PREPARE, Kind.OPEN, Kind.ACCEPT, Kind.DECIDE, Kind.NACK, Kind.FORWARD):
                cluster.drop(kind, sender=outside, receiver=inside)
                cluster.drop(kind, sender=inside, receiver=outside)
            cluster.drop(Kind.PONG, sender=inside, receiver=outside)
    cluster.drop(Kind.FETCH_CHOSEN, sender=follower)
    cluster.propose(old, 1)
    new = cluster.wait_leader(among=rest)
    cluster.wait_committed(cluster.propose(new, 2))
    cluster.wait_same_log(among=[old])
    cluster.run(200)
    assert not cluster.node(old).leads
    cluster.world.network.filters.clear()
    cluster.wait_same_log()


def test_a_value_learned_while_leading_does_not_fill_the_window_for_ever() -> None:
    cluster = Scenario(config=replace(QUICK, window_bytes=16, election_timeout_ms=2_000))
    leader = cluster.settle()
    accepted = cluster.drop(Kind.ACCEPTED, receiver=leader)
    pongs = cluster.drop(Kind.PONG, receiver=leader)
    cluster.propose(leader, 1)
    history = cluster.world.history
    cluster.wait(lambda: len(history.chosen) > len(history.log), what="the choice")
    slot = history.chosen_prefix
    kind, value = history.chosen[slot]
    peer = others(cluster, leader)[0]
    frame = codec.encode_frame(
        Kind.CHOSEN,
        sender=peer,
        receiver=leader,
        cluster=CLUSTER,
        incarnation=cluster.node(peer).incarnation,
        slot=slot,
        mark=slot,
        detail=kind,
        payload=value,
    )
    cluster.world.deliver(wire.view(frame))
    cluster.wait_same_log(among=[leader])
    accepted.stop()
    pongs.stop()
    cluster.wait_committed(cluster.propose(leader, 2))
    assert cluster.leaders() == [leader]


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_hears_the_leader_through_a_peer_only_can_propose(seed: int) -> None:
    cluster = Scenario(seed=seed)
    leader = cluster.settle()
    far = others(cluster, leader)[0]
    cluster.cut_between([leader], [far])
    cluster.run(5 * cluster.election_timeout_ms)
    cluster.wait_committed(cluster.propose(far, 3))


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_a_new_leader_does_not_depose_itself(nodes: int) -> None:
    # The round that closed just before it began to lead still says that nobody leads.
    for seed in range(20):
        cluster = Scenario(nodes, seed=seed, control_us=8_000)
        cluster.settle()
        cluster.run(3 * cluster.election_timeout_ms)
        candidates = [node for node, _ in cluster.world.history.leaders.values()]
        assert len(candidates) == len(set(candidates)), f"seed {seed}: ballots of {candidates}"


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_an_answer_to_an_earlier_life_is_no_error(status: int) -> None:
    cluster = Scenario()
    leader = cluster.settle()
    target = others(cluster, leader)[0]
    for kind in (Kind.FETCHED, Kind.PROMISE, Kind.NACK, Kind.CHOSEN_GONE):
        payload = wire.PROMISE_HEAD.pack(0, 1, 0, 1, 0, 1, bytes(16)) if kind == Kind.PROMISE else b""
        frame = codec.encode_frame(
            kind,
            sender=leader,
            receiver=target,
            cluster=CLUSTER,
            incarnation=cluster.node(leader).incarnation,
            slot=1,
            ballot=ballots.make(1, target),
            detail=status << 8 | 1,
            payload=payload,
        )
        cluster.world.deliver(wire.view(frame))
    cluster.wait_committed(cluster.propose(target, 1))


# --- liveness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_l3_chained_the_leader_stays_and_the_far_end_gets_the_log(seed: int) -> None:
    cluster = Scenario(3, seed=seed)
    leader = cluster.wait_leader()
    middle, far = others(cluster, leader)
    cluster.run(100)
    before = set(cluster.world.history.leaders)
    cluster.cut_between([leader], [far])
    commands = cluster.propose(leader, 3)
    cluster.wait_committed(commands)
    cluster.wait_same_log(within_ms=4 * cluster.election_timeout_ms)
    cluster.wait_committed(cluster.propose(far, 1))
    cluster.run(10 * cluster.election_timeout_ms)
    assert cluster.leaders() == [leader]
    assert set(cluster.world.history.leaders) == before
    assert middle in cluster.members


def test_l5_a_deaf_node_disturbs_nobody() -> None:
    cluster = Scenario()
    leader = cluster.wait_leader()
    deaf = others(cluster, leader)[0]
    cluster.run(100)
    before = set(cluster.world.history.leaders)
    cluster.cut(*((id, deaf) for id in others(cluster, deaf)))
    for _ in range(5):
        cluster.wait_committed(cluster.propose(leader, 1))
        cluster.run(cluster.election_timeout_ms)
    cluster.heal()
    cluster.wait_same_log()
    assert set(cluster.world.history.leaders) == before


@pytest.mark.parametrize("commands", [0, 1], ids=["idle", "busy"])
def test_l6_a_leader_cut_from_its_quorum_steps_down(commands: int) -> None:
    # While something waits, the lack of progress tells it as well; an idle leader must notice by itself.
    cluster = Scenario()
    leader = cluster.settle()
    cluster.isolate(leader)
    cluster.propose(leader, commands)
    cluster.wait(
        lambda: not cluster.node(leader).leads,
        within_ms=2 * cluster.election_timeout_ms,
        what="stepping down",
    )


def test_l7_a_lagging_follower_catches_up_without_new_writes() -> None:
    cluster = Scenario(config=replace(QUICK, retained_bytes_max=1, window_slots=4, batch_bytes_max=16))
    leader = cluster.wait_leader()
    behind = others(cluster, leader)[0]
    cluster.crash(behind)
    for _ in range(30):
        cluster.wait_committed(cluster.propose(leader, 1))
    cluster.restart(behind)
    cluster.wait_same_log()
    assert cluster.world.network.delivered[Kind.CHOSEN] > 0


SINGLE_LOSSES = [
    Kind.HELLO,
    Kind.PING,
    Kind.PONG,
    Kind.PREPARE,
    Kind.PROMISE,
    Kind.OPEN,
    Kind.ACCEPT,
    Kind.ACCEPTED,
    Kind.DECIDE,
    Kind.NACK,
    Kind.FORWARD,
    Kind.FETCH_CHOSEN,
    Kind.CHOSEN,
]


@pytest.mark.parametrize("kind", SINGLE_LOSSES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("skipped", [0, 1, 2, 5])
def test_l8_one_lost_frame_of_any_kind_is_made_up_for(kind: int, skipped: int) -> None:
    cluster = Scenario(start=False)
    seen = 0

    def lose_one(frame: wire.Frame) -> bool:
        nonlocal seen
        if frame.kind != kind:
            return True
        seen += 1
        return seen != skipped + 1

    cluster.world.network.filters.append(lose_one)
    cluster.world.start()
    leader = cluster.wait_leader()
    cluster.wait_committed([command for id in cluster.members for command in cluster.propose(id, 2)])
    cluster.crash(leader)
    second = cluster.wait_leader(among=others(cluster, leader))
    cluster.wait_committed(cluster.propose(second, 2))
    cluster.restart(leader)
    cluster.wait_same_log()
