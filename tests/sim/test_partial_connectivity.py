"""Every node can talk to somebody, not everybody to everybody (L1-L3): a working leader within 4 election timeouts.

The scenarios are those of Ng, Haridi and Carbone, *Omni-Paxos* (EuroSys 2023), section 2, for clusters of three and
five. "Recovered" means that a command proposed after the links broke is committed, at the node that is asked for it.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from paxos.sim.scenario import Scenario

SEEDS = range(8)


def others(cluster: Scenario, *ids: int) -> list[int]:
    """Return the members but these."""
    return [id for id in cluster.members if id not in ids]


def demand_recovery(cluster: Scenario, proposer: int) -> None:
    """Commit a fresh command at ``proposer`` within 4 election timeouts; afterwards nobody else takes over."""
    cluster.wait_committed(cluster.propose(proposer), within_ms=4 * cluster.election_timeout_ms)
    cluster.run(2 * cluster.election_timeout_ms)
    ballots = set(cluster.world.history.leaders)
    for _ in range(5):
        cluster.run(2 * cluster.election_timeout_ms)
        cluster.wait_committed(cluster.propose(proposer), within_ms=4 * cluster.election_timeout_ms)
    assert set(cluster.world.history.leaders) == ballots, "a stable leader"


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_l1_g5_quorum_loss_all_hear_only_the_hub(nodes: int, seed: int) -> None:
    """Five nodes: the leader has lost its quorum, the hub has not. Three: leader and hub are one, so it stays."""
    cluster = Scenario(nodes, seed=seed)
    leader = cluster.settle()
    cluster.run(cluster.election_timeout_ms)  # until everybody is happy
    hub = others(cluster, leader)[seed % (nodes - 1)]
    cluster.connect_only(*((hub, id) for id in others(cluster, hub)))
    demand_recovery(cluster, hub)
    assert cluster.leaders() == [leader if nodes == 3 else hub]
    for id in cluster.members:
        cluster.wait_committed(cluster.propose(id), within_ms=4 * cluster.election_timeout_ms)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_l2_constrained_the_only_connected_node_has_an_old_log(nodes: int, seed: int) -> None:
    """The one node that reaches a quorum lags behind: Raft's rule would forbid it to lead, Paxos lets it recover."""
    cluster = Scenario(nodes, seed=seed)
    leader = cluster.settle()
    cluster.run(cluster.election_timeout_ms)  # until everybody is happy
    behind = others(cluster, leader)[seed % (nodes - 1)]
    cluster.isolate(behind)
    cluster.wait_committed(cluster.propose(leader, 5))
    # The old leader is cut off entirely; everybody else reaches only the node that lags.
    cluster.connect_only(*((behind, id) for id in others(cluster, behind, leader)))
    demand_recovery(cluster, behind)
    if nodes == 5:
        assert cluster.leaders() == [behind]
    cluster.wait_same_log(among=others(cluster, leader))


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("place", ["end", "middle"])
@pytest.mark.parametrize("seed", SEEDS)
def test_l3_chained_each_hears_its_neighbours_only(nodes: int, place: str, seed: int) -> None:
    """A chain: whoever is not at an end (of three: everybody) reaches a quorum; one leads, all get the log."""
    cluster = Scenario(nodes, seed=seed)
    leader = cluster.settle()
    cluster.run(cluster.election_timeout_ms)  # until everybody is happy
    chain = others(cluster, leader)
    chain.insert(0 if place == "end" else nodes // 2, leader)
    cluster.connect_only(*pairwise(chain))
    demand_recovery(cluster, chain[nodes // 2])
    if nodes == 3 or place == "middle":
        assert cluster.leaders() == [leader], "it had not lost its quorum"
    (leader,) = cluster.leaders()
    for id in chain:
        # A command travels over one node at most; whoever is further away from the leader reaches no quorum anyway.
        if abs(chain.index(id) - chain.index(leader)) <= 2:
            cluster.wait_committed(cluster.propose(id), within_ms=4 * cluster.election_timeout_ms)
    cluster.wait_same_log()


@pytest.mark.parametrize("seed", range(20))
def test_l3_a_new_leader_is_not_deposed_before_it_could_be_seen(seed: int) -> None:
    """With two followers cut from each other every round is long; the election just before must be the last."""
    cluster = Scenario(3, seed=seed)
    leader = cluster.settle()
    cluster.cut_between(*([id] for id in others(cluster, leader)))
    before = set(cluster.world.history.leaders)
    cluster.run(6 * cluster.election_timeout_ms)
    assert set(cluster.world.history.leaders) == before
