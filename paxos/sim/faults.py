"""Bad luck on a schedule: crashes, power loss, pauses, leaping clocks, partitions, slow links, disks that hang,
fail or are full, a slow control thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paxos import messages
from paxos.sim.network import SHAPES, Link, random_links
from paxos.sim.node import CrashPoint, Node
from paxos.sim.parameters import FRAGILE_KINDS

if TYPE_CHECKING:
    from paxos.sim.world import World


CRASH_POINTS = (CrashPoint.NOW, CrashPoint.AFTER_APPEND, CrashPoint.AFTER_APPEND, CrashPoint.AFTER_SYNC)


class Faults:
    """Draws the next fault and its time from the world's one source of randomness."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running = False
        self._cut_version = 0
        self._selective_version = 0
        self._rates = {name: rate for name, rate in world.parameters.fault_rates().items() if rate > 0}
        self._total = sum(self._rates.values())

    def start(self) -> None:
        """Begin to inject faults."""
        if self._rates:
            self.running = True
            self._next()

    def stop(self) -> None:
        """Inject nothing more."""
        self.running = False

    def _next(self) -> None:
        gap = int(self.world.rng.expovariate(self._total) * 1_000_000)
        self.world.schedule(self.world.now_us + gap, self._strike)

    def _strike(self) -> None:
        if not self.running:
            return
        (name,) = self.world.rng.choices(list(self._rates), weights=list(self._rates.values()))
        getattr(self, "_" + name)()
        self._next()

    def _victim(self) -> Node | None:
        """Choose a running node, the leader more often than others."""
        world = self.world
        up = [node for node in world.nodes.values() if node.up]
        if not up:
            return None
        leader = world.leader()
        if leader is not None and world.chance(world.parameters.leader_bias):
            return leader
        return world.rng.choice(up)

    def _crash(self) -> None:
        node = self._victim()
        if node is None:
            return
        point = self.world.rng.choice(CRASH_POINTS)
        if point is CrashPoint.NOW:
            self.world.crash(node)
        else:
            node.crash_point = point

    def _victim_crash(self) -> None:
        """Crash a node whose disk may be damaged, so that it has to read it."""
        world = self.world
        up = [node for node in world.nodes.values() if node.up and node.id in world.damage.victims]
        if up:
            world.crash(world.rng.choice(up))

    def _power_loss(self) -> None:
        self.world.count("power_loss")
        for node in self.world.nodes.values():
            if node.up:
                self.world.crash(node)

    def _pause(self) -> None:
        node = self._victim()
        if node is not None:
            length = int(self.world.rng.choice([20_000, 100_000, 400_000]) * self.world.rng.uniform(0.2, 2.0))
            self.world.count("pause")
            self.world.pause(node, length)

    def _partition(self) -> None:
        world = self.world
        members = list(world.nodes)
        if len(members) < 2:
            return
        name = world.rng.choice(list(SHAPES))
        world.count(f"partition_{name}")
        world.network.cut = SHAPES[name](members, world.rng)
        world.trace_event("cut", 0, shape=name, links=sorted(world.network.cut))
        self._cut_version += 1
        length = int(world.rng.expovariate(1.0) * 400_000)
        world.schedule(world.now_us + length, self._heal, self._cut_version)

    def _heal(self, version: int) -> None:
        """End a partition: all links at once, or one after the other in random order."""
        if version != self._cut_version or not self.running:
            return
        world = self.world
        if world.chance(0.5):
            world.network.heal()
            world.trace_event("heal", 0)
            return
        world.count("heal_link_by_link")
        links = sorted(world.network.cut)
        world.rng.shuffle(links)
        at_us = world.now_us
        for link in links:
            at_us += int(world.rng.expovariate(1.0) * 20_000)
            world.schedule(at_us, self._join, version, link)

    def _join(self, version: int, link: Link) -> None:
        if version == self._cut_version and self.running:
            self.world.network.cut.discard(link)
            self.world.trace_event("join", 0, link=link)

    def _swizzle(self) -> None:
        """Clog some links one after the other, and unclog them later in another order."""
        world = self.world
        links = sorted(random_links(list(world.nodes), world.rng))
        if not links:
            return
        world.count("swizzle")
        at_us = world.now_us
        for action in (self._clog_all, self._unclog_all):
            world.rng.shuffle(links)
            for link in links:
                at_us += int(world.rng.expovariate(1.0) * 20_000)
                world.schedule(at_us, action, link)
            at_us += int(world.rng.expovariate(1.0) * 200_000)

    def _clog_all(self, link: Link) -> None:
        if self.running and link not in self.world.network.perfect:
            self.world.network.swizzle(link)

    def _unclog_all(self, link: Link) -> None:
        if self.running:
            self.world.network.unswizzle(link)

    def _clog(self) -> None:
        world = self.world
        members = list(world.nodes)
        if len(members) < 2:
            return
        world.count("clog")
        link = tuple(world.rng.sample(members, 2))
        world.network.clogged[link[0], link[1]] = int(world.rng.uniform(10_000, 400_000))

    def _selective(self) -> None:
        """Let some frame kinds no longer pass on some links, in one direction; the rest does."""
        world = self.world
        links = random_links(list(world.nodes), world.rng)
        kinds = frozenset(world.rng.sample(FRAGILE_KINDS, world.rng.randint(1, 5)))
        world.count("selective")
        world.network.selective = dict.fromkeys(sorted(links), kinds)
        self._selective_version += 1
        length = int(world.rng.expovariate(1.0) * 500_000)
        world.schedule(world.now_us + length, self._end_selective, self._selective_version)

    def _end_selective(self, version: int) -> None:
        if version == self._selective_version and self.running:
            self.world.network.selective = {}

    def _disk_hang(self) -> None:
        node = self._victim()
        if node is not None:
            length = self.world.rng.choice([200_000, 800_000, 5_000_000]) * self.world.rng.uniform(0.1, 1.0)
            self.world.count("disk_hang")
            node.disk_hangs_until = self.world.now_us + int(length)

    def _disk_error(self) -> None:
        """Let the next append or sync of a node fail, whichever comes first."""
        node = self._victim()
        if node is not None:
            node.disk_error = True

    def _disk_full(self) -> None:
        """Let the space of a node run out, first but for a reserve, then altogether, and come back."""
        node = self._victim()
        if node is not None:
            rng = self.world.rng
            self.world.count("disk_full")
            node.disk_full_from = self.world.now_us + int(rng.uniform(0, 200_000))
            node.disk_low_until = node.disk_full_from + int(rng.uniform(0, 600_000))

    def _suspend(self) -> None:
        """Stop a node for a moment in which its clock leaps ahead, by up to an hour."""
        node = self._victim()
        if node is not None:
            rng = self.world.rng
            self.world.count("suspend")
            self.world.pause(node, int(rng.uniform(0, 50_000)))
            ahead_us = rng.choice([100_000, 1_000_000, 60_000_000, 3_600_000_000]) * rng.uniform(0.1, 1.0)
            node.clock.jump(self.world.now_us, int(ahead_us))

    def _control_stall(self) -> None:
        node = self._victim()
        if node is not None:
            self.world.count("control_stall")
            node.control_stalled_until = self.world.now_us + int(self.world.rng.uniform(20_000, 600_000))

    def _transfer(self) -> None:
        world = self.world
        leader = world.leader()
        others = [node for node in world.nodes.values() if node is not leader and node.up]
        if leader is None or not others:
            return
        world.count("transfer")
        leader.post(messages.Transfer(heir=world.rng.choice(others).id))

    def _trim(self) -> None:
        """A node makes a snapshot and lets go of most of what it covers."""
        node = self._victim()
        if node is not None:
            self.world.count("trim")
            applied = self.world.history.applied_upto[node.id]
            node.trim(applied - self.world.rng.choice([0, 0, 0, 1, 5]))
