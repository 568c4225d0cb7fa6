"""Links that are cut one by one, or in one direction: somebody leads, nobody answers anything old (F2, L1, L2, L3)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.cluster import TIMES, Cluster, Node
from tests.process.proxy import Links
from tests.process.workload import Clients

FLAPS = 6 * TIMES
FLAP_S = 1.0
PROGRESS = 15

Arena = tuple[Cluster, Links, Clients]


@pytest.fixture(params=["cut", "hold"])
def mode(request: pytest.FixtureRequest) -> str:
    """How a link is lost: its connections end, or nothing arrives any more."""
    return str(request.param)


def arena(directory: Path, count: int) -> Iterator[Arena]:
    with Cluster(directory, count) as cluster, Links(cluster) as links:
        cluster.start()
        cluster.leader()
        with Clients(cluster, 2 * count, seed=count, patience_s=1.5, sticky=True) as clients:
            clients.wait_done(PROGRESS)
            yield cluster, links, clients
            links.heal()
            for node in cluster.living:
                clients.wait_done(3, node=node)
            clients.verdict()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Arena]:
    yield from arena(tmp_path, 3)


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Arena]:
    yield from arena(tmp_path, 5)


def demand_progress(clients: Clients, nodes: list[Node]) -> None:
    """Demand that commands and reads are answered by each of these."""
    for node in nodes:
        clients.wait_done(PROGRESS, node=node)


def pairs(*nodes: int) -> list[tuple[int, int]]:
    return [(a, b) for a in nodes for b in nodes if a != b]


def test_r1_a_leader_that_is_cut_off(three: Arena, mode: str) -> None:
    cluster, links, clients = three
    for _ in range(2):
        leader = cluster.leader()
        others = cluster.followers(leader)
        links.set(mode, links.between([leader.node_id], [node.node_id for node in others]))
        demand_progress(clients, others)
        links.heal()
        clients.wait_done(3, node=leader)


def test_l5_a_leader_that_is_not_heard_and_one_that_hears_nobody(three: Arena, mode: str) -> None:
    cluster, links, clients = three
    for inward in (True, False):
        leader = cluster.leader()
        others = cluster.followers(leader)
        lost = [(node.node_id, leader.node_id) for node in others]
        links.set(mode, lost if inward else [(b, a) for a, b in lost])
        demand_progress(clients, others)
        links.heal()
        clients.wait_done(3, node=leader)


def test_l5_a_follower_that_hears_nobody_disturbs_nobody(three: Arena, mode: str) -> None:
    cluster, links, clients = three
    leader = cluster.leader()
    deaf, other = cluster.followers(leader)
    links.set(mode, [(node.node_id, deaf.node_id) for node in (leader, other)])
    ballot = leader.status()["ballot"]
    demand_progress(clients, [leader, other])
    status = leader.status()
    assert status["role"] == "leader" and status["ballot"] == ballot


def test_l1_only_one_node_is_connected_to_a_quorum(five: Arena, mode: str) -> None:
    """Quorum loss: the leader is up and connected to the hub alone, which everybody else hears, too."""
    cluster, links, clients = five
    leader = cluster.leader()
    hub = cluster.followers(leader)[0]
    links.only(links.between([hub.node_id], [n for n in links.nodes if n != hub.node_id]), mode)
    cluster.leader([hub])
    demand_progress(clients, [hub])


def test_l2_the_only_candidate_that_is_connected_has_the_shorter_log(five: Arena, mode: str) -> None:
    """Constrained election: the leader is gone, and the one node that can lead was behind."""
    cluster, links, clients = five
    leader = cluster.leader()
    hub, *rest = cluster.followers(leader)
    links.set(mode, links.between([hub.node_id], [node.node_id for node in (leader, *rest)]))
    clients.wait_done(PROGRESS, node=leader)
    links.only(links.between([hub.node_id], [node.node_id for node in rest]), mode)
    cluster.leader([hub])
    demand_progress(clients, [hub])


def test_l3_chained(three: Arena, mode: str) -> None:
    """A chain: the ends do not hear each other, and one of them led."""
    cluster, links, clients = three
    leader = cluster.leader()
    middle, end = cluster.followers(leader)
    links.set(mode, links.between([leader.node_id], [end.node_id]))
    demand_progress(clients, [middle, leader, end])
    ballot = max(node.status()["ballot"] for node in cluster.living)
    clients.wait_done(10 * PROGRESS)
    assert max(node.status()["ballot"] for node in cluster.living) == ballot, "nobody goes on trying"


@pytest.mark.timeout(300 * TIMES)
def test_f2_links_that_come_and_go(three: Arena) -> None:
    """One second without, one second with; what is lost changes each time."""
    _cluster, links, clients = three
    chance = random.Random(2)
    for _ in range(FLAPS):
        lost = chance.sample(links.all, chance.randrange(1, len(links.all)))
        links.set(chance.choice(["cut", "hold"]), lost)
        time.sleep(FLAP_S * chance.uniform(0.5, 1.0))
        links.heal()
        clients.wait_done(PROGRESS)


def test_f1_slow_links(three: Arena) -> None:
    cluster, links, clients = three
    links.set("pass", links.all, delay_s=0.02)
    demand_progress(clients, cluster.living)
