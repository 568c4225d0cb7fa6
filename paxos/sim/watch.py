"""What a trace tells beyond what happens in one place: links, leaders, hanging disks, chosen slots.

These are states of the world rather than things that somebody does, so they are looked at after every step of
a run that is traced, and told when they have changed.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from paxos._core import codec
from paxos.sim import wire

if TYPE_CHECKING:
    from paxos.sim.world import World

Kind = wire.Kind


def value_text(kind: int, value: bytes) -> str:
    """Return a value of the log as people read it."""
    if kind == codec.ValueKind.BATCH:
        origin, incarnation, first_ticket, commands = codec.decode_batch(value)
        shown = b" ".join(commands[:3]).decode("utf-8", "replace")
        more = f" and {len(commands) - 3} more" if len(commands) > 3 else ""
        return f"{shown}{more} (node {origin}, incarnation {incarnation}, ticket {first_ticket})"
    return codec.ValueKind(kind).name.lower() if kind in set(codec.ValueKind) else f"kind {kind}"


def content(frame: wire.Frame) -> dict[str, object]:
    """Return what a frame says beyond its header, for people."""
    match frame.kind:
        case Kind.PING:
            return {"round": wire.ping(frame.data).round, "sent_upto": wire.ping(frame.data).sent_upto}
        case Kind.PONG:
            pong = wire.pong(frame.data)._asdict()
            return {key: pong[key] for key in ("round", "promised", "leader", "stream_ballot", "stream_upto")}
        case Kind.PROMISE:
            page = wire.promise(frame.data)
            return {
                "page": f"{page.page + 1} of {page.pages}",
                "trimmed": page.trimmed,
                "entries": [[slot, ballot] for slot, ballot, *_ in page.entries],
            }
        case Kind.ACCEPT | Kind.CHOSEN:
            return {"value": value_text(frame.detail, frame.payload)}
        case Kind.FORWARD:
            return {"value": value_text(codec.ValueKind.BATCH, frame.payload)}
        case Kind.NACK if frame.detail in set(codec.NackReason):
            return {"reason": codec.NackReason(frame.detail).name}
    return {}


class Watch:
    """Looks at a world after each step and tells its trace what has changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._links: dict[str, Any] = {"cut": [], "held": [], "slow": [], "selective": []}
        self._ballots: dict[int, int] = dict.fromkeys(world.nodes, 0)
        self._until: dict[tuple[str, int], int] = {}
        self._chosen = 0

    def look(self) -> None:
        """Tell what has changed since the last look."""
        self._look_at_links()
        world = self.world
        for node in world.nodes.values():
            ballot = node.engine.proposer_role.ballot if node.up else 0
            if ballot != self._ballots[node.id]:
                if self._ballots[node.id]:
                    world.trace_event("unlead", node.id, ballot=self._ballots[node.id])
                if ballot:
                    world.trace_event("lead", node.id, ballot=ballot)
                self._ballots[node.id] = ballot
            self._look_at_delay("hang", node.id, node.disk_hangs_until)
            self._look_at_delay("stall", node.id, node.control_stalled_until)
        chosen = world.history.chosen
        for slot in islice(chosen, self._chosen, None):
            ballot = world.history.chosen_ballot.get(slot, 0)
            kind, value = chosen[slot]
            world.trace_event("chosen", 0, slot=slot, ballot=ballot, value=value_text(kind, value))
        self._chosen = len(chosen)

    def _look_at_links(self) -> None:
        network = self.world.network
        links = {
            "cut": [list(link) for link in sorted(network.cut)],
            "held": [list(link) for link in sorted(network.swizzled)],
            "slow": [list(link) for link in sorted(network.clogged)],
            "selective": [
                [*link, [wire.KIND_NAMES[kind] for kind in sorted(kinds)]]
                for link, kinds in sorted(network.selective.items())
            ],
        }
        if links != self._links:
            self._links = links
            self.world.trace_event("links", 0, **links)

    def _look_at_delay(self, event: str, node: int, until_us: int) -> None:
        if until_us > self.world.now_us and until_us != self._until.get((event, node)):
            self._until[event, node] = until_us
            self.world.trace_event(event, node, length_us=until_us - self.world.now_us)
