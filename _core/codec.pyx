"""The frame and value formats (``docs/wire-format.md``). Every length is checked before it is believed."""

from libc.string cimport memcpy, memset

from paxos._core.crc32c cimport crc32c

from typing import Any

assert sizeof(FrameHeader) == HEADER_BYTES
assert sizeof(BatchHead) == 32
assert sizeof(PingPayload) == PING_BYTES_MIN + 8
assert sizeof(PongPayload) == PONG_BYTES_MIN + 16


cdef void header_seal(FrameHeader *header, const Buffer *payload, uint32_t payload_crc) noexcept nogil:
    header.magic = FRAME_MAGIC
    header.version = PROTOCOL_VERSION
    header.payload_bytes = <uint32_t>payload.size if payload != NULL else 0
    header.payload_crc = payload_crc if payload != NULL else 0
    header.header_crc = crc32c(0, <const uint8_t *>header, HEADER_BYTES - 4)


cdef bint header_valid(const uint8_t *data, size_t size) noexcept nogil:
    cdef FrameHeader header
    if size != HEADER_BYTES:
        return False
    memcpy(&header, data, HEADER_BYTES)
    return (
        header.magic == FRAME_MAGIC
        and header.version == PROTOCOL_VERSION
        and header.payload_bytes <= PAYLOAD_BYTES_MAX
        and header.header_crc == crc32c(0, data, HEADER_BYTES - 4)
    )


cdef bint batch_valid(const uint8_t *data, size_t size, BatchHead *head) noexcept nogil:
    cdef size_t offset = sizeof(BatchHead)
    cdef uint32_t length, index
    if size < sizeof(BatchHead):
        return False
    memcpy(head, data, sizeof(BatchHead))
    if head.count == 0 or head.first_ticket == 0 or head.origin == 0:
        return False
    if head.first_ticket + head.count < head.first_ticket:
        return False
    for index in range(head.count):
        if size - offset < 4:
            return False
        memcpy(&length, data + offset, 4)
        offset += 4
        if length > size - offset:
            return False
        offset += length
    return offset == size


def encode_frame(
    kind: int,
    *,
    sender: int,
    receiver: int,
    cluster: int = 0,
    incarnation: int = 0,
    group: int = 0,
    detail: int = 0,
    ballot: int = 0,
    slot: int = 0,
    mark: int = 0,
    payload: bytes = b"",
) -> bytes:
    """Return the bytes of one frame: header and payload together.

    The runtime sends the two as separate message parts; tests and the simulator keep them together.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes is over the limit of {PAYLOAD_BYTES_MAX}")
    cdef FrameHeader header
    cdef const uint8_t[::1] view = payload
    memset(&header, 0, sizeof(header))
    header.magic = FRAME_MAGIC
    header.version = PROTOCOL_VERSION
    header.kind = kind
    header.group = group
    header.sender = sender
    header.receiver = receiver
    header.detail = detail
    header.incarnation = incarnation
    header.cluster = cluster
    header.ballot = ballot
    header.slot = slot
    header.mark = mark
    header.payload_bytes = <uint32_t>view.shape[0]
    header.payload_crc = crc32c(0, &view[0], view.shape[0]) if view.shape[0] else 0
    header.header_crc = crc32c(0, <const uint8_t *>&header, HEADER_BYTES - 4)
    return (<const uint8_t *>&header)[:HEADER_BYTES] + payload


def decode_frame(const uint8_t[::1] frame not None) -> dict[str, Any]:
    """Return the fields of one frame (header and payload together).

    Raises:
        ValueError: not a frame of this protocol, or a checksum does not match.
    """
    cdef FrameHeader header
    cdef size_t size = frame.shape[0]
    if size < HEADER_BYTES or not header_valid(&frame[0], HEADER_BYTES):
        raise ValueError(f"{size} bytes that do not start with a valid frame header")
    memcpy(&header, &frame[0], HEADER_BYTES)
    if size - HEADER_BYTES != header.payload_bytes:
        raise ValueError(f"the header announces {header.payload_bytes} payload bytes, {size - HEADER_BYTES} came")
    payload = bytes(frame[HEADER_BYTES:])
    if header.payload_bytes and crc32c(0, &frame[HEADER_BYTES], header.payload_bytes) != header.payload_crc:
        raise ValueError("the payload does not match its checksum")
    return {
        "kind": header.kind,
        "group": header.group,
        "sender": header.sender,
        "receiver": header.receiver,
        "detail": header.detail,
        "incarnation": header.incarnation,
        "cluster": header.cluster,
        "ballot": header.ballot,
        "slot": header.slot,
        "mark": header.mark,
        "payload": payload,
    }


def encode_batch(commands: list[bytes], *, origin: int, incarnation: int, first_ticket: int) -> bytes:
    """Return the value of a BATCH slot. The Batcher does the same without the GIL; this is its twin for
    tests, tools and the simulator."""
    cdef BatchHead head
    memset(&head, 0, sizeof(head))
    head.incarnation = incarnation
    head.first_ticket = first_ticket
    head.count = len(commands)
    head.origin = origin
    parts = [(<const uint8_t *>&head)[:sizeof(BatchHead)]]
    for command in commands:
        parts.append(len(command).to_bytes(4, "little"))
        parts.append(command)
    return b"".join(parts)


def decode_batch(const uint8_t[::1] value not None) -> tuple[int, int, int, list[bytes]]:
    """Return ``(origin, incarnation, first_ticket, commands)`` of a BATCH value.

    Raises:
        ValueError: the bytes are not a complete batch.

    >>> decode_batch(encode_batch([b"a", b"bc"], origin=1, incarnation=7, first_ticket=3))
    (1, 7, 3, [b'a', b'bc'])
    """
    cdef BatchHead head
    cdef size_t offset = sizeof(BatchHead)
    cdef uint32_t length
    cdef size_t size = value.shape[0]
    if size == 0 or not batch_valid(&value[0], size, &head):
        raise ValueError(f"{size} bytes that are not a complete batch")
    commands = []
    for _ in range(head.count):
        memcpy(&length, &value[offset], 4)
        offset += 4
        commands.append(bytes(value[offset:offset + length]))
        offset += length
    return head.origin, head.incarnation, head.first_ticket, commands
