"""The in-memory twin of a node's write-ahead log, and what its reader makes of it after bad luck.

What a crash leaves is what the real log's reader would give back: a prefix of what was appended after the
last sync. (The disk may keep later sectors and lose earlier ones; the reader cuts at the first bad record that
no mark covers, and everything behind it, so a prefix of whole records is all that anyone can see.)

Every record says up to where the log was synced when it was written, its *claim*. A bad record that some later
claim covers is damage: a bad value loses that value, a bad header the trust in the whole disk. Only covered
records are damaged here: rot in the very last group cannot be told from a torn write, which is a stated limit,
and an idle log writes a mark to keep it short.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from paxos._core.effects import RecordKind, RecordView
from paxos.sim.wire import BALLOT_CHOSEN

TRIMMING = (RecordKind.RECORD_MARK, RecordKind.RECORD_TRIM)

RECORD_HEAD_BYTES = 72
SECTOR_BYTES = 512
RECORD_INCARNATION = 5
FIRST_CONFIGURATION_SLOT = 1


class MemoryDisk:
    """Holds one node's records across its crashes.

    Attributes:
        durable: records that were synced (or survived a crash), oldest first.
        claims: for each of them, the position up to which the log was synced when it was written.
        pending: records appended since the last sync.
        untrusted: positions of durable records whose headers are bad.
        lost: records that crashes have taken so far.
        torn: records of which crashes have left a part.
    """

    def __init__(self) -> None:
        self.durable: list[RecordView] = []
        self.claims: list[int] = []
        self.pending: list[RecordView] = []
        self.untrusted: set[int] = set()
        self.lost = 0
        self.torn = 0
        self._position = 0
        self._bytes = 0

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
        self._keep(synced)
        self.pending = []
        return synced

    def _keep(self, records: list[RecordView]) -> None:
        claim = self.durable[-1].position if self.durable else 0
        self.durable.extend(records)
        self.claims.extend([claim] * len(records))
        self._bytes += sum(size(record) for record in records)

    def crash(self, rng: random.Random, keep: int | None = None) -> list[RecordView]:
        """Lose power: keep a prefix of the pending records and return it.

        Args:
            rng: decides which sectors reached the disk: none, all, and mostly some.
            keep: how many records to keep, instead of asking ``rng``.
        """
        if keep is None:
            keep = self._whole_records(rng)
        kept = self.pending[:keep]
        self.lost += len(self.pending) - len(kept)
        self._keep(kept)
        self.pending = []
        return kept

    def _whole_records(self, rng: random.Random) -> int:
        """Let some sectors of the pending group reach the disk; return how many whole records they begin with."""
        if not self.pending:
            return 0
        choice = rng.randrange(10)
        if choice < 2:
            return 0 if choice else len(self.pending)
        end = self._bytes + sum(size(record) for record in self.pending)
        sectors = range(self._bytes // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1)
        # In order up to a sector, or each by itself: a queue of the disk may carry them out in any order.
        if choice < 6:
            written = set(sectors[: rng.randint(0, len(sectors))])
        else:
            written = {sector for sector in sectors if rng.random() < 0.7}
        offset = self._bytes
        for index, record in enumerate(self.pending):
            touched = range(offset // SECTOR_BYTES, (offset + size(record) - 1) // SECTOR_BYTES + 1)
            there = sum(sector in written for sector in touched)
            if there < len(touched):
                self.torn += there > 0
                return index
            offset += size(record)
        return len(self.pending)

    # --- what lies there after years ---------------------------------------------------------------------------

    def read(self) -> tuple[list[RecordView], bool]:
        """Return what a start may rely on, and whether the rest cannot be trusted.

        What stands before the first bad header is as true as ever. Behind it a promise may be hidden.
        """
        if not self.untrusted:
            return self.durable, False
        first = next(i for i, record in enumerate(self.durable) if record.position in self.untrusted)
        return self.durable[:first], True

    def _covered(self) -> list[int]:
        """Return the places of the records that a later one says were synced."""
        claim = self.claims[-1] if self.claims else 0
        return [
            place
            for place, record in enumerate(self.durable)
            if record.position <= claim and record.position not in self.untrusted
        ]

    def compact(self, upto: int) -> int:
        """Drop the records in front that say nothing but what a snapshot up to slot ``upto`` says.

        One incarnation and one mark stay in their place, as in the head of a segment. Return how many went.
        """
        if self.untrusted:
            return 0  # nothing makes such a disk trusted again
        end = 0
        for record in self.durable:
            if record.kind in (RecordKind.RECORD_ACCEPT, RecordKind.RECORD_CHOSEN) and record.slot > upto:
                break
            end += 1
        head = self.durable[:end]
        if len(head) < 3:
            return 0
        incarnation = max((r.slot for r in head if r.kind == RecordKind.RECORD_INCARNATION), default=0)
        promised = max(r.ballot for r in head if r.ballot != BALLOT_CHOSEN)
        trimmed = max((r.slot for r in head if r.kind in TRIMMING), default=0)
        mark = max(r.mark for r in head)
        blank = RecordView(RecordKind.RECORD_INCARNATION, 0, 0, incarnation, 0, 0, 0, head[0].position, None)
        state = RecordView(RecordKind.RECORD_MARK, 0, 0, trimmed, promised, mark, 0, head[1].position, None)
        self.durable[:end] = [blank, state]
        del self.claims[2:end]
        return end - 2

    def rot(self, rng: random.Random, count: int) -> int:
        """Damage the values of up to ``count`` covered records; their headers stay good. Return how many.

        Slot 1 is spared: while nobody knows that it is chosen, all members must say what they hold there.
        """
        places = [
            place
            for place in self._covered()
            if self.durable[place].value and self.durable[place].slot > FIRST_CONFIGURATION_SLOT
        ]
        chosen = rng.sample(places, min(count, len(places)))
        for place in chosen:
            record = self.durable[place]
            self.durable[place] = record._replace(value=None, length=len(record.value or b""))
        return len(chosen)

    def distrust(self, rng: random.Random, count: int) -> int:
        """Spoil the headers of up to ``count`` covered records; return how many.

        A flipped bit in a header, a synced write that never reached the disk, a write that went to the place of
        another record: all the reader can see is a header that does not fit where it stands. The incarnation is
        spared; every segment repeats it.
        """
        places = [p for p in self._covered() if self.durable[p].kind != RECORD_INCARNATION]
        chosen = rng.sample(places, min(count, len(places)))
        self.untrusted.update(self.durable[place].position for place in chosen)
        return len(chosen)

    def value_at(self, position: int) -> bytes:
        """Return the value of the record at ``position``."""
        for records in (self.pending, self.durable):
            for record in reversed(records):
                if record.position == position:
                    return record.value or b""
        raise KeyError(f"no record at position {position}")


def size(record: RecordView) -> int:
    """Return the bytes that a record takes in the log."""
    return RECORD_HEAD_BYTES + (len(record.value or b"") + 7 & ~7)
