"""``paxos log repair``: what is damaged comes from the members that run, before the node does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import paxos
from paxos.cli import main
from tests.integration.test_quarantine import flip, until
from tests.integration.test_rot import COMMANDS, WAIT_S, Recorder, rot

SLOTS = 3


def log_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


@pytest.fixture
def cluster(tmp_path: Path) -> paxos.LocalCluster:
    cluster = paxos.LocalCluster(3, state_machine=Recorder, directory=tmp_path, transport="tcp")
    leader = cluster.leader(WAIT_S)
    for command in COMMANDS:
        leader.propose(command, WAIT_S)
    cluster.wait_applied(len(COMMANDS), WAIT_S)
    return cluster


def test_k2_damaged_values_are_fetched_and_the_node_votes_again(
    cluster: paxos.LocalCluster, tmp_path: Path
) -> None:
    node = tmp_path / "node-2"
    with cluster:
        assert log_command("repair", node).exit_code == 3, "a node runs on it"
        cluster.stop(2)
        clean = log_command("repair", node)
        assert (clean.exit_code, clean.output) == (0, "no value is damaged\n")
        rot(tmp_path, 2, [7, 20, 41])
        before = {path: path.read_bytes() for path in node.rglob("*") if path.is_file()}
        dry = log_command("repair", node, "--dry-run", "--json")
        assert (
            dry.exit_code == 1 and [found["fate"] for found in json.loads(dry.output)] == ["damaged"] * SLOTS
        )
        assert {path: path.read_bytes() for path in node.rglob("*") if path.is_file()} == before
        assert log_command("verify", node).exit_code == 2
        repaired = log_command("repair", node)
        assert repaired.exit_code == 0, repaired.output
        assert repaired.output.count("fetched") == SLOTS
        verified = log_command("verify", node, "--json")
        assert verified.exit_code == 0
        assert [f["kind"] for f in json.loads(verified.output)["findings"]] == ["healed value"] * SLOTS
        cluster.stop(1)  # all that was damaged is here: nobody else is needed for it
        cluster.restart(2)
        assert cluster[2].status().quarantine is None
        cluster.leader(WAIT_S).propose(b"after", WAIT_S)
        cluster.wait_applied(len(COMMANDS) + 1, WAIT_S)
        assert cluster[2].state_machine.seen == [*COMMANDS, b"after"]


def test_damage_that_no_peer_can_repair_is_explained(cluster: paxos.LocalCluster, tmp_path: Path) -> None:
    node = tmp_path / "node-2"
    with cluster:
        cluster.stop(2)
        (segment,) = sorted((node / "log").glob("0*.segment"))
        flip(segment, 100)
        refused = log_command("repair", node)
        assert refused.exit_code == 3 and "promises or votes may be lost" in refused.stderr
        assert not (node / "quarantine.json").exists(), "nothing was written"
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        cluster.stop(2)
        assert "in quarantine" in log_command("repair", node).stderr
        shown = json.loads(log_command("verify", node, "--json").output)
        assert "quarantine" in {finding["kind"] for finding in shown["findings"]}


def test_without_other_members_nothing_can_be_repaired(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path / "one", state_machine=Recorder()) as replica:
        for command in COMMANDS:
            replica.propose(command, WAIT_S)
    (segment,) = sorted((tmp_path / "one" / "log").glob("0*.segment"))
    flip(segment, segment.read_bytes().find(COMMANDS[20]) + 50)
    alone = log_command("repair", tmp_path / "one")
    assert alone.exit_code == 3 and "only member" in alone.stderr


def test_s4_a_repair_does_not_hide_that_the_directory_is_an_older_copy(
    cluster: paxos.LocalCluster, tmp_path: Path
) -> None:
    node = tmp_path / "node-2"
    with cluster:
        cluster.stop(2)
        shutil.copytree(node, tmp_path / "copy")
        cluster.restart(2)
        for _ in range(20):
            cluster.leader(WAIT_S).propose(b"later", WAIT_S)
        cluster.wait_applied(len(COMMANDS) + 20, WAIT_S)
        shown = {n: cluster[n].inspect()["engine"]["round"] + 3 for n in (1, 3)}
        until(lambda: all(cluster[n].inspect()["engine"]["round"] >= shown[n] for n in shown))
        cluster.stop(2)
        until(lambda: all(not p.heard for n in (1, 3) for p in cluster[n].status().peers if p.node_id == 2))
        shutil.rmtree(node)
        shutil.copytree(tmp_path / "copy", node)
        rot(tmp_path, 2, [7])
        refused = log_command("repair", node)
        assert refused.exit_code == 3 and "in quarantine" in refused.stderr, refused.output
        cluster.restart(2)
        cluster.wait_applied(len(COMMANDS) + 20, WAIT_S)
        assert cluster[2].status().quarantine is not None
