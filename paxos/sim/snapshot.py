"""Snapshots in the simulated world: what a node's state machine was at one slot, durable at once.

Only what the protocol sees of them is modelled: a snapshot covers a prefix of the log, a node that has one may
trim, and a node whose peers have trimmed what it lacks gets a copy of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paxos.messages import InstallSnapshot


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at slot ``upto``, as one unit.

    Attributes:
        last_index: index of the last command in it.
        sessions: origin to (incarnation, last admitted ticket).
        config_slot, configuration: the configuration that governs the slot behind it.
    """

    upto: int
    last_index: int
    sessions: Mapping[int, tuple[int, int]]
    config_slot: int
    configuration: bytes

    def intent(self) -> InstallSnapshot:
        """Return what tells an engine to go on behind it."""
        return InstallSnapshot(
            upto=self.upto,
            last_index=self.last_index,
            sessions=self.sessions,
            config_slot=self.config_slot,
            configuration=self.configuration,
        )
