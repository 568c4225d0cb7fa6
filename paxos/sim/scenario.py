"""Scripted worlds: a small language for the histories that every rule of the protocol is there for.

A scenario is a world without random faults. The script cuts links, holds or drops chosen frames, crashes,
pauses and restarts nodes, and waits for conditions in virtual time; the invariants are checked all along.

>>> from paxos.sim.scenario import Scenario
>>> cluster = Scenario(nodes=3)
>>> leader = cluster.settle()
>>> commands = cluster.propose(leader, 2)
>>> cluster.wait_committed(commands)
>>> cluster.crash(leader)
>>> cluster.wait_leader(among=[n for n in (1, 2, 3) if n != leader]) != leader
True
"""

from __future__ import annotations

import atexit
import io
import itertools
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any

from paxos.sim import diagram, wire
from paxos.sim.invariants import Violation
from paxos.sim.node import Node
from paxos.sim.parameters import Parameters
from paxos.sim.reads import Read
from paxos.sim.trace import Trace
from paxos.sim.world import World
from paxos.types import Config

QUICK = Config(heartbeat_ms=20, election_timeout_ms=100, backoff_ms_max=120)


PAGES = os.environ.get("PAXOS_SIM_HTML", "")
"""If set, every scenario of this process is drawn when it ends: into PAGES1.html, PAGES2.html, and so on."""
_page_numbers = itertools.count(1)


class Tap:
    """A rule on the network for some frames; lasts until :meth:`stop` or until ``count`` frames have met it.

    Attributes:
        frames: the frames that met the rule.
    """

    def __init__(
        self,
        world: World,
        matches: Callable[[wire.Frame], bool],
        count: int | None,
    ) -> None:
        self.world = world
        self.frames: list[wire.Frame] = []
        self._matches = matches
        self._count = count
        world.network.filters.append(self._accept)

    def _accept(self, frame: wire.Frame) -> bool:
        if not self._matches(frame) or (self._count is not None and len(self.frames) >= self._count):
            return True
        self.frames.append(frame)
        return False

    def stop(self) -> None:
        """Let such frames pass again."""
        if self._accept in self.world.network.filters:
            self.world.network.filters.remove(self._accept)

    def release(self) -> None:
        """Stop, and deliver what was held back, in order, now."""
        self.stop()
        for frame in self.frames:
            self.world.schedule(self.world.now_us, self.world.deliver, frame)


