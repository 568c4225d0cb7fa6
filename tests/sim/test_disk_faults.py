"""Scripted faults of disks and directories: F6, F7, F10, F13 and what each of them must come to."""

from __future__ import annotations

import pytest

from paxos.sim import wire
from paxos.sim.invariants import Violation
from paxos.sim.node import Node
from paxos.sim.scenario import Scenario
from paxos.sim.world import World
from tests.sim.mutants import NumbersFromOne, world_with

Kind = wire.Kind


def others(cluster: Scenario, *ids: int) -> list[int]:
    return [id for id in cluster.members if id not in ids]


# --- wiped directories and damaged headers -------------------------------------------------------------------


def wiped_node_meets_a_late_hello(world_class: type[World]) -> Scenario:
    """Node 3 comes back empty; a Hello of node 1 from before lets it answer node 1 before it was looked at."""
    cluster = Scenario(start=False, world_class=world_class)
    late = cluster.hold(Kind.HELLO, sender=1, receiver=3, count=1)
    cluster.world.start()
    cluster.settle()
    cluster.crash(3)
    cluster.wipe(3)
    cluster.hold(Kind.HELLO, sender=3)
    cluster.restart(3)
    late.release()
    cluster.run(200)
    return cluster


def test_s1_a_wiped_directory_is_not_taken_for_the_old_one() -> None:
    cluster = wiped_node_meets_a_late_hello(World)
    assert cluster.world.counts["foreign_frame_refused"] > 0
    leader = cluster.wait_leader(among=[1, 2])
    cluster.wait_committed(cluster.propose(leader, 3))


def test_s1_without_numbers_of_its_own_it_would_be() -> None:
    with pytest.raises(Violation, match="S1: node 1 took a"):
        wiped_node_meets_a_late_hello(world_with(node=NumbersFromOne))


@pytest.mark.parametrize("nodes", [3, 5])
def test_s1_a_wiped_minority_never_votes_and_the_others_go_on(nodes: int) -> None:
    cluster = Scenario(nodes)
    cluster.settle()
    for id in range(1, (nodes - 1) // 2 + 1):
        cluster.crash(id)
        cluster.wipe(id)
        cluster.restart(id)
    rest = others(cluster, *cluster.world.history.foreign)
    leader = cluster.wait_leader(among=rest)
    cluster.wait_committed(cluster.propose(leader, 5))
    cluster.wait_same_log(among=rest)
    # One of the rest is missing: those that are left and the wiped ones together are no quorum.
    cluster.crash(rest[-1])
    commands = cluster.propose(rest[0])
    cluster.run(20 * cluster.election_timeout_ms)
    assert not cluster.is_committed(commands)


@pytest.mark.parametrize("nodes", [3, 5])
def test_h5_a_quarantined_minority_only_learns(nodes: int) -> None:
    cluster = Scenario(nodes)
    leader = cluster.settle()
    cluster.wait_committed(cluster.propose(leader, 5))
    cluster.run(100)  # idle marks cover everything
    victims = cluster.members[: (nodes - 1) // 2]
    for id in victims:
        cluster.crash(id)
        cluster.spoil(id)
        cluster.restart(id)
    assert cluster.world.history.quarantined == set(victims)
    rest = others(cluster, *victims)
    leader = cluster.wait_leader(among=rest)
    cluster.wait_committed(cluster.propose(leader, 5))
    cluster.wait_same_log()
    cluster.crash(rest[-1])
    commands = cluster.propose(rest[0])
    cluster.run(20 * cluster.election_timeout_ms)
    assert not cluster.is_committed(commands)


# --- disks that fail, fill up or hang ------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 3])
def test_f6_a_failed_sync_stops_the_node_and_loses_nothing_acknowledged(nodes: int) -> None:
    cluster = Scenario(nodes)
    leader = cluster.settle()
    done = cluster.propose(leader, 3)
    cluster.wait_committed(done)
    log = len(cluster.world.history.log)
    cluster.node(leader).disk_error = True
    cluster.propose(leader, 1)
    cluster.wait(lambda: not cluster.node(leader).up, what="the stop of the leader")
    cluster.restart(leader)
    cluster.wait_leader()
    cluster.wait(lambda: cluster.world.history.applied_upto[leader] >= log, what="the recovery of the log")


@pytest.mark.parametrize("who", ["leader", "follower", "all"])
def test_f7_a_full_disk_refuses_loses_nothing_and_resumes(who: str) -> None:
    cluster = Scenario(3)
    leader = cluster.settle()
    victims = {"leader": [leader], "follower": others(cluster, leader)[:1], "all": cluster.members}[who]
    now = cluster.world.now_us
    for id in victims:
        cluster.node(id).disk_full_from = now
        cluster.node(id).disk_low_until = now + 1_000_000
    commands = [command for id in cluster.members for command in cluster.propose(id, 2)]
    if who == "all":
        cluster.run(900)
        assert not cluster.is_committed(commands)
        assert all(node.up for node in cluster.world.nodes.values())
    else:
        spared = others(cluster, *victims)
        working = cluster.wait_leader(among=spared, within_ms=900)
        cluster.wait_committed(cluster.propose(working, 2), within_ms=900)
    cluster.wait(lambda: cluster.world.now_us > now + 1_000_000, what="space")
    cluster.wait_committed(commands)
    cluster.wait_same_log()


@pytest.mark.parametrize("nodes", [3, 5])
def test_f13_a_leader_whose_sync_hangs_gives_way(nodes: int) -> None:
    cluster = Scenario(nodes)
    leader = cluster.settle()
    victim: Node = cluster.node(leader)
    victim.disk_hangs_until = cluster.world.now_us + 5_000_000
    cluster.propose(leader, 1)
    second = cluster.wait_leader(among=others(cluster, leader), within_ms=10 * cluster.election_timeout_ms)
    cluster.wait_committed(cluster.propose(second, 3))
    cluster.wait(lambda: not victim.leads, what="the end of the old leader", within_ms=6_000)
    cluster.wait_same_log()
