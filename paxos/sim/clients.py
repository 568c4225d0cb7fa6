"""Clients that propose unique commands at any running node, and read; they remember what they were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paxos.sim.node import Node
    from paxos.sim.reads import Read
    from paxos.sim.world import World


class Clients:
    """Proposes at a random pace; the outcome of a command is what its origin applies under its ticket.

    Attributes:
        proposed: commands handed to some node so far; `proposed_us`: and when.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.proposed = 0
        self.proposed_us: dict[bytes, int] = {}
        self.running = False

    def start(self) -> None:
        """Begin to propose; stops after ``parameters.commands``."""
        self.running = True
        self._next()

    def stop(self) -> None:
        """Propose nothing more."""
        self.running = False

    def _next(self) -> None:
        gap = int(self.world.rng.expovariate(1.0) * self.world.parameters.propose_gap_us)
        self.world.schedule(self.world.now_us + gap, self._burst)

    def _burst(self) -> None:
        world = self.world
        if not self.running or self.proposed >= world.parameters.commands:
            return
        # A node in quarantine takes no commands.
        up = [node for node in world.nodes.values() if node.up and node.id not in world.history.quarantined]
        if up:
            node = world.rng.choice(up)
            for _ in range(world.rng.randint(1, world.parameters.burst_max)):
                self.propose(node)
            for _ in range(world.rng.randint(0, world.parameters.reads_max)):
                self.read(world.rng.choice(up))
        self._next()

    def propose(self, node: Node) -> bytes:
        """Propose one fresh command at ``node`` and return it."""
        self.proposed += 1
        padding = self.world.rng.randint(0, self.world.parameters.command_bytes_max)
        command = b"%d@%d." % (self.proposed, node.id) + b"x" * padding
        self.proposed_us[command] = self.world.now_us
        node.submit(command)
        self.world.trace_event("propose", node.id, command=self.proposed)
        return command

    def read(self, node: Node) -> Read:
        """Begin a read at ``node`` and return it."""
        self.world.count("read")
        return node.reads.begin()
