"""What happens to the disks of a fixed minority between two lives of a node.

All damage of a run hits the same nodes, too few to be needed: a quorum of the others holds everything that was
ever acknowledged, and crashes take nothing durable from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paxos.sim.node import Node
    from paxos.sim.world import World

UNTRUSTED = ("flipped_header", "lost_write", "misdirected_write")
"""Faults that leave headers which do not fit where they stand; a misdirected write leaves two."""


class Damage:
    """Draws what each start of a victim finds.

    Attributes:
        victims: nodes whose disks may be damaged; never more than a quorum can spare.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        parameters = world.parameters
        members = list(range(1, parameters.nodes + 1))
        self._untrusted = {name: getattr(parameters, name) for name in UNTRUSTED if getattr(parameters, name)}
        self._any = bool(self._untrusted or parameters.rot or parameters.wipe)
        self.victims: list[int] = []
        if self._any:
            self.victims = sorted(world.rng.sample(members, (parameters.nodes - 1) // 2))

    def stop(self) -> None:
        """Damage nothing more."""
        self.victims = []

    def before_start(self, node: Node) -> None:
        """Let bad luck at the disk of ``node``, which is about to start."""
        world = self.world
        parameters = world.parameters
        if node.id not in self.victims or not world.history.durable[node.id].mark:
            return
        if world.chance(parameters.rot):
            # Not before its log says that slot 1 is chosen: until then phase 1 needs sound promises of all [h13].
            self._note("rotten_values", node, node.disk.rot(world.rng, world.rng.randint(1, 5)))
        if node.id in world.history.foreign or not self._others_know_the_members(node):
            return
        for name, probability in self._untrusted.items():
            if world.chance(probability):
                count = 2 if name == "misdirected_write" else 1
                self._note(name, node, node.disk.distrust(world.rng, count))
        if world.chance(parameters.wipe):
            self.wipe(node)

    def wipe(self, node: Node) -> None:
        """Give ``node`` an empty directory: a storage of its own that nobody has heard of."""
        world = self.world
        self._note("wiped_directory", node, 1)
        node.disk = world.disk_class()
        node.snapshot = None
        node.storage = world.rng.getrandbits(128).to_bytes(16, "big")
        world.observer.on_wiped(node.id)

    def _others_know_the_members(self, node: Node) -> bool:
        """Return True if nobody would need a promise of ``node`` to start the cluster for the first time [h13]."""
        durable = self.world.history.durable
        return all(durable[other].mark for other in self.world.nodes if other != node.id)

    def _note(self, event: str, node: Node, count: int) -> None:
        self.world.counts[event] += count
        self.world.trace_event(event, node.id, count=count)
