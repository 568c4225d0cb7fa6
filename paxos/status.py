"""What a replica says about itself: :class:`Status`, for people; ``inspect()`` is for tools."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """What this node knows about another member."""

    node_id: int
    address: str | None
    heard: bool
    """It answered in the last heartbeat round."""
    leads: bool
    chosen_upto: int
    """Highest slot up to which it said that all are chosen; 0 if it never said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at a node. The numbers belong to about the same moment, not to exactly the same one.

    ``str(status)`` is one line.
    """

    node_id: int
    role: str
    """``"leader"``, ``"follower"``, ``"candidate"``, ``"quarantined"`` or ``"stopped"``."""
    leader: int | None
    """Node id of the leader that this node follows or is; ``None`` if it knows none."""
    ballot: int
    """Highest ballot promised: its round in the high 48 bits, the node id in the low 16. ``str()`` shows the round."""
    chosen_upto: int
    """Every slot up to this one is known here to be chosen."""
    applied_slot: int
    """Every slot up to this one was handed to the state machine."""
    last_index: int
    """Index of the last command that was applied here; 0 for an empty log."""
    pending: int
    """Callers of this node that wait for an outcome."""
    incarnation: int
    """How many times this data directory has been started."""
    cluster: str
    cluster_id: int
    directory: str
    peers: tuple[PeerStatus, ...]
    fault: str | None
    """Why the node has stopped by itself; ``None`` if it has not."""
    quarantine: str | None = None
    """Why the node never votes again with this directory: it only learns and serves what is chosen."""
    damaged_records: int = 0
    """Records of closed segments that were found damaged while the node runs; a restart fetches what is damaged."""

    def __str__(self) -> str:
        leader = "no leader" if self.leader is None else f"leader {self.leader}"
        text = (
            f"node {self.node_id} of {self.cluster}: {self.role}, {leader}, ballot {self.ballot >> 16}, "
            f"chosen up to slot {self.chosen_upto}, {self.last_index} commands applied"
        )
        silent = [peer.node_id for peer in self.peers if not peer.heard]
        if self.leader is None and silent:
            text += f"; not heard: {', '.join(map(str, silent))}"
        if self.quarantine is not None:
            text += f"; in quarantine: {self.quarantine}"
        if self.damaged_records:
            text += f"; {self.damaged_records} damaged records in its log: see paxos log verify"
        return text if self.fault is None else f"{text}; stopped: {self.fault}"
