"""The in-memory twin of a node's write-ahead log: durable records, and appended ones that a crash may lose.

What a crash leaves is what the real log's reader would give back: a prefix of what was appended after the
last sync. (The disk may keep later blocks and lose earlier ones; the reader cuts at the first bad record
that no mark covers, and everything behind it, so a prefix is all that anyone can see.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from paxos._core.effects import RecordView


class MemoryDisk:
    """Holds one node's records across its crashes.

    Attributes:
        durable: records that were synced (or survived a crash), oldest first.
        pending: records appended since the last sync.
        lost: records that crashes have taken so far.
    """

    def __init__(self) -> None:
        self.durable: list[RecordView] = []
        self.pending: list[RecordView] = []
        self.lost = 0
        self._position = 0

    def reserve(self, count: int) -> list[int]:
        """Return positions for ``count`` records; a position is never used twice."""
        first = self._position + 1
        self._position += count
        return list(range(first, first + count))

    def append(self, records: Sequence[RecordView]) -> None:
        """Take records that carry their positions; they are not durable yet."""
        self.pending.extend(records)

    def sync(self) -> list[RecordView]:
        """Make everything pending durable and return it."""
        synced = self.pending
        self.durable.extend(synced)
        self.pending = []
        return synced

    def crash(self, rng: random.Random, keep: int | None = None) -> list[RecordView]:
        """Lose power: keep a prefix of the pending records and return it.

        Args:
            rng: decides how many are kept.
            keep: how many to keep, instead of asking ``rng``.
        """
        count = len(self.pending)
        if keep is None:
            # All, none and something in between are equally likely, whatever the group's size.
            choice = rng.randrange(3)
            keep = 0 if choice == 0 else count if choice == 1 else rng.randint(0, count)
        kept = self.pending[:keep]
        self.lost += count - len(kept)
        self.durable.extend(kept)
        self.pending = []
        return kept

    def rot(self, rng: random.Random, count: int) -> int:
        """Damage the values of up to ``count`` durable records; their headers stay good. Return how many.

        Slot 1 is spared: while nobody knows that it is chosen, all members must say what they hold there.
        """
        places = [place for place, record in enumerate(self.durable) if record.value and record.slot > 1]
        chosen = rng.sample(places, min(count, len(places)))
        for place in chosen:
            record = self.durable[place]
            self.durable[place] = record._replace(value=None, length=len(record.value or b""))
        return len(chosen)

    def value_at(self, position: int) -> bytes:
        """Return the value of the record at ``position``."""
        for records in (self.pending, self.durable):
            for record in reversed(records):
                if record.position == position:
                    return record.value or b""
        raise KeyError(f"no record at position {position}")
