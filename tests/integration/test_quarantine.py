"""A node whose memory may have lost promises: it learns, it never votes, and it stays so [h5, K4, S1, F10]."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import paxos
from paxos.errors import Closed, OutcomeUnknown
from tests.integration.test_replica import until

WAIT_S = 60.0
COMMANDS = [b"value-%03d-" % number + b"x" * 700 for number in range(60)]
CONFIG = paxos.Config(segment_bytes=16 << 10)


class Recorder(paxos.StateMachine):
    """Remembers every command."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def apply(self, command: bytes, context: paxos.ApplyContext) -> int:
        """Remember one command."""
        self.seen.append(bytes(command))
        return len(self.seen)


def segments(node: Path) -> list[Path]:
    return sorted((node / "log").glob("0*.segment"))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def flip_record_header(node: Path) -> None:
    flip(segments(node)[1], 512 + 30)


def flip_segment_head(node: Path) -> None:
    flip(segments(node)[1], 100)


def cut_segment(node: Path) -> None:
    file = segments(node)[0]
    file.write_bytes(file.read_bytes()[:3000])


def drop_first(node: Path) -> None:
    segments(node)[0].unlink()


def drop_middle(node: Path) -> None:
    segments(node)[1].unlink()


def drop_newest(node: Path) -> None:
    segments(node)[-1].unlink()


def flip_newest_head(node: Path) -> None:
    flip(segments(node)[-1], 20)


def drop_log(node: Path) -> None:
    shutil.rmtree(node / "log")


def flip_identity(node: Path) -> None:
    flip(node / "identity.json", 40)


def drop_identity(node: Path) -> None:
    (node / "identity.json").unlink()


DAMAGES = [
    flip_record_header, flip_segment_head, cut_segment, drop_first, drop_middle, drop_newest, flip_newest_head,
    drop_log, flip_identity, drop_identity,
]  # fmt: skip


def is_quarantined(replica: paxos.Replica) -> bool:
    status = replica.status()
    return status.role == "quarantined" and status.quarantine is not None


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_f10_s1_h5_k4_what_may_have_lost_promises_learns_and_never_votes(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    node = tmp_path / "node-2"
    with paxos.LocalCluster(
        3, state_machine=Recorder, directory=tmp_path, transport="tcp", config=CONFIG
    ) as cluster:
        leader = cluster.leader(WAIT_S)
        for command in COMMANDS:
            leader.propose(command, WAIT_S)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        cluster.stop(2)
        assert len(segments(node)) >= 3
        shutil.copytree(node, tmp_path / "whole")
        damage(node)
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        assert is_quarantined(cluster[2]), str(cluster[2].status())
        assert cluster[2].state_machine.seen == COMMANDS
        assert cluster[2].inspect()["engine"]["is_quarantined"] and cluster[2].inspect()["quarantine"]
        with pytest.raises(Closed, match="quarantine.*new node id"):
            cluster[2].propose(b"no", WAIT_S)
        # The others go on with it, and what they choose comes here, too.
        cluster.leader(WAIT_S).propose(b"after", WAIT_S)
        cluster.wait_applied(len(COMMANDS) + 1, WAIT_S)
        # It is no vote: with one of the others gone nothing is chosen.
        victim = next(n for n in (1, 3) if n != cluster.leader(WAIT_S).node_id)
        cluster.stop(victim)
        other = cluster[4 - victim]
        with pytest.raises(OutcomeUnknown):
            other.propose(b"late", 1.0)
        assert not other.is_leader or other.status().chosen_upto == cluster[2].status().chosen_upto
        cluster.restart(victim)
        cluster.wait_applied(len(COMMANDS) + 2, WAIT_S)
        assert cluster[2].state_machine.seen == [*COMMANDS, b"after", b"late"]
        # Neither a second start nor the return of what was lost ends the quarantine.
        cluster.stop(2)
        shutil.copytree(tmp_path / "whole", node, dirs_exist_ok=True)
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS) + 2, WAIT_S)
        assert is_quarantined(cluster[2]), str(cluster[2].status())
        assert cluster[2].state_machine.seen == [*COMMANDS, b"after", b"late"]


def test_f10_s4_an_older_copy_is_noticed_by_the_members_and_never_votes(tmp_path: Path) -> None:
    node, copy = tmp_path / "node-2", tmp_path / "copy"
    with paxos.LocalCluster(3, state_machine=Recorder, directory=tmp_path, transport="tcp") as cluster:
        cluster.leader(WAIT_S).propose(COMMANDS[0], WAIT_S)
        cluster.wait_applied(1, WAIT_S)
        cluster.stop(2)
        shutil.copytree(node, copy)
        cluster.restart(2)
        for command in COMMANDS[1:]:
            cluster.leader(WAIT_S).propose(command, WAIT_S)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        cluster.stop(2)
        until(lambda: all(not p.heard for n in (1, 3) for p in cluster[n].status().peers if p.node_id == 2))
        shutil.rmtree(node)
        copy.rename(node)
        cluster.restart(2)
        until(lambda: is_quarantined(cluster[2]) and (node / "quarantine.json").exists())
        assert "remember more of it" in str(cluster[2].status())
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        assert cluster[2].state_machine.seen == COMMANDS
        cluster.stop(2)
        cluster.restart(2)
        assert is_quarantined(cluster[2])
