"""What arrives, what does not, and what arrives from elsewhere: only the answers of the protocol count (Z5, h25)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paxos._core import codec
from paxos.sim import wire
from paxos.sim.node import CLUSTER
from paxos.sim.scenario import QUICK, Scenario

Kind = wire.Kind


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.ACCEPTED], ids=["lost", "unanswered"])
def test_z5_values_that_left_and_were_not_answered_do_not_count(kind: int) -> None:
    cluster = Scenario()
    leader = cluster.settle()
    lost = cluster.drop(kind)
    pongs = cluster.drop(Kind.PONG, receiver=leader)  # these tell what arrived, too
    commands = cluster.propose(leader, 2)
    cluster.wait(lambda: len(lost.frames) >= 2, what="the values leaving")
    cluster.run(cluster.election_timeout_ms / 2)
    assert not cluster.is_committed(commands)
    lost.stop()
    pongs.stop()
    cluster.wait_committed(commands)
    cluster.wait_same_log()


def test_z5_who_joins_late_misses_nothing() -> None:
    """A socket forgets what was sent before the other side came; the log does not."""
    cluster = Scenario(5)
    leader = cluster.settle()
    late = [id for id in cluster.members if id != leader][:2]
    for id in late:
        cluster.crash(id)
    commands = cluster.propose(leader, 20)
    cluster.wait_committed(commands)
    for id in late:
        cluster.restart(id)
    cluster.wait_same_log()
    assert set(commands) <= cluster.world.history.commands_applied


def test_z5_frames_of_an_earlier_life_are_told_apart_by_the_greeting() -> None:
    """Reconnecting is silent: what is still on its way belongs to a node that has forgotten it."""
    cluster = Scenario()
    leader = cluster.settle()
    target = next(id for id in cluster.members if id != leader)
    late = cluster.hold(Kind.ACCEPTED, sender=target)
    cluster.wait_committed(cluster.propose(leader, 3))
    cluster.wait(lambda: bool(late.frames), what="an answer that is held")
    cluster.crash(target)
    cluster.restart(target)
    cluster.wait_same_log()
    before = cluster.node(leader).engine.counters()["unverified"]
    late.release()
    cluster.run(5)
    assert cluster.node(leader).engine.counters()["unverified"] > before
    cluster.wait_committed(cluster.propose(leader, 1))


def test_h25_a_leader_that_is_shown_another_value_announces_nothing() -> None:
    """It hears of no higher ballot, only of a chosen value: its follower holds what it proposed itself there."""
    cluster = Scenario(5, config=replace(QUICK, election_timeout_ms=3_000, backoff_ms_max=60))
    old = cluster.settle()
    follower, *rest = [id for id in cluster.members if id != old]
    cluster.cut_between([old, follower], rest)
    unchosen = cluster.propose(old, 1)
    cluster.run(20)
    new = cluster.wait_leader(among=rest)
    cluster.wait_committed(cluster.propose(new, 1))
    assert cluster.node(old).leads
    history = cluster.world.history
    first = history.applied_upto[old] + 1
    for slot in range(first, history.chosen_prefix + 1):
        kind, value = history.chosen[slot]
        frame = codec.encode_frame(
            Kind.CHOSEN,
            sender=rest[0],
            receiver=old,
            cluster=CLUSTER,
            incarnation=cluster.node(rest[0]).incarnation,
            slot=slot,
            mark=history.chosen_prefix,
            detail=kind,
            payload=value,
        )
        cluster.world.deliver(wire.view(frame))
        cluster.run(1)
    assert not cluster.node(old).leads
    cluster.run(50)
    assert not cluster.is_committed(unchosen)
    cluster.heal()
    cluster.wait_same_log()
    cluster.wait_committed(unchosen)
