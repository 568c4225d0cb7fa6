"""Which members a restarted node counts: the log's, or those it was first started with; never itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import paxos
from paxos.cli.processes import free_ports

pytestmark = pytest.mark.timeout(60)


def three_addresses() -> dict[int, str]:
    return {node: f"tcp://127.0.0.1:{port}" for node, port in zip((1, 2, 3), free_ports(3), strict=True)}


def test_h13_a_member_restarted_without_members_does_not_become_a_cluster_of_one(tmp_path: Path) -> None:
    members = three_addresses()
    with paxos.Replica(tmp_path / "n1", node_id=1, members=members) as replica:
        assert replica.status().leader is None  # the others never came up: nothing is in the log
    with pytest.raises(paxos.ConfigError, match="give the members"):
        paxos.Replica(tmp_path / "n1")
    with paxos.Replica(tmp_path / "n1", node_id=1, members=members) as replica:
        assert len(replica.inspect()["members"]) == 3


def test_m9_the_log_says_who_the_members_are(tmp_path: Path) -> None:
    members = three_addresses()
    replicas = [paxos.Replica(tmp_path / str(node), node_id=node, members=members) for node in members]
    try:
        replicas[0].propose(b"x", timeout=30)
    finally:
        for replica in replicas:
            replica.close()
    with paxos.Replica(tmp_path / "1") as replica:
        assert set(replica.inspect()["members"]) == set(members)
        with pytest.raises(paxos.OutcomeUnknown):
            replica.propose(b"alone", timeout=0.5)  # one of three is no quorum
