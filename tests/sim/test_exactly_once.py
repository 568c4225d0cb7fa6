"""Every command once: forwarded, repeated, overtaken and orphaned batches (h14, h21, C1, C5, C6)."""

from __future__ import annotations

import pytest

from paxos._core import codec
from paxos._core.codec import FrameKind
from paxos.sim.scenario import Scenario
from paxos.types import Config

NARROW = Config(heartbeat_ms=20, election_timeout_ms=100, backoff_ms_max=120, batch_bytes_max=32)
"""Batches of one or two commands, so that a few commands make several of them."""


def follower_of(cluster: Scenario, leader: int) -> int:
    """Return some other member."""
    return next(id for id in cluster.members if id != leader)


def positions(cluster: Scenario, commands: list[bytes]) -> list[int]:
    """Return where among the applied commands these stand."""
    applied = [
        command
        for slot in cluster.world.history.log
        if slot.first_index
        for command in codec.decode_batch(slot.held[1])[3]
    ]
    return [applied.index(command) for command in commands]


def test_h14_c1_f1_forwarded_and_repeated_proposals_are_applied_once() -> None:
    cluster = Scenario(duplicate=1.0, loss=0.2, reorder=True, delay_us=3_000)
    cluster.wait_leader()
    commands = [command for id in cluster.members for command in cluster.propose(id, 10)]
    cluster.wait_committed(commands, within_ms=20_000)
    assert len(cluster.world.history.commands_applied) == len(commands)


@pytest.mark.parametrize("late", [False, True])
def test_h14_c5_a_copy_that_outlives_its_proposer_is_applied_at_most_once(late: bool) -> None:
    """Its caller was told *unknown*, never *rejected*: the copy on its way may still be chosen, or be too late."""
    cluster = Scenario()
    leader = cluster.settle()
    origin = follower_of(cluster, leader)
    copies = cluster.hold(FrameKind.FORWARD, sender=origin)
    (orphan,) = cluster.propose(origin)
    cluster.wait(lambda: len(copies.frames) >= 2, what="a repeated forward")
    copies.stop()
    cluster.crash(origin)
    if not late:
        copies.release()
        cluster.run(20)
    cluster.restart(origin)
    cluster.wait_committed(cluster.propose(origin))
    if late:
        copies.release()  # frames of an earlier life: nobody listens to them any more
    cluster.wait_committed(cluster.propose(origin))
    cluster.wait_same_log()
    assert (orphan in cluster.world.history.commands_applied) is not late


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_h21_what_follows_a_lost_batch_is_not_skipped_for_ever(lost: int) -> None:
    """Later batches that are chosen before a lost one are not applied out of turn; all of them come again."""
    cluster = Scenario(config=NARROW)
    leader = cluster.settle()
    origin = follower_of(cluster, leader)
    gap = cluster.drop(FrameKind.FORWARD, sender=origin, count=lost)
    commands = cluster.propose(origin, 12)
    cluster.wait_committed(commands)
    assert len(gap.frames) == lost
    assert positions(cluster, commands) == sorted(positions(cluster, commands))
    cluster.wait_same_log()
    assert cluster.node(leader).engine.counters()["refused_forwards"]  # it takes nothing out of turn


def test_h21_a_gap_outlives_the_leader_that_met_it() -> None:
    cluster = Scenario(config=NARROW)
    leader = cluster.settle()
    origin = follower_of(cluster, leader)
    cluster.drop(FrameKind.FORWARD, sender=origin, count=1)
    commands = cluster.propose(origin, 12)
    cluster.run(3)
    cluster.crash(leader)
    cluster.wait_committed(commands)
    assert positions(cluster, commands) == sorted(positions(cluster, commands))


def test_c6_commands_of_one_proposer_keep_their_order_over_reordering_links() -> None:
    cluster = Scenario(config=NARROW, reorder=True, delay_us=5_000, loss=0.1)
    leader = cluster.wait_leader()
    origin = follower_of(cluster, leader)
    commands = cluster.propose(origin, 30)
    cluster.wait_committed(commands, within_ms=20_000)
    assert positions(cluster, commands) == sorted(positions(cluster, commands))


def test_h21_a_leader_that_takes_some_gets_the_rest_at_once() -> None:
    """Once the leader has shown that it lives, a lost batch holds the later ones back for one answer's time."""
    cluster = Scenario(config=NARROW)
    leader = cluster.settle()
    cluster.run(2 * cluster.election_timeout_ms)
    origin = follower_of(cluster, leader)
    commands = cluster.propose(origin)
    cluster.run(0.05)  # it is on its way, and not chosen yet
    cluster.drop(FrameKind.FORWARD, sender=origin, count=1)
    commands += cluster.propose(origin, 6)
    took_ms = cluster.wait(lambda: cluster.is_committed(commands), what="the rest")
    assert took_ms < 3 * NARROW.heartbeat_ms
