"""Phase 1 over a long unchosen suffix, one slot to a page: it ends, and looks at each slot a few times only (P6)."""

from __future__ import annotations

from typing import Any

import pytest

from paxos.proposer import Proposer
from paxos.sim.scenario import Scenario
from paxos.sim.wire import Kind
from paxos.types import Config

SLOTS = 2000


@pytest.mark.parametrize("loss", [0.0, 0.0005])
def test_p6_a_suffix_of_thousands_of_slots_in_pages_of_one_is_taken_over(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = Proposer._votes_at

    def counted(self: Proposer, slot: int) -> Any:
        nonlocal looks
        looks += 1
        return original(self, slot)

    cluster = Scenario(3, config=Config(promise_page_entries=1, window_slots=1 << 13, batch_bytes_max=32))
    leader = cluster.settle()
    unheard = [cluster.drop(Kind.ACCEPTED), cluster.drop(Kind.PONG)]
    while cluster.node(leader).engine.glance()["next_slot"] < SLOTS:
        cluster.propose(leader, 50)
        cluster.run(1)
    assert len(cluster.world.history.log) < 10
    cluster.crash(leader, keep=None)
    for tap in unheard:
        tap.stop()
    monkeypatch.setattr(Proposer, "_votes_at", counted)
    cluster.world.network.kind_loss = {int(Kind.PROMISE): loss, int(Kind.FETCHED): loss}
    rest = [id for id in cluster.members if id != leader]
    second = cluster.wait_leader(among=rest, within_ms=60 * cluster.election_timeout_ms)
    cluster.wait_committed(cluster.propose(second, 3))
    cluster.wait_same_log(among=rest)
    assert len(cluster.world.history.log) >= SLOTS
    assert looks <= 40 * SLOTS
