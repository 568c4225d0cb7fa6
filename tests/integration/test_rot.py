"""Values that rot on disk: what one node lost its peers still have; nothing is guessed and nothing is cut (G7, K2)."""

from __future__ import annotations

from pathlib import Path

import pytest

import paxos

WAIT_S = 40.0
COMMANDS = [b"value-%03d-" % number + b"x" * 200 for number in range(60)]


class Recorder(paxos.StateMachine):
    """Remembers every command."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def apply(self, command: bytes, context: paxos.ApplyContext) -> int:
        """Remember one command."""
        self.seen.append(bytes(command))
        return len(self.seen)


def rot(directory: Path, node_id: int, numbers: list[int]) -> None:
    """Flip one bit in the value of each of these commands, wherever the node's log holds it."""
    found = 0
    for segment in sorted((directory / f"node-{node_id}" / "log").glob("0*.segment")):
        data = bytearray(segment.read_bytes())
        for number in numbers:
            at = data.find(b"value-%03d-" % number)
            while at >= 0:
                data[at + 50] ^= 4
                found += 1
                at = data.find(b"value-%03d-" % number, at + 1)
        segment.write_bytes(data)
    assert found >= len(numbers)


@pytest.fixture
def cluster(tmp_path: Path) -> paxos.LocalCluster:
    cluster = paxos.LocalCluster(3, state_machine=Recorder, directory=tmp_path, transport="tcp")
    leader = cluster.leader(WAIT_S)
    for command in COMMANDS:
        leader.propose(command, WAIT_S)
    cluster.wait_applied(len(COMMANDS), WAIT_S)
    return cluster


@pytest.mark.parametrize("damaged", [[0], [7, 20, 41], [59]])
def test_g7_what_rots_on_one_node_is_fetched_from_its_peers(
    cluster: paxos.LocalCluster, tmp_path: Path, damaged: list[int]
) -> None:
    with cluster:
        cluster.stop(2)
        rot(tmp_path, 2, damaged)
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        assert cluster[2].state_machine.seen == COMMANDS
        # It is healed on disk: the node can lead with it, and finds it again.
        leader = cluster.leader(WAIT_S)
        assert leader.node_id == 2 or leader.transfer_leadership(2, WAIT_S)
        assert cluster[2].propose(b"after", WAIT_S).index == len(COMMANDS) + 1
        cluster.stop(2)
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS) + 1, WAIT_S)
        assert cluster[2].state_machine.seen == [*COMMANDS, b"after"]


def test_f11_no_copy_is_whole_and_nothing_is_lost(cluster: paxos.LocalCluster, tmp_path: Path) -> None:
    with cluster:
        for node_id in cluster.members:
            cluster.stop(node_id)
        for node_id, damaged in {1: [3, 30], 2: [10, 40], 3: [20, 50]}.items():
            rot(tmp_path, node_id, damaged)
        for node_id in cluster.members:
            cluster.restart(node_id)
        cluster.leader(WAIT_S)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        for replica in cluster:
            assert replica.state_machine.seen == COMMANDS
