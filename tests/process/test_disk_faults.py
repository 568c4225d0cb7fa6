"""Disks that fail while members run: an error ends the node, a full disk does not, a slow one loses its leadership."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paxos.cli.channel import ChannelClient
from tests.process.cluster import ROOT, Node, wait_for
from tests.process.disk_faults import LOG, Disk, build, cluster_with_disks
from tests.process.workload import Clients

SMALL = {"segment_bytes": 64 << 10}
HANG_MS = 3600 * 1000
PROGRESS = 20


def pick(leader: Node, others: list[Node], role: str) -> Node:
    return leader if role == "leader" else others[0]


def wait_stopped(node: Node) -> str:
    """Wait until a node has stopped by itself, and return why."""
    wait_for(lambda: node.status().get("role") == "stopped", node.last_words)
    return str(wait_for(lambda: node.status()["fault"], "the reason"))


@pytest.mark.parametrize(
    ("kind", "error", "skip"),
    [
        ("sync", errno.EIO, 0),
        ("sync", errno.EIO, 9),
        ("sync", errno.ENOSPC, 0),
        ("sync", errno.EDQUOT, 37),
        ("write", errno.EIO, 0),
        ("write", errno.ENOSPC, 5),
        ("rename", errno.EIO, 0),
    ],
)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_d8_f6_after_an_error_of_the_disk_nothing_is_tried_again(
    kind: str, error: int, skip: int, role: str, tmp_path: Path
) -> None:
    """Once the disk has failed it would succeed again; the node must not believe it."""
    with (
        cluster_with_disks(tmp_path, config=SMALL) as (cluster, disks),
        Clients(cluster, 3, patience_s=1.0) as clients,
    ):
        clients.wait_done(PROGRESS)
        leader = cluster.leader()
        victim = pick(leader, cluster.followers(leader), role)
        disk = disks[victim.node_id]
        disk.fail(kind, error, times=1, skip=skip, scope=LOG)
        assert "log" in wait_stopped(victim)
        sent = victim.ask("inspect")["inspect"]["reactor"]["frames_sent"]
        others = [node for node in cluster.living if node is not victim]
        for node in others:
            clients.wait_done(PROGRESS, node=node)
        seen = disk.seen(kind)
        assert (seen["failed"], seen["first_failed"]) == (1, skip + 1)
        assert kind == "rename" or seen["calls"] == skip + 1, "D8: the log was touched after it had failed"
        assert victim.ask("inspect")["inspect"]["reactor"]["frames_sent"] == sent, "it says nothing more"
        victim.ask("close")
        assert kind == "rename" or disk.seen(kind)["calls"] == skip + 1, "nor at the end"
        assert victim.wait_gone() == 0
        cluster.start()
        clients.wait_done(PROGRESS, node=victim)
        clients.verdict()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("victims", [1, 3])
def test_d7_f7_a_full_disk_is_not_the_end(error: int, victims: int, tmp_path: Path) -> None:
    """No room for further segments at one follower, or at all nodes at once; then there is room again."""
    with (
        cluster_with_disks(tmp_path, config=SMALL) as (cluster, disks),
        Clients(cluster, 6, patience_s=0.5, sticky=True) as clients,
    ):
        clients.wait_done(PROGRESS)
        full = cluster.followers(cluster.leader())[:1] if victims == 1 else cluster.living
        for node in full:
            disks[node.node_id].full(error)
        if victims == 1:
            others = [node for node in cluster.living if node not in full]
            for node in others:
                clients.wait_done(15 * PROGRESS, node=node)
        wait_for(lambda: all(is_full(node) for node in full), cluster.situation)
        for node in full:
            assert node.status()["role"] != "stopped"
            disks[node.node_id].heal()
        for node in cluster.living:
            clients.wait_done(PROGRESS, node=node)
        wait_for(lambda: not any(is_full(node) for node in cluster.living), cluster.situation)
        for node in cluster.living:
            wait_for((node.directory / "log" / "ready-00000000.segment").exists, "the reserve")
        clients.verdict()


def is_full(node: Node) -> bool:
    return bool(node.ask("inspect")["inspect"]["reactor"]["disk_is_full"])


def test_f7_short_writes_are_finished(tmp_path: Path) -> None:
    with (
        cluster_with_disks(tmp_path, config=SMALL) as (cluster, disks),
        Clients(cluster, 3) as clients,
    ):
        for node, bytes_max in zip(cluster.nodes, (1, 71, 513), strict=True):
            disks[node].fail("write", bytes_max=bytes_max, scope=LOG)
        clients.wait_done(10 * PROGRESS)
        for node in cluster.living:
            node.kill()
        cluster.start()
        clients.wait_done(PROGRESS)
        clients.verdict()


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_l4_f13_a_disk_that_hangs_costs_leadership_and_nothing_else(role: str, tmp_path: Path) -> None:
    with (
        cluster_with_disks(tmp_path) as (cluster, disks),
        Clients(cluster, 6, patience_s=1.0, sticky=True) as clients,
    ):
        clients.wait_done(PROGRESS)
        leader = cluster.leader()
        victim = pick(leader, cluster.followers(leader), role)
        disks[victim.node_id].fail("sync", delay_ms=HANG_MS, scope=LOG)
        others = [node for node in cluster.living if node is not victim]
        for node in others:
            clients.wait_done(PROGRESS, node=node)
        assert cluster.leader(others) is not victim
        assert disks[victim.node_id].seen("sync")["calls"] == 1
        disks[victim.node_id].heal()
        clients.wait_done(PROGRESS, node=victim)
        assert victim.status()["role"] != "stopped"
        clients.verdict()


def test_l4_f13_slow_disks_are_slow(tmp_path: Path) -> None:
    with (
        cluster_with_disks(tmp_path) as (cluster, disks),
        Clients(cluster, 3) as clients,
    ):
        for node, delay_ms in zip(cluster.nodes, (2, 20, 60), strict=True):
            disks[node].fail("sync", delay_ms=delay_ms)
        clients.wait_done(3 * PROGRESS)
        clients.verdict()


@pytest.mark.parametrize("how", ["close", "SIGTERM"])
def test_a_member_whose_disk_hangs_can_be_closed(how: str, tmp_path: Path) -> None:
    """It says that the disk does not answer, and ends; whoever was told ok finds the command."""
    with (
        cluster_with_disks(tmp_path) as (cluster, disks),
        Clients(cluster, 6, patience_s=1.0, sticky=True) as clients,
    ):
        clients.wait_done(PROGRESS)
        victim = cluster.leader()
        disks[victim.node_id].fail("sync", delay_ms=HANG_MS, scope=LOG)
        wait_for(lambda: disks[victim.node_id].seen("sync")["calls"], "a sync that hangs")
        if how == "close":
            assert victim.ask("close", timeout_s=60)["seconds"] < 30
        else:
            victim.signal(signal.SIGTERM)
        assert victim.wait_gone() == 0
        assert "the disk does not answer" in victim.last_words()
        disks[victim.node_id].heal()
        cluster.start()
        clients.wait_done(PROGRESS, node=victim)
        clients.verdict()


@pytest.mark.parametrize("state", ["well", "hung"])
def test_x8_paxos_serve_ends_at_sigterm_though_its_disk_hangs(state: str, tmp_path: Path) -> None:
    """A whole interpreter, with its own end: sockets, threads and finalizers."""
    disk, library = Disk(tmp_path / "disk"), build(tmp_path)
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "PAXOS_DISK_FAULTS": str(tmp_path / "disk"),
        "PAXOS_DISK_UNDER": str(tmp_path / "node"),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "paxos.cli",
        "serve",
        "--until-stdin-closes",
        "--data",
        str(tmp_path / "node"),
    ]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready")
            client = ChannelClient(tmp_path / "node")
            assert client.ask("propose", command="one")["index"] == 1
            if state == "hung":
                disk.fail("sync", delay_ms=HANG_MS, scope=LOG)
                client.propose(b"two", lambda _answer: None)
                wait_for(lambda: disk.seen("sync")["calls"], "a sync that hangs")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
            client.close()
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert ("the disk does not answer" in said) == (state == "hung")
