"""A C call holds the GIL in every member, cold frames keep arriving, and the cluster goes on committing.

The reactor never takes the GIL, for any frame: if it did, one frame handled in Python would stop every commit
until the GIL is free. So each member is sent one frame of every kind that ends up on the control thread, all
the time, while its interpreter is blocked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zmq

from paxos._core.codec import FetchStatus, FrameKind, NackReason, ValueKind, encode_frame
from paxos.cli.processes import free_ports

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
HOLD_S = 5.0
HEADER_BYTES = 72
NODES = (1, 2, 3)
LATER_OR_NEVER_ON_THE_WIRE = (
    FrameKind.RESULT,
    FrameKind.READ_INDEX,
    FrameKind.READ_MARK,
    FrameKind.SNAPSHOT_OFFER,
    FrameKind.SNAPSHOT_CHUNK,
    FrameKind.MEMBER_CHANGE,
    FrameKind.ROUND_CLOSED,
    FrameKind.STOPPED_LEADING,
    200,
)


class Member:
    """A process that runs one replica and does as it is told."""

    def __init__(self, directory: Path, node_id: int, members: dict[int, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("gil_member.py")), str(directory), str(node_id),
             json.dumps(members)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def tell(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.hear()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[dict[int, Member], dict[int, str]]]:
    addresses = {
        node: f"tcp://127.0.0.1:{port}" for node, port in zip(NODES, free_ports(len(NODES)), strict=True)
    }
    members = {node: Member(tmp_path / str(node), node, addresses) for node in NODES}
    try:
        yield members, addresses
        for member in members.values():
            member.tell("end")
        for member in members.values():
            assert member.process.wait(30) == 0
    finally:
        for member in members.values():
            member.process.kill()
            member.process.communicate()


def cold_frames(sender: int, receiver: int, incarnation: int, cluster: int) -> list[bytes]:
    """Return one frame of every kind beside the steady ones, stale but well formed."""
    ballot = sender  # round 0: below every ballot that was ever used

    def frame(kind: int, **fields: Any) -> bytes:
        return encode_frame(
            kind, sender=sender, receiver=receiver, incarnation=incarnation, cluster=cluster, **fields
        )

    return [
        frame(FrameKind.PREPARE, ballot=ballot, slot=1),
        frame(FrameKind.PROMISE, ballot=ballot, slot=1, payload=bytes(48)),
        frame(FrameKind.NACK, ballot=ballot, detail=NackReason.NACK_PROMISED, mark=ballot),
        frame(FrameKind.FETCH, ballot=ballot, slot=1),
        frame(FrameKind.FETCHED, ballot=ballot, slot=1, detail=FetchStatus.FETCH_OK << 8 | ValueKind.NOOP),
        frame(FrameKind.FETCH_CHOSEN, slot=1, mark=2),
        frame(FrameKind.CHOSEN, slot=1, mark=1, detail=ValueKind.NOOP),
        frame(FrameKind.CHOSEN_GONE, slot=1),
        frame(FrameKind.TRANSFER, ballot=ballot, slot=receiver),
        frame(FrameKind.HELLO, payload=bytes(24)),
        *(frame(kind) for kind in LATER_OR_NEVER_ON_THE_WIRE),
    ]


class ColdRain(threading.Thread):
    """Sends every member the cold frames of another member, again and again."""

    def __init__(self, addresses: dict[int, str], lives: dict[int, dict[str, Any]]) -> None:
        super().__init__()
        self._addresses = addresses
        self._lives = lives
        self.over = threading.Event()

    def run(self) -> None:
        context = zmq.Context()
        sockets = {}
        for node, address in self._addresses.items():
            sockets[node] = context.socket(zmq.DEALER)
            sockets[node].linger = 0
            sockets[node].connect(address)
        while not self.over.wait(0.02):
            for node, socket in sockets.items():
                sender = node % len(NODES) + 1
                life = self._lives[sender]
                for frame in cold_frames(sender, node, life["incarnation"], life["cluster"]):
                    parts = [frame[:HEADER_BYTES]] + ([frame[HEADER_BYTES:]] if frame[HEADER_BYTES:] else [])
                    socket.send_multipart(parts)
        context.destroy(linger=0)


def wait_for_leader(members: dict[int, Member]) -> int:
    deadline = time.monotonic() + 60
    while True:
        leaders = {member.ask("status")["leader"] for member in members.values()}
        if len(leaders) == 1 and None not in leaders:
            return int(leaders.pop())
        assert time.monotonic() < deadline, f"no leader: {leaders}"
        time.sleep(0.05)


@pytest.mark.parametrize("proposer", ["leader", "follower"])
def test_x1_commits_go_on_while_every_interpreter_is_blocked(
    cluster: tuple[dict[int, Member], dict[int, str]], proposer: str
) -> None:
    members, addresses = cluster
    leader = wait_for_leader(members)
    before = {node: member.ask("status") for node, member in members.items()}
    at = leader if proposer == "leader" else leader % len(NODES) + 1
    rain = ColdRain(addresses, before)
    rain.start()
    try:
        members[at].ask("load", count=100_000)
        for member in members.values():
            member.tell("hold", seconds=HOLD_S)
        for member in members.values():
            member.hear()
    finally:
        rain.over.set()
        rain.join()
    load = members[at].ask("loaded")
    after = {node: member.ask("status") for node, member in members.items()}

    assert not load["failed"]
    finished = load["finished_us"]
    longest_us = max(later - earlier for earlier, later in pairwise(finished))
    assert len(finished) > 100
    assert longest_us < HOLD_S / 2 * 1e6, "commits stood still while the interpreters were blocked"
    for node in NODES:
        assert after[node]["blocked_s"] >= HOLD_S * 0.9, "the interpreter was not blocked at all"
        assert after[node]["leader"] == leader
        for count in ("elections", "step_downs"):
            assert after[node]["counters"][count] == before[node]["counters"][count]
        for kind in ("promise", "nack", "fetched", "fetch_chosen", "chosen_gone", "transfer", "prepare"):
            assert after[node]["received"].get(kind, 0) > before[node]["received"].get(kind, 0) + 50, kind
