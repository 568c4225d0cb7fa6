"""The parts, one by one: what ``pytest benchmarks`` and ``python -m benchmarks micro`` measure.

Each workload is built once and called over and over; one call does ``operations`` operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paxos._core import crc32c
from paxos._core.batch import Batcher, Commands
from paxos._core.codec import FrameKind, decode_batch, decode_frame, encode_batch, encode_frame
from paxos._core.effects import RecordKind, RecordView
from paxos.storage.wal import WriteAheadLog

BALLOT = 1 << 16 | 1
BATCH_VALUE = 2  # codec's ValueKind.BATCH
SEGMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    """One call of ``act`` does ``operations`` operations on ``command_bytes`` bytes each."""

    name: str
    act: Callable[[], object]
    operations: int
    command_bytes: int
    durability: str = "none (memory only)"


def checksums() -> list[Workload]:
    """CRC32C of small and large buffers, in hardware where there is some, and by table."""
    small, large = os.urandom(64), os.urandom(1 << 20)
    return [
        Workload("crc32c-64B", lambda: crc32c.checksum(small), 1, len(small)),
        Workload("crc32c-1MiB", lambda: crc32c.checksum(large), 1, len(large)),
        Workload("crc32c-table-1MiB", lambda: crc32c.software_checksum(large), 1, len(large)),
    ]


def codec() -> list[Workload]:
    """Frames and batches through the Python face of the codec (the core itself makes no Python objects)."""
    commands = [os.urandom(16) for _ in range(1000)]
    value = encode_batch(commands, origin=1, incarnation=1, first_ticket=1)
    frame = encode_frame(
        FrameKind.ACCEPT, sender=1, receiver=2, ballot=BALLOT, slot=7, detail=BATCH_VALUE, payload=value
    )

    def encode() -> bytes:
        return encode_frame(
            FrameKind.ACCEPT, sender=1, receiver=2, ballot=BALLOT, slot=7, detail=BATCH_VALUE, payload=value
        )

    return [
        Workload("frame-encode", encode, 1, len(value)),
        Workload("frame-decode", lambda: decode_frame(frame), 1, len(value)),
        Workload(
            "batch-encode", lambda: encode_batch(commands, origin=1, incarnation=1, first_ticket=1), 1000, 16
        ),
        Workload("batch-decode", lambda: decode_batch(value), 1000, 16),
        Workload("batch-iterate", lambda: sum(map(len, Commands(value))), 1000, 16),
    ]


def batcher() -> list[Workload]:
    """From the caller's bytes to a sealed value."""
    source = Batcher(1, 1)
    commands = [os.urandom(16) for _ in range(1000)]

    def one_by_one() -> None:
        for command in commands:
            source.append(command)
        source.take_value()

    def in_a_run() -> None:
        source.append_many(commands)
        source.take_value()

    return [
        Workload("batcher-append", one_by_one, 1000, 16),
        Workload("batcher-append-many", in_a_run, 1000, 16),
    ]


class Log:
    """A write-ahead log that records are appended to; old segments are recycled, as trimming would."""

    def __init__(self, directory: Path) -> None:
        self._wal = WriteAheadLog(
            directory, node_id=1, cluster=1, storage=bytes(16), segment_bytes=SEGMENT_BYTES, create=True
        )
        self._slot = 0
        self._segment = 0

    def append(self, value: bytes, count: int) -> None:
        """Append ``count`` records in one write, and sync."""
        records = []
        for _ in range(count):
            self._slot += 1
            records.append(
                RecordView(RecordKind.RECORD_ACCEPT, BATCH_VALUE, 0, self._slot, BALLOT, 0, 0, 0, value)
            )
        positions = self._wal.append(records)
        self._wal.sync()
        segment = positions[-1] >> 32
        if segment != self._segment:
            self._segment = segment
            self._wal.recycle_below(segment)

    def close(self) -> None:
        """Close the files."""
        self._wal.close()


@contextmanager
def wal(directory: Path) -> Iterator[list[Workload]]:
    """Append and sync: one small record, many, one large."""
    log = Log(directory / "wal")
    small, large = os.urandom(512), os.urandom(1 << 20)
    try:
        yield [
            Workload("wal-512B", lambda: log.append(small, 1), 1, len(small), "fdatasync"),
            Workload("wal-100x512B", lambda: log.append(small, 100), 100, len(small), "fdatasync"),
            Workload("wal-1MiB", lambda: log.append(large, 1), 1, len(large), "fdatasync"),
        ]
    finally:
        log.close()
