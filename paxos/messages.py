"""Messages of the protocol and intents of the control plane, as frozen dataclasses.

A *message* travels between nodes; :func:`encode` and :func:`decode` turn it into a frame and back. An
*intent* travels from the control thread to the reactor of the same node, which checks it against its present
state before it acts.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paxos._core.codec import FrameKind, decode_frame, encode_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Promise ``ballot`` ourselves and, once that is durable, send Prepare to all members."""

    ballot: int
    from_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Phase 1 is complete: lead at ``ballot``, proposing ``values`` from ``first_slot`` on before anything new."""

    ballot: int
    first_slot: int
    values: Sequence[tuple[int, bytes]] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send one frame of this node."""

    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Hand leadership to ``heir``."""

    heir: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resign:
    """Stop leading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """The configuration chosen in ``slot`` binds ``members`` (node id to storage UUID) from ``slot + 1`` on."""

    slot: int
    members: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """A durable snapshot of this node covers the slots up to ``upto``: they need not be held any more."""

    upto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshot:
    """A snapshot that holds everything up to slot ``upto`` is durable here: go on behind it.

    Ignored if this node knows as much already. Also the first step of a restart from a snapshot, before the log
    is replayed.
    """

    upto: int
    last_index: int
    """Index of the last command that it covers."""
    sessions: Mapping[int, tuple[int, int]]
    """Origin to (incarnation, last admitted ticket)."""
    config_slot: int = 0
    """Slot of the newest configuration that it covers ..."""
    configuration: bytes = b""
    """... and its value."""


Intent = Campaign | Lead | Send | Transfer | Resign | Configure | Trim | InstallSnapshot


# ---- messages between nodes ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Phase 1a for the whole suffix of the log: promise ``ballot``, report every slot from ``from_slot`` on."""

    sender: int
    ballot: int
    from_slot: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a promise says of one slot: the ballot at which it was accepted, and what the value looks like."""

    slot: int
    ballot: int
    kind: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Phase 1b: nothing below ``ballot`` will be accepted any more. One page of the report."""

    sender: int
    ballot: int
    chosen_upto: int
    page: bytes = field(repr=False)
    """The page as it crosses the wire."""
    reported: tuple[Reported, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The leader of ``ballot`` will send its values in slot order from ``start`` on."""

    sender: int
    ballot: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Phase 2a: accept ``value`` in ``slot`` at ``ballot``."""

    sender: int
    ballot: int
    slot: int
    kind: int
    value: bytes
    chosen_upto: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Phase 2b: every slot of the stream up to ``upto`` is durable at ``ballot`` here."""

    sender: int
    ballot: int
    upto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """A refusal of ``ballot``: ``reason`` is a ``codec.NackReason``, ``promised`` the highest ballot promised."""

    sender: int
    ballot: int
    reason: int
    promised: int
    expected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Ask for the value accepted in ``slot`` at exactly ``ballot``."""

    sender: int
    slot: int
    ballot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The answer to :class:`Fetch`; ``status`` is a ``codec.FetchStatus``."""

    sender: int
    slot: int
    ballot: int
    status: int
    kind: int
    value: bytes


Message = Prepare | Promise | Open | Accept | Accepted | Nack | Fetch | Fetched

PROMISE_HEAD = struct.Struct("<QQIIII16s")
PROMISE_ENTRY = struct.Struct("<QQIIHHI")


def encode(message: Message, receiver: int) -> bytes:
    """Return the frame that carries ``message`` to node ``receiver``.

    Raises:
        TypeError: not a message that travels between roles.
    """
    detail = slot = mark = 0
    payload = b""
    match message:
        case Prepare():
            kind, slot = FrameKind.PREPARE, message.from_slot
        case Promise():
            kind, mark, payload = FrameKind.PROMISE, message.chosen_upto, message.page
        case Open():
            kind, slot = FrameKind.OPEN, message.start
        case Accept():
            kind, slot, mark = FrameKind.ACCEPT, message.slot, message.chosen_upto
            detail, payload = message.kind, message.value
        case Accepted():
            kind, slot = FrameKind.ACCEPTED, message.upto
        case Nack():
            kind, detail, slot, mark = FrameKind.NACK, message.reason, message.expected, message.promised
        case Fetch():
            kind, slot = FrameKind.FETCH, message.slot
        case Fetched():
            kind, slot, payload = FrameKind.FETCHED, message.slot, message.value
            detail = message.status << 8 | message.kind
        case _:
            raise TypeError(f"not a message between roles: {message!r}")
    return encode_frame(
        kind, sender=message.sender, receiver=receiver, detail=detail, ballot=message.ballot, slot=slot,
        mark=mark, incarnation=1, payload=payload,
    )  # fmt: skip


def decode(frame: bytes) -> Message:
    """Read the message in ``frame``.

    Raises:
        ValueError: the bytes are no frame, or carry something that roles do not exchange by hand.
    """
    fields = decode_frame(frame)
    sender, ballot, slot, mark = fields["sender"], fields["ballot"], fields["slot"], fields["mark"]
    detail, payload = fields["detail"], fields["payload"]
    match fields["kind"]:
        case FrameKind.PREPARE:
            return Prepare(sender=sender, ballot=ballot, from_slot=slot)
        case FrameKind.PROMISE:
            try:
                entries = PROMISE_ENTRY.iter_unpack(payload[PROMISE_HEAD.size :])
                reported = tuple(
                    Reported(slot=at, ballot=accepted, kind=kind, length=length, crc=crc)
                    for at, accepted, length, crc, kind, _flags, _reserved in entries
                )
            except struct.error as error:
                raise ValueError(f"not a page of a promise: {error}") from error
            return Promise(sender=sender, ballot=ballot, chosen_upto=mark, page=payload, reported=reported)
        case FrameKind.OPEN:
            return Open(sender=sender, ballot=ballot, start=slot)
        case FrameKind.ACCEPT:
            return Accept(
                sender=sender, ballot=ballot, slot=slot, kind=detail, value=payload, chosen_upto=mark
            )
        case FrameKind.ACCEPTED:
            return Accepted(sender=sender, ballot=ballot, upto=slot)
        case FrameKind.NACK:
            return Nack(sender=sender, ballot=ballot, reason=detail, promised=mark, expected=slot)
        case FrameKind.FETCH:
            return Fetch(sender=sender, slot=slot, ballot=ballot)
        case FrameKind.FETCHED:
            return Fetched(
                sender=sender, slot=slot, ballot=ballot, status=detail >> 8, kind=detail & 0xFF, value=payload
            )
    raise ValueError(f"a frame of kind {fields['kind']} is not exchanged by hand")
