"""What the tests of the write-ahead log share: records, a log of known content, and its files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from paxos._core import effects
from paxos._core.crc32c import checksum
from paxos._core.effects import RecordView
from paxos.storage.wal import WriteAheadLog

NODE, CLUSTER, STORAGE = 3, 0xC1A5, bytes(range(16))
SEGMENT_HEAD_BYTES, RECORD_HEAD_BYTES = 512, 72
KIND = effects.RecordKind


def open_log(directory: Path, **options: Any) -> WriteAheadLog:
    settings: dict[str, Any] = {
        "node_id": NODE,
        "cluster": CLUSTER,
        "storage": STORAGE,
        "segment_bytes": 4096,
    }
    return WriteAheadLog(directory, **(settings | options))


def accept(slot: int, value: bytes | None = None, *, ballot: int = 65539, mark: int = 0) -> RecordView:
    value = b"value %d" % slot if value is None else value
    return RecordView(int(KIND.RECORD_ACCEPT), 2, 0, slot, ballot, mark, 0, 0, value)


def promise(ballot: int) -> RecordView:
    return RecordView(int(KIND.RECORD_PROMISE), 0, 0, 0, ballot, 0, 0, 0, None)


def incarnation(number: int) -> RecordView:
    return RecordView(int(KIND.RECORD_INCARNATION), 0, 0, number, 0, 0, 0, 0, None)


def trim(slot: int) -> RecordView:
    return RecordView(int(KIND.RECORD_TRIM), 0, 0, slot, 0, 0, 0, 0, None)


def accepted(records: list[RecordView]) -> dict[int, bytes | None]:
    """Return slot → value of the ACCEPT records that hold one."""
    return {r.slot: r.value for r in records if r.kind == KIND.RECORD_ACCEPT and not r.is_damaged}


def segments(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "log").iterdir() if not path.name.startswith("ready-"))


def record_bytes(length: int) -> int:
    return RECORD_HEAD_BYTES + (length + 7) // 8 * 8


def head_of(segment: bytes, offset: int) -> dict[str, int]:
    """Return the fields of the record header at ``offset``."""
    names = "crc kind value_kind reserved group length slot ballot mark position generation synced"
    names += " value_crc previous_crc"
    return dict(zip(names.split(), struct.unpack_from("<IBBHIIQQQQQQII", segment, offset), strict=True))


def reseal(segment: bytearray, offset: int) -> None:
    """Give the record header at ``offset`` the checksum of what now stands there."""
    struct.pack_into("<I", segment, offset, checksum(bytes(segment[offset + 4 : offset + RECORD_HEAD_BYTES])))
