"""kill -9 of members, of the leader, of all of them at once: nothing that was acknowledged is lost (F3, G1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.cluster import TIMES, Cluster
from tests.process.kills import Killer
from tests.process.workload import Clients

KILLS = 50 * TIMES


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(300 * TIMES)
def test_g1_f3_kill_9_again_and_again(seed: int, tmp_path: Path) -> None:
    with Cluster(tmp_path, config={"segment_bytes": 64 << 10}) as cluster:
        cluster.start()
        cluster.leader()
        with Clients(cluster, seed=seed) as clients:
            killer = Killer(cluster, clients, seed)
            while killer.kills < KILLS:
                killer.strike()
            found = clients.verdict()
        assert found["acknowledged"] > 5 * KILLS
        assert killer.leader_kills and killer.massacres
