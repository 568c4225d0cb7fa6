"""Who is killed next, and when: what the kill tests and the long run share."""

from __future__ import annotations

import random
import time

from tests.process.cluster import Cluster, Node
from tests.process.workload import Clients

MOMENT_S = 0.08
"""A strike comes within this time after the last condition for it was met."""


class Killer:
    """Kills members of a cluster at random moments and starts them again.

    Attributes:
        kills: processes killed so far; ``leader_kills`` of them led, ``massacres`` times all went at once.
    """

    def __init__(self, cluster: Cluster, clients: Clients, seed: int) -> None:
        self.kills = self.leader_kills = self.massacres = 0
        self._cluster = cluster
        self._clients = clients
        self._chance = random.Random(f"killer {seed}")

    def strike(self) -> None:
        """Kill somebody, or everybody, and start them again; return when commands are answered again."""
        chance = self._chance
        time.sleep(chance.uniform(0, MOMENT_S))
        kind = chance.choices(
            ["one", "leader", "all", "leader twice", "one after the other"], [5, 4, 2, 1, 1]
        )[0]
        if kind == "one":
            self._kill([chance.choice(self._cluster.living)])
        elif kind.startswith("leader"):
            self._kill_leader()
            if kind == "leader twice":  # the next one, perhaps in the middle of its taking over
                self._cluster.start()
                time.sleep(chance.uniform(0, 3 * MOMENT_S))
                self._kill_leader()
        elif kind == "all":
            self.massacres += 1
            self._kill(self._cluster.living)
        else:  # a majority, not at once
            for node in chance.sample(self._cluster.living, 2):
                self._kill([node])
                time.sleep(chance.uniform(0, MOMENT_S))
        if chance.random() < 0.3:
            self._interrupt_a_start()
        self._cluster.start()
        self._clients.wait_done(5)

    def _kill(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.signal(9)
        for node in nodes:
            node.reap()
        self.kills += len(nodes)

    def _kill_leader(self) -> None:
        self.leader_kills += 1
        self._kill([self._cluster.leader()])

    def _interrupt_a_start(self) -> None:
        """Kill one that is just opening its directory."""
        dead = [node for node in self._cluster.nodes.values() if node.life is None]
        node = self._chance.choice(dead)
        node.spawn()
        time.sleep(self._chance.uniform(0, MOMENT_S))
        self._kill([node])
