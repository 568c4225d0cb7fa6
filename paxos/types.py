"""Values that cross the public face: :class:`Config`, :class:`Outcome`, :class:`Entry`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from paxos.errors import ConfigError

KIB = 1024
MIB = 1024 * KIB
WINDOW_SLOTS_MAX = 1 << 18
"""A node holds up to four windows of chosen slots and two of unchosen ones in a table of 1 << 22 entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every limit and period of a node, with its unit in its name. Checked when built.

    Raises:
        ConfigError: a value is out of range or two of them contradict each other.
    """

    heartbeat_ms: int = 30
    """Period of the heartbeat rounds; a round waits at most three periods for answers."""
    election_timeout_ms: int = 150
    """A leader that was not connected to a quorum for this long steps down; base of the back-off."""
    backoff_ms_max: int = 300
    """Upper end of the random wait before a candidate tries to lead; grows with failures up to 4 x."""
    window_slots: int = 1024
    """Slots that the leader keeps unchosen at a time."""
    window_bytes: int = 8 * MIB
    """Bytes of values that the leader keeps unchosen at a time. Large enough to keep disks and links busy;
    what is much larger only queues, until progress is too slow for ``election_timeout_ms``."""
    batch_bytes_max: int = 1 * MIB
    """A batch is sealed at this size; a single larger command travels alone."""
    command_bytes_max: int = 8 * MIB
    """A command over this size is refused."""
    pending_bytes_max: int = 64 * MIB
    """Bytes of commands that wait on this node to be proposed; beyond it callers wait or get ``Busy``. One caller
    may wait for an outcome for every 128 of them."""
    unapplied_bytes_max: int = 64 * MIB
    """Chosen values kept in memory for a slow state machine; older ones are read from the log again."""
    retained_bytes_max: int = 32 * MIB
    """Chosen values kept in memory to serve peers that missed them."""
    unchosen_bytes_max: int = 64 * MIB
    """Accepted values not known to be chosen that a follower keeps; beyond it, it waits to be caught up."""
    promise_page_entries: int = 1024
    """Reported slots in one page of a promise."""
    segment_bytes: int = 64 * MIB
    """Size of one segment of the write-ahead log."""
    scrub_mb_per_s: int = 4
    """A running node reads its closed segments again at about this rate, to find damage early. 0 turns it off."""
    idle_mark_ms: int = 50
    """An idle log writes one mark after this long, so that a torn tail can be told from damage."""
    spin_us: int = 300
    """The leader may poll this long, while a slot is unchosen, before it sleeps. 0 turns it off."""
    priority: int = 0
    """Among equal candidates the higher one waits less. 0..255."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{field.name} must be an int, not {value!r}")
            least = 0 if field.name in ("spin_us", "priority", "scrub_mb_per_s") else 1
            if value < least:
                raise ConfigError(f"{field.name} must be at least {least}, not {value}")
        if self.priority > 255:
            raise ConfigError(f"priority must be at most 255, not {self.priority}")
        if self.election_timeout_ms < 3 * self.heartbeat_ms:
            raise ConfigError(
                f"election_timeout_ms ({self.election_timeout_ms}) must be at least three heartbeats "
                f"({self.heartbeat_ms} ms each)"
            )
        if self.backoff_ms_max < self.heartbeat_ms:
            raise ConfigError(
                f"backoff_ms_max ({self.backoff_ms_max}) is below heartbeat_ms ({self.heartbeat_ms})"
            )
        if self.window_slots > WINDOW_SLOTS_MAX:
            raise ConfigError(f"window_slots must be at most {WINDOW_SLOTS_MAX}, not {self.window_slots}")
        if self.segment_bytes < 4 * KIB:
            raise ConfigError(f"segment_bytes must be at least 4096, not {self.segment_bytes}")
        if self.segment_bytes > 1 << 31:
            raise ConfigError(f"segment_bytes must be at most 2 GiB, not {self.segment_bytes}")
        if self.pending_bytes_max < self.command_bytes_max:
            raise ConfigError(
                f"pending_bytes_max ({self.pending_bytes_max}) is below command_bytes_max "
                f"({self.command_bytes_max}): the largest command would never find room"
            )
        if self.command_bytes_max > 128 * MIB:
            raise ConfigError(f"command_bytes_max must be at most 128 MiB, not {self.command_bytes_max}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command is chosen, durable on a majority, and applied here."""

    index: int
    """Its number in the log: 1, 2, 3 ... over all commands."""
    slot: int
    """The Paxos instance that carried it."""
    result: Any = None
    """What ``apply`` returned."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the log."""

    index: int
    slot: int
    command: bytes


@dataclass(frozen=True, slots=True)
class ApplyContext:
    """Where in the log the command (or, for ``apply_batch``, the first of the run) stands."""

    index: int
    slot: int
    origin: int
    """Node id of the replica at which it was proposed."""
