"""Frames as the simulator's observer reads them: one struct unpacking for each, payloads on demand.

The observer looks at every frame of a run, so it does not build dictionaries for it; the layouts repeat
those of ``_core/codec.pxd`` and a test holds the two together.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from paxos._core import codec

Kind = codec.FrameKind

HEADER = Struct("<HBBIHHHHIIQQQQQII")
PING = Struct("<QQQQIIQ")
PONG = Struct("<QQQQQQQQIIQQ")
PROMISE_HEAD = Struct("<QQIIII16s")
PROMISE_ENTRY = Struct("<QQIIHHI")

KIND_NAMES: dict[int, str] = {int(kind): kind.name for kind in Kind}
"""Frame kind number to its name in lower-level reports."""

BALLOT_CHOSEN = 0xFFFF_FFFF_FFFF_FFFF
NODE_MASK = 0xFFFF


class Frame(NamedTuple):
    """The header fields that the observer needs, and the whole frame.

    Attributes:
        number: of the frame in the trace of a run; 0 without a trace.
    """

    kind: int
    sender: int
    receiver: int
    detail: int
    incarnation: int
    ballot: int
    slot: int
    mark: int
    data: bytes
    number: int = 0

    @property
    def payload(self) -> bytes:
        """The bytes after the header."""
        return self.data[HEADER.size :]


class Ping(NamedTuple):
    """Payload of a PING."""

    round: int
    ballot: int
    sent_upto: int
    chosen_upto: int
    flags: int
    read_round: int


class Pong(NamedTuple):
    """Payload of a PONG."""

    round: int
    asker: int
    promised: int
    leader: int
    stream_ballot: int
    stream_start: int
    stream_upto: int
    chosen_upto: int
    flags: int
    priority: int
    read_round: int
    position: int


class PromisePage(NamedTuple):
    """Payload of one PROMISE page; entries are ``(slot, ballot, length, crc, kind, flags)``."""

    trimmed: int
    config_slot: int
    page: int
    pages: int
    entries: list[tuple[int, int, int, int, int, int]]


def view(data: bytes) -> Frame:
    """Return the header of a frame that one of our own nodes made (checksums are the nodes' business)."""
    fields = HEADER.unpack_from(data)
    return Frame(
        fields[2], fields[4], fields[5], fields[6], fields[10], fields[12], fields[13], fields[14], data
    )


def ping(data: bytes) -> Ping:
    """Return the payload of a PING frame."""
    round, ballot, sent_upto, chosen_upto, flags, _, read_round = PING.unpack_from(data, HEADER.size)
    return Ping(round, ballot, sent_upto, chosen_upto, flags, read_round)


def pong(data: bytes) -> Pong:
    """Return the payload of a PONG frame."""
    return Pong(*PONG.unpack_from(data, HEADER.size))


def promise(data: bytes) -> PromisePage:
    """Return the payload of a PROMISE frame."""
    trimmed, config_slot, page, pages, count, _, _ = PROMISE_HEAD.unpack_from(data, HEADER.size)
    offset = HEADER.size + PROMISE_HEAD.size
    entries = [
        PROMISE_ENTRY.unpack_from(data, offset + index * PROMISE_ENTRY.size)[:6] for index in range(count)
    ]
    return PromisePage(trimmed, config_slot, page, pages, entries)
