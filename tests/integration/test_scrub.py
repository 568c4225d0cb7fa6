"""K6: what rots in an old segment is found while the node runs, before anybody needs it."""

from __future__ import annotations

from pathlib import Path

import paxos
from tests.integration.test_quarantine import COMMANDS, CONFIG, WAIT_S, Recorder, flip, segments
from tests.integration.test_replica import until


def test_k6_the_scrub_finds_latent_damage_and_a_restart_heals_it(tmp_path: Path) -> None:
    node = tmp_path / "node-2"
    with paxos.LocalCluster(
        3, state_machine=Recorder, directory=tmp_path, transport="tcp", config=CONFIG
    ) as cluster:
        for command in COMMANDS:
            cluster.leader(WAIT_S).propose(command, WAIT_S)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        scrub = cluster[2]._node.parts.scrub
        scrub.run_once()
        assert cluster[2].status().damaged_records == 0, "nothing is damaged yet"
        closed = segments(node)[1]
        flip(closed, closed.read_bytes().find(b"value-") + 50)
        scrub.run_once()
        assert cluster[2].status().damaged_records == 1
        [what] = cluster[2].inspect()["scrub"]["damaged"].values()
        assert "the value of slot" in what and "damaged records" in str(cluster[2].status())
        cluster.stop(2)
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        assert cluster[2].state_machine.seen == COMMANDS and cluster[2].status().quarantine is None
        until(lambda: cluster[2].inspect()["scrub"]["passes"] > 0)  # its own thread runs, too
