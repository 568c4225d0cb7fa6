"""A network that loses, repeats, delays, reorders and cuts, as one seed wants it.

Links are directed: a link can be cut in one direction only. A partition is a set of cut links; the named
shapes build that set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING

from paxos.sim import wire

if TYPE_CHECKING:
    from paxos.sim.world import World

Filter = Callable[[wire.Frame], bool]
"""Returns False for a frame that must not be delivered."""

Link = tuple[int, int]


def halves(members: list[int], rng: Random) -> set[Link]:
    """Cut the members into two sides that cannot hear each other."""
    side = set(rng.sample(members, rng.randint(1, max(1, len(members) - 1))))
    return {(a, b) for a, b in permutations(members, 2) if (a in side) != (b in side)}


def isolate_one(members: list[int], rng: Random) -> set[Link]:
    """Cut one member off in both directions."""
    lonely = rng.choice(members)
    return {(a, b) for a, b in permutations(members, 2) if lonely in (a, b)}


def bridge(members: list[int], rng: Random) -> set[Link]:
    """Cut the members into two sides that both hear one member, the bridge, but not each other."""
    order = rng.sample(members, len(members))
    middle, rest = order[0], order[1:]
    side = set(rest[: len(rest) // 2])
    return {
        (a, b) for a, b in permutations(members, 2) if middle not in (a, b) and (a in side) != (b in side)
    }


def majorities_ring(members: list[int], rng: Random) -> set[Link]:
    """Let every member hear a majority, and no two of them the same one."""
    order = rng.sample(members, len(members))
    size = len(order)
    reach = (size // 2 + 1) // 2
    place = {member: index for index, member in enumerate(order)}
    return {
        (a, b)
        for a, b in permutations(members, 2)
        if min((place[a] - place[b]) % size, (place[b] - place[a]) % size) > reach
    }


def one_way(members: list[int], rng: Random) -> set[Link]:
    """Make one member deaf or mute: it hears nobody, or nobody hears it."""
    victim = rng.choice(members)
    deaf = rng.random() < 0.5
    return {(a, b) for a, b in permutations(members, 2) if (b if deaf else a) == victim}


def random_links(members: list[int], rng: Random) -> set[Link]:
    """Cut each directed link with one probability for all."""
    share = rng.uniform(0.1, 0.6)
    return {link for link in permutations(members, 2) if rng.random() < share}


SHAPES: dict[str, Callable[[list[int], Random], set[Link]]] = {
    "halves": halves,
    "isolate_one": isolate_one,
    "bridge": bridge,
    "majorities_ring": majorities_ring,
    "one_way": one_way,
    "random_links": random_links,
}


class Network:
    """Carries frames between nodes.

    Attributes:
        cut: directed links ``(sender, receiver)`` that carry nothing.
        clogged: directed links and the extra delay in microseconds on them.
        swizzled: directed links that hold everything back, and what they hold.
        selective: directed links and the frame kinds that do not pass there (h22, h25).
        kind_loss: frame kinds that are lost more often, and how often.
        filters: every frame must pass all of them (scenarios drop chosen frames with these).
        sent, delivered, dropped, duplicated: frames by kind.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.cut: set[Link] = set()
        self.clogged: dict[Link, int] = {}
        self.swizzled: dict[Link, list[wire.Frame]] = {}
        self.filters: list[Filter] = []
        self.selective: dict[Link, frozenset[int]] = {}
        self.perfect: set[Link] = set()
        self.sent: Counter[int] = Counter()
        self.delivered: Counter[int] = Counter()
        self.dropped: Counter[int] = Counter()
        self.duplicated: Counter[int] = Counter()
        self._last: dict[Link, int] = {}
        self.kind_loss = dict(world.parameters.kind_loss)

    def send(self, frame: wire.Frame) -> None:
        """Take one frame; deliver it later, more than once, or never."""
        world = self.world
        parameters = world.parameters
        rng = world.rng
        kind = frame.kind
        self.sent[kind] += 1
        link = (frame.sender, frame.receiver)
        if frame.receiver == frame.sender:
            world.schedule(world.now_us, self._deliver, frame)
            return
        if link in self.cut:
            self._lose(frame, "the link is cut")
            return
        if not all(accept(frame) for accept in self.filters):
            self._lose(frame, "kept back by the script")
            return
        if kind in self.selective.get(link, ()):
            self._lose(frame, "the link does not pass this kind")
            return
        if link in self.perfect:
            world.schedule(world.now_us + 100 + rng.randrange(200), self._deliver, frame)
            return
        loss = max(parameters.loss, self.kind_loss.get(kind, 0.0))
        if loss and rng.random() < loss:
            self._lose(frame, "lost")
            return
        copies = 1
        if parameters.duplicate and rng.random() < parameters.duplicate:
            copies = 2
            self.duplicated[kind] += 1
        if link in self.swizzled:
            self.swizzled[link].append(frame)
            return
        for _ in range(copies):
            arrival = world.now_us + 50 + int(rng.expovariate(1.0) * parameters.delay_us)
            arrival += self.clogged.get(link, 0)
            if not parameters.reorder:
                arrival = max(arrival, self._last.get(link, 0))
                self._last[link] = arrival
            world.schedule(arrival, self._deliver, frame)

    def _lose(self, frame: wire.Frame, why: str) -> None:
        self.dropped[frame.kind] += 1
        self.world.on_drop(frame, why)

    def _deliver(self, frame: wire.Frame) -> None:
        if not self.world.parameters.in_flight_survives and (frame.sender, frame.receiver) in self.cut:
            self._lose(frame, "the link was cut on its way")
            return
        self.delivered[frame.kind] += 1
        self.world.deliver(frame)

    def swizzle(self, link: Link) -> None:
        """Hold everything back that is sent on ``link`` from now on."""
        self.swizzled.setdefault(link, [])

    def unswizzle(self, link: Link) -> None:
        """Let ``link`` deliver all that it held back, and carry frames again."""
        world = self.world
        for frame in self.swizzled.pop(link, ()):
            arrival = world.now_us + int(world.rng.expovariate(1.0) * world.parameters.delay_us)
            world.schedule(arrival, self._deliver, frame)

    def heal(self) -> None:
        """Join and unclog all links."""
        self.cut = set()
        self.clogged = {}
        self.selective = {}
        for link in sorted(self.swizzled):
            self.unswizzle(link)

    def connect(self, members: Iterable[int]) -> None:
        """Make every link among ``members`` prompt and reliable, and keep it so."""
        clique = set(permutations(members, 2))
        self.cut -= clique
        self.perfect |= clique
        for link in sorted(clique):
            self.clogged.pop(link, None)
            self.selective.pop(link, None)
            self.unswizzle(link)
