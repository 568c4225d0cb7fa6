"""The frame and value formats: whatever arrives gives a value or one documented error (G10)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._core import codec, crc32c

HEADER_BYTES = 72
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)

fields = st.fixed_dictionaries(
    {
        "kind": st.integers(0, 255),
        "sender": u16,
        "receiver": u16,
        "detail": u16,
        "group": u32,
        "incarnation": u64,
        "cluster": u64,
        "ballot": u64,
        "slot": u64,
        "mark": u64,
        "payload": st.binary(max_size=300),
    }
)
batches = st.fixed_dictionaries(
    {
        "commands": st.lists(st.binary(max_size=50), min_size=1, max_size=20),
        "origin": st.integers(1, 0xFFFF),
        "incarnation": u64,
        "first_ticket": st.integers(1, 2**63),
    }
)


def sealed(header: bytearray) -> bytes:
    """Put a right checksum on a header, so that what lies behind the checksum is reached."""
    header[68:72] = struct.pack("<I", crc32c.checksum(bytes(header[:68])))
    return bytes(header)


@given(fields)
def test_a_frame_comes_back_as_it_was_sent(frame: dict[str, object]) -> None:
    encoded = codec.encode_frame(**frame)  # type: ignore[arg-type]
    assert codec.decode_frame(encoded) == frame


@given(batches)
def test_a_batch_comes_back_as_it_was_sealed(batch: dict[str, object]) -> None:
    encoded = codec.encode_batch(**batch)  # type: ignore[arg-type]
    assert codec.decode_batch(encoded) == (
        batch["origin"],
        batch["incarnation"],
        batch["first_ticket"],
        batch["commands"],
    )


def test_the_layout_is_the_documented_one() -> None:
    frame = codec.encode_frame(
        codec.FrameKind.ACCEPT,
        sender=2,
        receiver=3,
        cluster=0x1122334455667788,
        incarnation=5,
        group=6,
        detail=codec.ValueKind.BATCH,
        ballot=7,
        slot=8,
        mark=9,
        payload=b"abc",
    )
    expected = struct.pack(
        "<HBBIHHHHIIQQQQQI", 0x5850, 1, 7, 6, 2, 3, 2, 0, 3, crc32c.checksum(b"abc"), 5,
        0x1122334455667788, 7, 8, 9, 0,
    )  # fmt: skip
    assert frame == expected + struct.pack("<I", crc32c.checksum(expected)) + b"abc"
    batch = codec.encode_batch([b"x", b""], origin=2, incarnation=3, first_ticket=4)
    assert batch == struct.pack("<QQQIHH", 3, 4, 0, 2, 2, 0) + b"\x01\0\0\0x" + b"\0\0\0\0"


@given(st.binary(max_size=400))
def test_g10_any_bytes_as_a_frame_give_a_value_or_value_error(data: bytes) -> None:
    try:
        codec.decode_frame(data)
    except ValueError:
        pass


@given(st.binary(min_size=68, max_size=68), st.binary(max_size=100), st.booleans())
def test_g10_a_well_sealed_header_of_nonsense(head: bytes, payload: bytes, plausible: bool) -> None:
    header = bytearray(head + bytes(4))
    if plausible:
        header[0:3] = b"PX\x01"
        header[16:20] = struct.pack("<I", len(payload))
    try:
        decoded = codec.decode_frame(sealed(header) + payload)
    except ValueError:
        return
    assert decoded["payload"] == payload


@given(st.binary(max_size=300))
def test_g10_any_bytes_as_a_batch_give_a_value_or_value_error(data: bytes) -> None:
    try:
        codec.decode_batch(data)
    except ValueError:
        pass


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=8), st.binary(max_size=60))
def test_g10_a_batch_whose_lengths_lie(count: int, lengths: list[int], rest: bytes) -> None:
    body = b"".join(struct.pack("<I", length) for length in lengths)
    value = struct.pack("<QQQIHH", 1, 1, 0, count, 1, 0) + body + rest
    try:
        commands = codec.decode_batch(value)[3]
    except ValueError:
        return
    assert len(commands) == count
    assert sum(4 + len(command) for command in commands) == len(body) + len(rest)


@settings(max_examples=50)
@given(fields, st.data())
def test_d10_a_flipped_bit_never_passes(frame: dict[str, object], draw: st.DataObject) -> None:
    encoded = bytearray(codec.encode_frame(**frame))  # type: ignore[arg-type]
    bit = draw.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ValueError, match="header|checksum"):
        codec.decode_frame(encoded)


@given(batches, st.data())
def test_a_batch_cut_short_or_made_longer_is_refused(batch: dict[str, object], draw: st.DataObject) -> None:
    encoded = codec.encode_batch(**batch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="complete batch"):
        codec.decode_batch(encoded[: draw.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(ValueError, match="complete batch"):
        codec.decode_batch(encoded + draw.draw(st.binary(min_size=1, max_size=9)))


@pytest.mark.parametrize(
    ("origin", "ticket", "count"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 2**64 - 1, 1), (1, 2**64 - 2, 2)]
)
def test_a_batch_without_origin_ticket_or_commands_is_refused(origin: int, ticket: int, count: int) -> None:
    value = struct.pack("<QQQIHH", 1, ticket, 0, count, origin, 0) + b"\0\0\0\0" * count
    with pytest.raises(ValueError, match="complete batch"):
        codec.decode_batch(value)


def test_g10_an_announced_length_is_never_believed() -> None:
    header = bytearray(codec.encode_frame(codec.FrameKind.ACCEPT, sender=1, receiver=2))
    header[16:20] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(ValueError, match="header"):
        codec.decode_frame(sealed(header))
    header[16:20] = struct.pack("<I", 2**27)
    with pytest.raises(ValueError, match="payload bytes"):
        codec.decode_frame(sealed(header))


@pytest.mark.parametrize("field", ["kind", "sender", "receiver", "detail", "group", "ballot", "slot", "mark"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_x3_fields_that_do_not_fit_are_refused(field: str, value: int) -> None:
    arguments: dict[str, int] = {"kind": 1, "sender": 1, "receiver": 2} | {field: value}
    with pytest.raises(OverflowError):
        codec.encode_frame(**arguments)  # type: ignore[arg-type]


def test_numbers_on_the_wire_are_never_reused() -> None:
    """Adding a kind extends this list; changing a number breaks every log and every peer in use."""
    assert [(kind.name, kind.value) for kind in codec.FrameKind if kind < 64] == [
        ("HELLO", 1), ("PING", 2), ("PONG", 3), ("PREPARE", 4), ("PROMISE", 5), ("OPEN", 6), ("ACCEPT", 7),
        ("ACCEPT_REF", 8), ("ACCEPTED", 9), ("DECIDE", 10), ("NACK", 11), ("FORWARD", 12), ("FETCH", 13),
        ("FETCHED", 14), ("FETCH_CHOSEN", 15), ("CHOSEN", 16), ("CHOSEN_GONE", 17), ("TRANSFER", 18),
        ("RESULT", 19), ("READ_INDEX", 20), ("READ_MARK", 21), ("SNAPSHOT_OFFER", 22), ("SNAPSHOT_CHUNK", 23),
        ("MEMBER_CHANGE", 24), ("REFUSE", 25),
    ]  # fmt: skip
    assert {kind.name: kind.value for kind in codec.ValueKind} == {"NOOP": 1, "BATCH": 2, "CONFIGURATION": 3}
