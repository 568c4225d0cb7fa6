"""CRC-32C: the vectors of RFC 3720, and the same number from hardware and from the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos._core import crc32c

# RFC 3720, appendix B.4, read as little-endian numbers.
RFC_3720 = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"
            "28000000 00000000 02000000 00000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.parametrize(("data", "expected"), RFC_3720)
def test_rfc_3720_vectors(data: bytes, expected: int) -> None:
    assert crc32c.checksum(data) == expected
    assert crc32c.software_checksum(data) == expected


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_hardware_is_software(data: bytes, start: int, offset: int) -> None:
    view = memoryview(data)[offset:]
    assert crc32c.checksum(view, start) == crc32c.software_checksum(view, start)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_continuing_is_the_same_as_the_whole(head: bytes, tail: bytes) -> None:
    assert crc32c.checksum(tail, crc32c.checksum(head)) == crc32c.checksum(head + tail)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_d10_every_single_bit_counts(data: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << (bit % 8)
    assert crc32c.checksum(flipped) != crc32c.checksum(data)


def test_what_runs_is_named() -> None:
    assert crc32c.implementation() in ("hardware", "software")


def test_objects_without_bytes_are_refused() -> None:
    with pytest.raises(TypeError):
        crc32c.checksum(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        crc32c.checksum("text")  # type: ignore[arg-type]
