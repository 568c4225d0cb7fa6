"""Whose log it is, by its segments alone: for a directory whose identity was damaged."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from paxos._core.crc32c import checksum
from paxos._core.log_reader import segment_numbers

_HEAD = struct.Struct("<8sIIQQQQQQQQQQ16sIIHHI")  # wal_format.SegmentHead
_MAGIC = b"PPXSWAL1"
_FORMAT = 1


class LogOwner(NamedTuple):
    """The node, cluster id and storage UUID that every readable head of a log names."""

    node_id: int
    cluster_id: int
    storage: bytes


def log_owner(log: Path) -> LogOwner | None:
    """Return whose segments lie in ``log``; ``None`` if none can be read, or if they do not agree."""
    found: set[LogOwner] = set()
    try:
        for number in segment_numbers(log):
            with open(log / f"{number:016x}.segment", "rb") as file:
                head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                continue
            fields = _HEAD.unpack(head)
            magic, format_version, segment, cluster_id = fields[0], fields[1], fields[3], fields[6]
            storage, node_id, crc = fields[13], fields[16], fields[18]
            if magic == _MAGIC and crc == checksum(head[:-4]) and segment == number:
                if format_version != _FORMAT:
                    return None
                found.add(LogOwner(node_id, cluster_id, storage))
    except OSError:
        return None
    return found.pop() if len(found) == 1 else None
