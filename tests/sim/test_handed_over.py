"""What was handed to a socket is not delivered (Z5): only the answer of the protocol counts."""

from __future__ import annotations

import pytest

from paxos.sim import wire
from paxos.sim.scenario import Scenario

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
