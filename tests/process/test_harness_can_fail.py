"""The judges of the process tests find what they are there to find."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.process.cluster import Cluster
from tests.process.workload import Clients

LOG: list[tuple[int, list[Any]]] = [(at, [f"0.{at}", "append", "k", f"{at} "]) for at in range(1, 9)]


@pytest.mark.parametrize(
    ("said", "damage"),
    [
        ("a gap", lambda logs, _: logs[2].pop(3)),
        ("the log of node 2 differs", lambda logs, _: logs[2].__setitem__(3, (4, ["0.99", "put", "k", "v"]))),
        ("more than once", lambda logs, _: [log.append((9, LOG[2][1])) for log in logs.values()]),
        ("not in the log", lambda logs, _: [log.pop() for log in logs.values()]),
        ("at another index", lambda _, clients: clients.acknowledged.update({"0.3": 4})),
        ("refused and yet", lambda _, clients: clients.refused.add("0.5")),
        ("", lambda _, clients: clients.unknown.add("0.9")),
    ],
)
def test_a_bad_log_is_noticed(said: str, damage: Any, tmp_path: Path) -> None:
    clients = Clients(None, 1)  # type: ignore[arg-type]
    clients.acknowledged = {command[0]: index for index, command in LOG if index != 5}
    logs = {node: copy.deepcopy(LOG) for node in (1, 2, 3)}
    damage(logs, clients)
    if not said:
        clients.demand_logs(logs)
        return
    with pytest.raises(AssertionError, match=said):
        clients.demand_logs(logs)


def test_r1_a_member_that_answers_reads_from_an_old_state_is_noticed(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.nodes[2].stale = True
        cluster.start()
        with Clients(cluster) as clients:
            clients.wait_done(400)
            with pytest.raises(AssertionError, match="not linearizable"):
                clients.verdict()
