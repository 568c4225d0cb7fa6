"""Slow disks, slow links, repartitioning and overload: the cluster goes on, and recovers by itself (F13, L4, L9)."""

from __future__ import annotations

from itertools import permutations

import pytest

from paxos.sim.node import Node
from paxos.sim.scenario import Scenario
from paxos.sim.wire import Kind
from paxos.sim.world import World
from paxos.types import Config


class SteadyDisks(World):
    """Every sync takes exactly ``sync_us``, times the factor of its node."""

    def sync_delay_us(self, node: Node) -> int:
        return max(self.parameters.sync_us_of(node.id), node.disk_hangs_until - self.now_us)


def p99(times: list[float]) -> float:
    return times[len(times) * 99 // 100]


@pytest.mark.parametrize("sync_ms", [100, 200, 400])
def test_disks_slower_than_the_election_timeout_commit_under_one_leader(sync_ms: int) -> None:
    """Syncs of up to 400 ms against an election timeout of 150: values are chosen, and nobody is deposed for it."""
    cluster = Scenario(config=Config(), sync_us=sync_ms * 1000, world_class=SteadyDisks)
    cluster.load(5_000, every_ms=100)
    elections = cluster.elections()
    commands = cluster.load(15_000, every_ms=100)
    cluster.wait_committed(commands)
    assert cluster.elections() <= elections + 1
    assert p99(cluster.latencies_ms(commands)) < 12 * sync_ms


def test_h22_a_leader_whose_proposals_do_not_pass_still_gives_way_on_slow_disks() -> None:
    cluster = Scenario(config=Config(), sync_us=100_000, world_class=SteadyDisks)
    leader = cluster.settle()
    mute = cluster.drop(Kind.ACCEPT, sender=leader)
    cluster.propose(leader, 3)
    second = cluster.wait_leader(among=[id for id in cluster.members if id != leader], within_ms=8_000)
    cluster.wait_committed(cluster.propose(second, 2))
    mute.stop()


def latency_with(slow: tuple[int, ...], lagging: int = 0) -> float:
    """Return the p99 latency of commands proposed at a leader of five, in milliseconds."""
    cluster = Scenario(5, sync_us=1_000, slow_disks=slow, world_class=SteadyDisks, config=Config(priority=0))
    cluster.settle()
    if lagging:
        for other in cluster.members:
            if other != lagging:
                cluster.world.network.clogged[lagging, other] = cluster.world.network.clogged[
                    other, lagging
                ] = 400_000
    leader = cluster.wait_leader(among=[id for id in cluster.members if id != lagging and slow[id - 1] == 1])
    commands = cluster.load(4_000, at=[leader])
    cluster.wait_committed(commands)
    return p99(cluster.latencies_ms(commands))


@pytest.mark.parametrize("fault", ["disk", "link"])
def test_l4_one_slow_disk_or_link_of_five_does_not_stall_the_others(fault: str) -> None:
    healthy = latency_with((1, 1, 1, 1, 1))
    probe = Scenario(5, sync_us=1_000, world_class=SteadyDisks, config=Config(priority=0))
    victim = 1 + probe.settle() % 5
    slow = tuple(300 if id == victim and fault == "disk" else 1 for id in range(1, 6))
    assert latency_with(slow, victim if fault == "link" else 0) <= 3 * healthy


@pytest.mark.parametrize("nodes", [3, 5])
def test_constant_repartitioning_leaves_nobody_waiting_after_a_heal(nodes: int) -> None:
    """One second cut into random halves, one second whole, for up to 50 seconds: nothing waits long after a heal."""
    cluster = Scenario(nodes, config=Config())
    cluster.settle()
    rng = cluster.world.rng
    waiting: list[bytes] = []
    for _ in range(25 if nodes == 3 else 10):
        side = set(rng.sample(cluster.members, rng.randint(1, nodes - 1)))
        cluster.cut(
            *(link for link in permutations(cluster.members, 2) if (link[0] in side) != (link[1] in side))
        )
        waiting += cluster.load(1_000, every_ms=100)
        cluster.heal()
        waiting += cluster.load(1_000, every_ms=100)
    healed_us = cluster.world.now_us - 1_000_000
    cluster.wait_committed(waiting, within_ms=1_000)
    late = [c for c in waiting if cluster.world.clients.proposed_us[c] < healed_us]
    assert max(cluster.world.history.acknowledged_us[c] for c in late) < healed_us + 2_000_000


def test_l9_when_the_overload_ends_the_cluster_is_as_quick_as_before_it() -> None:
    small = Config(window_slots=4, batch_bytes_max=64, retained_bytes_max=4096)
    cluster = Scenario(3, config=small, sync_us=2_000, world_class=SteadyDisks)
    leader = cluster.settle()
    before = cluster.load(1_000, every_ms=20, at=[leader])
    cluster.wait_committed(before)
    flood = [command for id in cluster.members for command in cluster.propose(id, 700)]
    cluster.wait_committed(flood, within_ms=60_000)
    leader = cluster.wait_leader()
    after = cluster.load(1_000, every_ms=20, at=[leader])
    cluster.wait_committed(after)
    assert p99(cluster.latencies_ms(after)) <= 2 * p99(cluster.latencies_ms(before))
    for node in cluster.world.nodes.values():
        assert node.engine.inspect()["held_bytes"] <= 2 * small.retained_bytes_max
