"""Hostile bytes at the socket of a real node: dropped, counted, and nobody notices (F17)."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import zmq

import paxos
from paxos._core import codec
from paxos.transport import parse_address
from tests.fuzz import corpus

WAIT_S = 60.0
MESSAGES = 6_000 * int(os.environ.get("PAXOS_FUZZ", "1"))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def parts_of(chance: Random, frames: list[bytes], cluster: int) -> list[bytes]:
    """Return one message: a frame in its two parts, sealed for this very node or broken, or anything."""
    data = corpus.absurd(chance, frames)
    if chance.random() < 0.6:
        fields = codec.decode_frame(data)
        fields |= {"cluster": cluster, "receiver": 1, "group": 0, "sender": chance.choice([0, 1, 2, 3, 9])}
        data = corpus.reseal(fields)
    match chance.randrange(8):
        case 0:
            data = corpus.broken(chance, [data])
        case 1:
            return [chance.randbytes(chance.randrange(100)) for _ in range(chance.randrange(1, 5))]
    return [data[: corpus.HEADER_BYTES]] + (
        [data[corpus.HEADER_BYTES :]] if len(data) > corpus.HEADER_BYTES else []
    )


def test_f17_a_flood_of_hostile_messages_is_counted_while_commands_go_on(tmp_path: Path) -> None:
    chance = Random(1)
    frames = corpus.record()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    context: zmq.Context[Any] = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)
    try:
        with paxos.Replica(tmp_path, node_id=1, members={1: address}) as replica:
            assert replica.propose(b"before", WAIT_S).index == 1
            parts = replica._node.parts
            stranger.connect(address)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for at in range(MESSAGES):
                stranger.send_multipart(parts_of(chance, frames, parts.cluster_id))
                if at % 1000 == 0:
                    with socket.create_connection(("127.0.0.1", parse_address(address).port or 0)) as raw:
                        raw.sendall(chance.randbytes(2000))
                    replica.propose(b"during %d" % at, WAIT_S)

            def counted() -> int:
                links, engine = parts.reactor.links.counters(), parts.engine.counters()
                dropped = sum(value for name, value in links.items() if name.startswith("dropped"))
                refused = ("wrong_cluster", "wrong_receiver", "unknown_sender", "unverified", "broken")
                return dropped + sum(engine[name] for name in refused)

            until(lambda: counted() >= MESSAGES)
            assert parts.engine.counters()["frames"] == 0  # a node of one hears nobody
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 64 << 10, f"{grown} KiB more"
            last = replica.propose(b"after", WAIT_S).index
            assert [entry.command for entry in replica.entries()][-1] == b"after" and last == 2 + -(
                -MESSAGES // 1000
            )
    finally:
        stranger.close()
        context.term()