class Scenario:
    """A cluster under a script. Times are milliseconds of virtual time.

    Args:
        nodes: members 1 .. nodes.
        seed: decides back-offs and delays.
        config: limits and periods; short ones by default.
        start: False leaves all nodes down.
        world_class: a world with a broken rule, for tests of the simulator itself.
        **overrides: fields of :class:`~paxos.sim.parameters.Parameters`.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        seed: int = 1,
        config: Config = QUICK,
        start: bool = True,
        trace: Trace | None = None,
        world_class: type[World] = World,
        **overrides: Any,
    ) -> None:
        parameters = replace(
            Parameters(nodes=nodes, config=config, delay_us=200, sync_us=100, control_us=100), **overrides
        )
        self.events = io.StringIO()
        if trace is None and PAGES:
            trace = Trace(self.events)
            atexit.register(self.write_diagram, f"{PAGES}{next(_page_numbers)}.html")
        self.world = world_class(parameters, random.Random(seed), trace=trace)
        self.world.restart_crashed = False
        self.members = list(self.world.nodes)
        if start:
            self.world.start()

    def node(self, id: int) -> Node:
        """Return a node by its id."""
        return self.world.nodes[id]

    @property
    def election_timeout_ms(self) -> int:
        """The cluster's election timeout."""
        return self.world.parameters.config.election_timeout_ms

    def write_diagram(self, path: str) -> None:
        """Draw what has happened so far: a page for a browser. Only with ``PAXOS_SIM_HTML`` set."""
        diagram.write(
            self.events.getvalue().splitlines(), path, f"Paxos, a scenario of {len(self.members)} nodes"
        )

    # --- time ------------------------------------------------------------------------------------------------

    def run(self, ms: float) -> None:
        """Let time pass."""
        self._run(ms, None)

    def _run(self, ms: float, condition: Callable[[], bool] | None) -> bool:
        try:
            return self.world.run(int(ms * 1000), condition)
        except Violation as violation:
            self.world.trace_event("violation", 0, text=str(violation))
            raise

    def wait(self, condition: Callable[[], bool], within_ms: float = 5_000, what: str = "it") -> float:
        """Run until ``condition()``; return the milliseconds that it took.

        Raises:
            Violation: I17, it did not happen in time.
        """
        began = self.world.now_us
        if not self._run(within_ms, condition):
            violation = Violation("I17", f"{what} did not happen within {within_ms} ms of virtual time")
            self.world.trace_event("violation", 0, text=str(violation))
            raise violation
        return (self.world.now_us - began) / 1000

    def leaders(self) -> list[int]:
        """Return the nodes that lead at this moment, in their own opinion."""
        return [id for id, node in self.world.nodes.items() if node.up and node.leads]

    def wait_leader(self, within_ms: float = 5_000, among: Iterable[int] | None = None) -> int:
        """Run until one of ``among`` leads and has committed something at its ballot; return it."""
        allowed = list(among) if among is not None else self.members
        self.wait(
            lambda: any(id in allowed and self.node(id).leads_firmly for id in self.leaders()),
            within_ms,
            f"a leader among {allowed}",
        )
        return next(id for id in self.leaders() if id in allowed and self.node(id).leads_firmly)

    def settle(self) -> int:
        """Wait for a leader and for a first command on all nodes; return the leader.

        Before every node knows that slot 1 is chosen, a missing member is waited for [h13].
        """
        leader = self.wait_leader()
        self.wait_committed(self.propose(leader))
        self.wait_same_log()
        return leader

    # --- clients ---------------------------------------------------------------------------------------------

    def propose(self, id: int, count: int = 1) -> list[bytes]:
        """Propose ``count`` fresh commands at a node."""
        return [self.world.clients.propose(self.node(id)) for _ in range(count)]

    def is_committed(self, commands: Iterable[bytes]) -> bool:
        """Return True when all commands were acknowledged at their proposers."""
        return all(command in self.world.history.acknowledged for command in commands)

    def load(self, ms: float, every_ms: float = 10, at: Iterable[int] | None = None) -> list[bytes]:
        """Propose one command at each of some nodes, again and again for a while; return the commands."""
        nodes = list(at) if at is not None else self.members
        commands: list[bytes] = []
        end_us = self.world.now_us + int(ms * 1000)
        while self.world.now_us < end_us:
            for id in nodes:
                if self.node(id).up:
                    commands += self.propose(id)
            self.run(every_ms)
        return commands

    def latencies_ms(self, commands: Iterable[bytes]) -> list[float]:
        """Return how long the acknowledged ones of ``commands`` took, shortest first."""
        began, ended = self.world.clients.proposed_us, self.world.history.acknowledged_us
        return sorted((ended[command] - began[command]) / 1000 for command in commands if command in ended)

    def elections(self) -> int:
        """Return how often the nodes that are up have become leader in their present lives."""
        return sum(n.engine.counters()["elections"] for n in self.world.nodes.values() if n.up)

    def wait_committed(self, commands: list[bytes], within_ms: float = 5_000) -> None:
        """Run until all commands are acknowledged."""
        self.wait(lambda: self.is_committed(commands), within_ms, f"the commit of {len(commands)} commands")

    def wait_same_log(self, among: Iterable[int] | None = None, within_ms: float = 5_000) -> None:
        """Run until the nodes have applied everything that any node has."""
        nodes = list(among) if among is not None else self.members
        history = self.world.history
        self.wait(
            lambda: all(history.applied_upto[id] == len(history.log) for id in nodes),
            within_ms,
            f"the same log on {nodes}",
        )

    def read(self, id: int) -> Read:
        """Begin a read at a node."""
        return self.world.clients.read(self.node(id))

    def wait_read(self, read: Read, within_ms: float = 5_000) -> int:
        """Run until a read is served; return the last slot that it saw."""
        self.wait(lambda: read.slot is not None, within_ms, f"read {read.number}")
        assert read.slot is not None
        return read.slot

    # --- faults ----------------------------------------------------------------------------------------------

    def cut(self, *links: tuple[int, int]) -> None:
        """Cut directed links."""
        self.world.network.cut |= set(links)

    def cut_between(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Cut all links between two sides, in both directions."""
        for a in left:
            for b in right:
                self.cut((a, b), (b, a))

    def isolate(self, id: int) -> None:
        """Cut a node off from all others."""
        self.cut_between([id], [other for other in self.members if other != id])

    def connect_only(self, *pairs: tuple[int, int]) -> None:
        """Cut everything but these links (both directions of each)."""
        kept = {link for a, b in pairs for link in ((a, b), (b, a))}
        self.world.network.cut = {link for link in permutations(self.members, 2) if link not in kept}

    def heal(self) -> None:
        """Join all links."""
        self.world.network.heal()

    def crash(self, id: int, keep: int | None = 0) -> None:
        """Take the power from a node; ``keep`` of its unsynced records survive."""
        self.node(id).crash(keep)

    def restart(self, id: int) -> None:
        """Start a crashed node again."""
        self.node(id).start()

    def wipe(self, id: int) -> None:
        """Take the directory of a node that is down: it will start from an empty one, under its old id."""
        self.world.damage.wipe(self.node(id))

    def spoil(self, id: int, count: int = 1) -> None:
        """Spoil headers on the disk of a node that is down: it will start in quarantine."""
        self.node(id).disk.distrust(self.world.rng, count)

    def pause(self, id: int, ms: float) -> None:
        """Stop a node for a while, as SIGSTOP does."""
        self.world.pause(self.node(id), int(ms * 1000))

    def hold(
        self,
        kind: int | None = None,
        *,
        sender: int | None = None,
        receiver: int | None = None,
        count: int | None = None,
    ) -> Tap:
        """Keep matching frames back; :meth:`Tap.release` delivers them, :meth:`Tap.stop` forgets them."""

        def matches(frame: wire.Frame) -> bool:
            return (
                (kind is None or frame.kind == kind)
                and (sender is None or frame.sender == sender)
                and (receiver is None or frame.receiver == receiver)
            )

        return Tap(self.world, matches, count)

    drop = hold
