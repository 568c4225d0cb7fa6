"""Clocks that drift, leap and sleep decide nothing but when something is tried again (F12)."""

from __future__ import annotations

import pytest

from paxos.sim.scenario import Scenario

HOUR_US = 3600 * 1_000_000


@pytest.mark.parametrize("who", ["leader", "follower", "everybody"])
def test_f12_a_clock_that_leaps_an_hour_ahead_loses_nothing(who: str) -> None:
    cluster = Scenario()
    leader = cluster.settle()
    commands = cluster.propose(leader, 3)
    leapers = {
        "leader": [leader],
        "follower": [id for id in cluster.members if id != leader][:1],
        "everybody": cluster.members,
    }[who]
    for id in leapers:
        cluster.node(id).clock.jump(cluster.world.now_us, HOUR_US)
        cluster.node(id).wake(cluster.world.now_us)
    cluster.wait_committed(commands)
    for id in cluster.members:
        cluster.wait_committed(cluster.propose(id, 1))
    cluster.wait_same_log()
    cluster.run(5 * cluster.election_timeout_ms)
    assert len(cluster.leaders()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_f12_clocks_of_different_rates_elect_and_keep_one_leader(seed: int) -> None:
    """A third faster and a third slower than the world: no crystal is that bad."""
    cluster = Scenario(seed=seed, drift_ppm=300_000)
    leader = cluster.settle()
    assert len({cluster.node(id).clock.when(1 << 40) for id in cluster.members}) == 3
    assert any(cluster.node(id).clock.read(1 << 40) != 1 << 40 for id in cluster.members)
    before = set(cluster.world.history.leaders)
    for _ in range(5):
        cluster.run(5 * cluster.election_timeout_ms)
        cluster.wait_committed(cluster.propose(leader, 1))
    assert set(cluster.world.history.leaders) == before


def test_f12_the_host_sleeps_under_a_leader() -> None:
    """Suspended for an hour of its own clock: it wakes up deposed, or goes on; it never acknowledges alone."""
    cluster = Scenario()
    leader = cluster.settle()
    lost = cluster.propose(leader, 1)
    cluster.pause(leader, 600)
    cluster.run(1)
    cluster.node(leader).clock.jump(cluster.world.now_us, HOUR_US)
    second = cluster.wait_leader(among=[id for id in cluster.members if id != leader])
    cluster.wait_committed(cluster.propose(second, 2))
    cluster.wait_committed(lost)
    cluster.wait_same_log()
