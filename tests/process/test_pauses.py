"""Processes that stand still (SIGSTOP) and go on later: no stale read, no second leader's write (F5, R1, R3)."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.cluster import TIMES, Cluster, Node
from tests.process.workload import Clients

PAUSES = 12 * TIMES
LONG_S = 3.0
SHORT_S = (0.05, 0.6)


@contextlib.contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Let a process stand still for the time of a ``with`` block."""
    node.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal(signal.SIGCONT)


@pytest.mark.timeout(300 * TIMES)
def test_r1_f5_a_leader_that_stood_still_answers_nothing_old(tmp_path: Path) -> None:
    chance = random.Random(5)
    with Cluster(tmp_path) as cluster:
        cluster.start()
        cluster.leader()
        with Clients(cluster, 6, seed=5, patience_s=1.5, sticky=True) as clients:
            clients.wait_done(20)
            for count in range(PAUSES):
                leader = cluster.leader()
                others = cluster.followers(leader)
                with stopped(leader):
                    if count % 4 == 0:  # long enough for another to lead and to write
                        ahead = cluster.leader(others)
                        clients.wait_done(20, node=ahead)
                        time.sleep(chance.uniform(0, LONG_S - 1.0))
                    else:
                        time.sleep(chance.uniform(*SHORT_S))
                # What it says first after that was decided before it knew better, if anything was.
                clients.wait_done(3, node=leader)
            found = clients.verdict()
        assert found["reads"] > 20 * PAUSES


def test_f5_a_follower_that_stood_still_holds_nobody_up_and_reads_nothing_old(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        leader = cluster.leader()
        with Clients(cluster, 6, seed=6, patience_s=1.5, sticky=True) as clients:
            for follower in cluster.followers(leader):
                with stopped(follower):
                    for node in cluster.living:
                        if node is not follower:
                            clients.wait_done(50, node=node)
                clients.wait_done(10, node=follower)
            clients.verdict()


@pytest.mark.parametrize(
    "place", ["read.taken", "read.confirmed", "read.served", "pass.send_now", "pass.advanced"]
)
def test_r3_r6_a_reactor_or_reader_that_stands_still_at_the_worst_place(place: str, tmp_path: Path) -> None:
    """The place is left again after others have taken over: between a confirmation and the read, for example."""
    with Cluster(tmp_path) as cluster:
        cluster.start()
        with Clients(cluster, 6, seed=7, patience_s=1.5, sticky=True) as clients:
            clients.wait_done(20)
            for _ in range(2):
                leader = cluster.leader()
                leader.ask("arm", points=f"{place}=sleep(600)@20*2")
                clients.wait_done(200)
                leader.ask("disarm")
            clients.verdict()
