"""A word for people while a node cannot work: whom it does not hear, and whose frames it drops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

logger = logging.getLogger("paxos")

SILENCE_S = 5.0
"""A node that has known no leader for this long says so."""
STRANGERS = {
    "wrong_cluster": "frames of another cluster arrive here and are dropped: every member must be started with the "
    "same cluster name and the same members, spelled in the same way",
    "wrong_storage": "a member answers from another disk than the one it joined with (wiped, copied or restored "
    "under its old id); it does not vote: give the data directory back, or replace the member",
    "refusals": "a member refuses this node: it remembers more of it than this directory does, or another process runs "
    "with this identity",
    "refused_hellos": "a member is refused: it shows less than it has shown before (its directory was rolled back), or "
    "runs twice; its votes do not count",
    "unknown_sender": "a node that is no member of this log sends frames; they are dropped",
}
"""Counters of the engine that point to a mistake in the set-up, and what to do about it."""


class Advice:
    """Notices mistakes in the set-up of a cluster and logs each of them once.

    Args:
        node_id: this node.
        cluster: name of its cluster.
        members: address of every member by node id.
        counters: the engine's.
    """

    def __init__(
        self,
        node_id: int,
        cluster: str,
        members: Mapping[int, str],
        counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self._node_id = node_id
        self._cluster = cluster
        self._members = members
        self._counters = counters
        self._said: set[str] = set()
        self._leaderless_since: float | None = None

    def look_around(self, seen: Mapping[str, Any], heard: Collection[int]) -> None:
        """Warn of strangers and of silence; call it now and then.

        Args:
            seen: the node's look at itself: ``leader`` and ``chosen_upto`` are used.
            heard: members that answered of late.
        """
        counters = self._counters()
        for name, advice in STRANGERS.items():
            if counters.get(name):
                known = ", ".join(f"{node}={address}" for node, address in self._members.items())
                self._warn(name, f"{advice}. Here: cluster {self._cluster!r}, members {known}")
        if seen["leader"] is not None:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = time.monotonic()
        elif time.monotonic() > self._leaderless_since + SILENCE_S:
            self._warn("silence", self.situation(seen, heard))

    def situation(self, seen: Mapping[str, Any], heard: Collection[int]) -> str:
        """Return in words whether there is a leader, and who is not heard."""
        text = "this node knows no leader" if seen["leader"] is None else f"node {seen['leader']} leads"
        silent = [
            f"{node} ({address})"
            for node, address in self._members.items()
            if node != self._node_id and node not in heard
        ]
        if silent:
            text += "; not heard: " + ", ".join(silent)
        if not seen["chosen_upto"]:
            text += "; for the first start of a cluster all of its members must be up"
        return text

    def _warn(self, subject: str, text: str) -> None:
        if subject not in self._said:
            self._said.add(subject)
            logger.warning("node %d: %s", self._node_id, text)
