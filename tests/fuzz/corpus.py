"""Frames of a real history, and what can be done to them."""

from __future__ import annotations

from random import Random

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos._core.codec import FrameKind
from tests.unit.engine_kit import CLUSTER, Cluster

HEADER_BYTES = 72
NUMBERS = (0, 1, 2, 255, 256, 65535, 65536, *(1 << bits for bits in (31, 32, 48, 62, 63)))
NUMBERS += tuple((1 << bits) - 1 for bits in (31, 32, 48, 63, 64))
FIELDS = ("kind", "group", "sender", "receiver", "detail", "incarnation", "cluster", "ballot", "slot", "mark")
LIMITS = {"kind": 8, "group": 32, "sender": 16, "receiver": 16, "detail": 16}


def record(count: int = 3) -> list[bytes]:
    """Return frames of every kind that a small cluster sends through a start, a failover and a catch-up."""
    cluster = Cluster(count)
    frames: list[bytes] = []
    seen: dict[tuple[int, int, int], int] = {}

    def keep(fields: dict[str, int]) -> bool:
        key = (fields["kind"], fields["receiver"], fields["detail"])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 8:
            frames.append(codec.encode_frame(**fields))  # type: ignore[arg-type]
        return False

    cluster.drop = keep
    leader = cluster.lead()
    for node in cluster.nodes.values():
        node.propose(b"of %d" % node.id, b"another")
    cluster.settle(*(b"of %d" % node for node in cluster.nodes))
    cluster.crash(leader)
    second = cluster.lead()
    for _ in range(5):
        cluster[second].propose(b"x" * 200)
        cluster.run(20)
    cluster.restart(leader)
    cluster.settle(b"x" * 200)
    return frames


def reseal(fields: dict[str, int | bytes]) -> bytes:
    """Return the frame with these fields, each cut to its size, and valid checksums."""
    for name in FIELDS:
        value = fields[name]
        assert isinstance(value, int)
        fields[name] = value & ((1 << LIMITS.get(name, 64)) - 1)
    return codec.encode_frame(**fields)  # type: ignore[arg-type]


def absurd(chance: Random, frames: list[bytes]) -> bytes:
    """Return a well sealed frame with some fields that make no sense."""
    fields = codec.decode_frame(chance.choice(frames))
    for name in chance.sample(FIELDS, chance.randrange(1, 5)):
        value = fields[name]
        fields[name] = chance.choice(
            (
                chance.choice(NUMBERS),
                value + 1,
                max(0, value - 1),
                value ^ 1 << chance.randrange(64),
                ballots.make(chance.randrange(40), chance.randrange(1, 5)),
                chance.getrandbits(64),
            )
        )
    if chance.random() < 0.2:
        fields["kind"] = int(chance.choice(list(FrameKind)))
    payload = bytearray(fields["payload"])
    match chance.randrange(6):
        case 0:
            payload = bytearray(codec.decode_frame(chance.choice(frames))["payload"])
        case 1:
            payload = payload[: chance.randrange(len(payload) + 1)]
        case 2:
            payload += chance.randbytes(chance.randrange(1, 80))
        case 3 if payload:
            for _ in range(chance.randrange(1, 4)):
                payload[chance.randrange(len(payload))] = chance.choice((0, 1, 127, 128, 255))
        case 4 if len(payload) >= 8:
            at = 8 * chance.randrange(len(payload) // 8)
            payload[at : at + 8] = chance.choice(NUMBERS).to_bytes(8, "little")
    fields["payload"] = bytes(payload)
    return reseal(fields)


def aim(chance: Random, data: bytes, receiver: int) -> bytes:
    """Return the frame as a member would send it to ``receiver``, so that it passes the gate."""
    fields = codec.decode_frame(data)
    others = [node for node in (1, 2, 3) if node != receiver]
    fields |= {"receiver": receiver, "sender": chance.choice(others), "cluster": CLUSTER, "group": 0}
    fields["incarnation"] = 1 if chance.random() < 0.98 else 2
    if fields["kind"] == FrameKind.HELLO and chance.random() < 0.98:
        fields["kind"] = int(FrameKind.PING)
    return reseal(fields)


def broken(chance: Random, frames: list[bytes]) -> bytes:
    """Return bytes that are no frame, or hardly any."""
    data = bytearray(chance.choice(frames))
    match chance.randrange(5):
        case 0:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            del data[chance.randrange(len(data)) :]
        case 2:
            data += chance.randbytes(chance.randrange(1, 40))
        case 3:
            data = bytearray(chance.randbytes(chance.randrange(300)))
        case _:
            data[:4] = data[:4] if chance.random() < 0.5 else chance.randbytes(4)
            for _ in range(chance.randrange(1, 10)):
                data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)
