"""Readers of one simulated node: what each must have seen at least, and when it is served (I16).

A read is linearizable if it sees every slot that anybody had applied before it began. That is a little more than
what clients can tell (acknowledged commands and earlier reads), and it holds as well: a slot is applied only after
its leader announced it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paxos.sim.invariants import i16_read_is_recent

if TYPE_CHECKING:
    from paxos.sim.node import Node


@dataclass(slots=True, eq=False)
class Read:
    """One read.

    Attributes:
        number: of the reads of its node's life.
        floor: the last slot that anybody had applied when it began.
        slot: the last slot of the state that it saw; ``None`` until it is served.
        lost: its node crashed before it was served.
    """

    number: int
    floor: int
    slot: int | None = None
    lost: bool = False


class Reads:
    """The reads of one life of a node, served in the order in which they came."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked = 0
        self._told = 0
        self._upto = 0
        self._mark = 0
        self.waiting: deque[Read] = deque()

    def begin(self) -> Read:
        """A read arrives."""
        world = self._node.world
        self._asked += 1
        read = Read(self._asked, len(world.history.log))
        self.waiting.append(read)
        self._node.wake(world.now_us)
        world.trace_event("read", self._node.id, number=read.number, floor=read.floor)
        return read

    def tell(self, engine: Any, local_us: int) -> None:
        """Hand what has arrived to the engine, as the reactor does once in a pass."""
        if self._asked != self._told:
            self._told = self._asked
            engine.read(self._told, local_us)

    def take(self, engine: Any) -> None:
        """Take what the engine has confirmed."""
        found = engine.effects.take_reads()
        if found is not None:
            self._upto, self._mark = found

    def serve(self) -> None:
        """Serve what is confirmed and applied."""
        node = self._node
        history = node.world.history
        while (
            self.waiting
            and self.waiting[0].number <= self._upto
            and history.applied_upto[node.id] >= self._mark
        ):
            read = self.waiting.popleft()
            read.slot = history.applied_upto[node.id]
            node.world.trace_event("served", node.id, number=read.number, slot=read.slot)
            node.world.count("read_at_leader" if node.leads else "read_at_follower")
            i16_read_is_recent(node.id, read.number, read.slot, read.floor)

    def lose(self) -> None:
        """The node crashes: nobody waits any more."""
        for read in self.waiting:
            read.lost = True
            self._node.world.count("read_lost")
        self.waiting.clear()
