"""One commit of three processes: this one leads, two others follow; fsync on, tcp loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import paxos
from benchmarks.cluster import CLUSTER_NAME, Cluster
from benchmarks.floor import FloorProbe
from benchmarks.node import Machine
from benchmarks.worker import wait_for

OWN_ID = 1


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[paxos.Replica]:
    """A replica in this process that leads two others in processes of their own."""
    cluster = Cluster(tmp_path)
    try:
        for node_id in (2, 3):
            cluster.start(node_id)
        with paxos.Replica(
            tmp_path / "node-1",
            node_id=OWN_ID,
            members=cluster.members,
            state_machine=Machine(),
            cluster=CLUSTER_NAME,
        ) as replica:
            wait_for(lambda: _leads(cluster, replica), "leadership in this process")
            replica.propose(b"first", timeout=30)
            yield replica
    finally:
        cluster.__exit__()


def _leads(cluster: Cluster, replica: paxos.Replica) -> bool:
    if replica.leader in (2, 3):
        cluster.nodes[replica.leader].ask("transfer", to=OWN_ID)
    return replica.is_leader


def test_commit_of_256_bytes(benchmark: BenchmarkFixture, leader: paxos.Replica, tmp_path: Path) -> None:
    with FloorProbe(tmp_path) as probe:
        probe.slice(300)
        pedantic: Any = benchmark.pedantic
        pedantic(leader.propose, (b"x" * 256,), rounds=2000, warmup_rounds=50)
        probe.slice(300)
    benchmark.extra_info["floor"] = probe.floor.as_json()


def test_run_of_1000_commands_of_16_bytes(benchmark: BenchmarkFixture, leader: paxos.Replica) -> None:
    run = [number.to_bytes(16, "little") for number in range(1000)]
    pedantic: Any = benchmark.pedantic
    pedantic(lambda: leader.submit_many(run).result(30), rounds=1000, warmup_rounds=20)
