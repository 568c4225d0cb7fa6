"""One fault in the log of a node, many thousand times: what becomes of it, and that it never becomes a wrong value."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paxos._core.crc32c import checksum
from paxos._core.effects import QuarantineReason, RecordKind, RecordView
from paxos._core.log_reader import LogReader
from paxos._core.recovery import examine
from paxos.engine import Engine
from paxos.storage.wal import WriteAheadLog
from paxos.types import Config

NODE, CLUSTER, STORAGE = 2, 77, bytes(range(16))
BALLOTS = (1 << 16 | 1, 2 << 16 | 3)
HEAD_BYTES, RECORD_BYTES = 512, 72
CHOSEN_BALLOT = (1 << 64) - 1

Fault = tuple[str, bytes | bytearray]
"""What was done, and the segment afterwards."""


class WrongAnswer(AssertionError):
    """Something that is not true was believed, or something that had been acknowledged was forgotten in silence."""


class DamagedLog:
    """A log of one segment whose content is known, and what a node makes of it after a fault.

    Args:
        directory: for the log.
        size: bytes of the segment; records fill nearly all of it.
        seed: of the values.
    """

    def __init__(self, directory: Path, size: int = 64 << 10, seed: int = 1) -> None:
        self.path = directory / "log"
        self.rng = random.Random(seed)
        self.values: dict[tuple[int, int], int] = {}  # (slot, ballot) -> checksum: all that was ever accepted
        self.chosen: dict[int, int] = {}
        self._build(directory, size)
        (self.file,) = self.path.glob("0*.segment")
        self.image = self.file.read_bytes()[:size]
        self.file.write_bytes(self.image)
        reader = self.reader()
        self.records = [record for step in reader for record in step if record.position & 0xFFFFFFFF]
        self.results = reader.results()
        self.claim = int(self.results["synced_claim"] or 0)
        self.end = int(self.results["end"] or 0) & 0xFFFFFFFF
        self.acknowledged = [record for record in self.records if record.position < self.claim]
        self.outcome(self.image)

    def _build(self, directory: Path, size: int) -> None:
        with WriteAheadLog(
            directory, node_id=NODE, cluster=CLUSTER, storage=STORAGE, segment_bytes=size, create=True
        ) as wal:
            wal.append([record(RecordKind.RECORD_INCARNATION, slot=5)])
            slot, mark, used = 0, 0, HEAD_BYTES + RECORD_BYTES
            while used < size - 3000:
                ballot = BALLOTS[used > size // 2]
                group = []
                if ballot not in {at for _, at in self.values}:
                    group.append(record(RecordKind.RECORD_PROMISE, ballot=ballot))
                    if ballot == BALLOTS[1]:  # the new leader begins again where its knowledge ends
                        slot = mark
                for _ in range(self.rng.randint(1, 4)):
                    slot += 1
                    value = self.rng.randbytes(self.rng.randint(1, 600))
                    self.values[slot, ballot] = checksum(value)
                    group.append(record(RecordKind.RECORD_ACCEPT, slot, ballot, mark, value))
                wal.append(group)
                wal.sync()
                used = int(wal.stats()["appended"]) & 0xFFFFFFFF
                upto = max(mark, slot - self.rng.randint(2, 5))
                for known in range(mark + 1, upto + 1):
                    self.chosen[known] = self.values[known, ballot]
                mark = upto

    def reader(self, *, keep_going: bool = False) -> LogReader:
        """Return a reader of the log as it lies there now."""
        return LogReader(self.path, node_id=NODE, cluster=CLUSTER, storage=STORAGE, keep_going=keep_going)

    def outcome(self, image: bytes | bytearray, *, end_is_lost: bool = False) -> str:
        """Put ``image`` in place of the segment and return what a start makes of it.

        Args:
            image: the segment, damaged.
            end_is_lost: nothing is left of all that was written behind some point. On its own a node cannot tell
                that from a log which ended there; members that remember more of it refuse it (S4).

        Raises:
            WrongAnswer: of anything but what the log had been told.
        """
        with open(self.file, "r+b") as file:
            file.truncate(len(image))
            file.write(image)
        return self.look(end_is_lost=end_is_lost)

    def look(self, *, end_is_lost: bool = False) -> str:
        """Return what a start makes of the log as it lies there now."""
        engine = new_engine()
        reader = self.reader()
        status = examine(reader, engine)
        if status == 0:
            if end_is_lost:
                self._check_values(engine)
                return "rolled back: members that remember refuse it"
            self._check_memory(engine)
            self._check_values(engine)
            return self._name(engine, reader)
        if status != errno.EUCLEAN:
            return f"clean stop: {os.strerror(status)}"
        reader = self.reader(keep_going=True)
        engine = new_engine()
        engine.quarantine(int(QuarantineReason.QUARANTINE_DAMAGED))
        if examine(reader, engine) not in (0, errno.EUCLEAN) or reader.results()["is_foreign"]:
            return "clean stop"
        self._check_chosen(engine)
        return "quarantined"

    def _check_memory(self, engine: Any) -> None:
        """A node that goes on voting knows all that it had said, or says of a slot that it does not."""
        seen = engine.inspect()
        if seen["promised"] < max(r.ballot for r in self.acknowledged if r.kind == RecordKind.RECORD_PROMISE):
            raise WrongAnswer(f"promised {seen['promised']}")
        if int(self.results["incarnation"] or 0) != 5:
            raise WrongAnswer("incarnation")
        damaged = set(engine.acceptor_role.slots.damaged())
        held = engine.acceptor_role.slots.held()
        for slot in {r.slot for r in self.acknowledged if r.kind == RecordKind.RECORD_ACCEPT}:
            if slot <= seen["chosen_upto"] or slot in damaged:
                continue
            last = max(
                r.ballot for r in self.acknowledged if r.slot == slot and r.kind == RecordKind.RECORD_ACCEPT
            )
            if slot not in held or held[slot][0] < last:
                raise WrongAnswer(f"the vote for slot {slot} is forgotten")

    def _check_values(self, engine: Any) -> None:
        damaged = set(engine.acceptor_role.slots.damaged())
        for slot, (ballot, _kind, value) in engine.acceptor_role.slots.held().items():
            if (
                value is not None
                and slot not in damaged
                and checksum(value) != self.values.get((slot, ballot))
            ):
                raise WrongAnswer(f"slot {slot} holds a value that nobody proposed at {ballot}")
        self._check_chosen(engine)

    def _check_chosen(self, engine: Any) -> None:
        for item in engine.effects.take_chosen():
            if item.value_crc != self.chosen.get(item.slot):
                raise WrongAnswer(f"slot {item.slot} is taken for chosen with another value")

    def _name(self, engine: Any, reader: LogReader) -> str:
        results = reader.results()
        if results["damaged_values"]:
            return "repaired: a value is fetched"
        end = int(results["end"] or 0) & 0xFFFFFFFF
        if end < self.end or results["torn"]:
            return "repaired: a torn tail is cut"
        return "unharmed"

    # --- faults ---

    def flips(self, positions: range | list[int]) -> Counter[str]:
        """Flip one bit, drawn at random, at each of these bytes, one at a time."""
        found: Counter[str] = Counter()
        with open(self.file, "r+b", buffering=0) as file:
            file.truncate(len(self.image))
            os.pwrite(file.fileno(), self.image, 0)
            for position in positions:
                byte = self.image[position] ^ 1 << self.rng.randrange(8)
                os.pwrite(file.fileno(), bytes([byte]), position)
                found[self.look()] += 1
                os.pwrite(file.fileno(), self.image[position : position + 1], position)
        return found

    def truncations(self, lengths: range | list[int]) -> Counter[str]:
        """Cut the segment off at each of these lengths."""
        return Counter(self.outcome(self.image[:length]) for length in lengths)

    def tails(self, starts: range | list[int]) -> Counter[str]:
        """Put zeros, ones and garbage in place of everything from each of these bytes on."""
        found: Counter[str] = Counter()
        size = len(self.image)
        for start in starts:
            for tail in (bytes(size - start), b"\xff" * (size - start), self.rng.randbytes(size - start)):
                # The newest record says that all before it were synced; alone it is a torn tail.
                lost = start < self.claim & 0xFFFFFFFF
                found[self.outcome(self.image[:start] + tail, end_is_lost=lost)] += 1
        return found

    def misplaced(self, count: int) -> Counter[str]:
        """Swap two records of one size, write one over another, or bring back what a record replaced."""
        found: Counter[str] = Counter()
        faults = self._misplaced()
        for _ in range(count):
            found[self.outcome(next(faults))] += 1
        return found

    def _misplaced(self) -> Iterator[bytearray]:
        sizes: dict[int, list[int]] = {}
        for item in self.records:
            sizes.setdefault(-(-item.length // 8), []).append(item.position & 0xFFFFFFFF)
        groups = [offsets for offsets in sizes.values() if len(offsets) > 1]
        while True:
            one, other = self.rng.sample(self.rng.choice(groups), 2)
            length = next(r.length for r in self.records if r.position & 0xFFFFFFFF == one)
            size = RECORD_BYTES + (length + 7) // 8 * 8
            first, second = self.image[one : one + size], self.image[other : other + size]
            image = bytearray(self.image)
            kind = self.rng.randrange(3)
            image[one : one + size] = bytes(size) if kind == 2 else second  # 2: a write that was lost
            if kind == 0:
                image[other : other + size] = first
            yield image


def record(
    kind: RecordKind, slot: int = 0, ballot: int = 0, mark: int = 0, value: bytes | None = None
) -> RecordView:
    """Return a record as a node would write it."""
    return RecordView(int(kind), 2 if value else 0, 0, slot, ballot, mark, 0, 0, value)


def new_engine() -> Engine:
    """Return an engine that knows nothing yet."""
    return Engine(NODE, CLUSTER, 6, STORAGE, dict.fromkeys((1, 2, 3)), Config())
