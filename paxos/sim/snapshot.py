"""Snapshots in the simulated world, and the log that they shorten.

A snapshot is what a node's state machine was at one slot, durable at once.

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


class MemoryLog:
    """The control plane's view of what this node has applied: serves FETCH_CHOSEN."""

    def __init__(self, first_slot: int = 1) -> None:
        self.first_slot = first_slot
        self.values: list[tuple[int, bytes]] = []

    def trim(self, upto: int) -> None:
        """Forget the slots up to ``upto``; there may be fewer."""
        del self.values[: max(0, upto + 1 - self.first_slot)]
        self.first_slot = max(self.first_slot, upto + 1)

    def read_slots(self, first_slot: int, last_slot: int, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        """Return ``(slot, kind, value)`` from ``first_slot`` on, at least one if there is one."""
        out: list[tuple[int, int, bytes]] = []
        size = 0
        for slot in range(first_slot, min(last_slot, self.first_slot + len(self.values) - 1) + 1):
            kind, value = self.values[slot - self.first_slot]
            size += len(value)
            if out and size > limit_bytes:
                break
            out.append((slot, kind, value))
        return out
