"""The promise of the architecture: a host program that holds the GIL stops nobody's commits.

All three nodes live in this process, so one C call that holds the GIL blocks the control and apply threads of
all of them. A native proposer goes on; another process keeps sending one frame of every kind that is not
handled to the end on the reactor.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path

from paxos._core.codec import FrameKind, encode_frame
from paxos._core.load import NativeLoad
from tests.unit.native_node import CLUSTER, DEADLINE_S, NativeCluster, NativeNode, wait_for

HOLD_S = 5

COLD_KINDS = (
    FrameKind.PREPARE,
    FrameKind.PROMISE,
    FrameKind.NACK,
    FrameKind.FETCH,
    FrameKind.FETCHED,
    FrameKind.FETCH_CHOSEN,
    FrameKind.CHOSEN,
    FrameKind.CHOSEN_GONE,
    FrameKind.TRANSFER,
    FrameKind.HELLO,
    FrameKind.RESULT,
    FrameKind.READ_INDEX,
    FrameKind.READ_MARK,
    FrameKind.SNAPSHOT_OFFER,
    FrameKind.SNAPSHOT_CHUNK,
    FrameKind.MEMBER_CHANGE,
    FrameKind.ROUND_CLOSED,
    FrameKind.STOPPED_LEADING,
)

SENDER = """
import json, sys, time, zmq
targets = json.loads(sys.stdin.readline())
context = zmq.Context()
sockets = []
for address, frames in targets:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    sockets.append((socket, [[bytes.fromhex(part) for part in frame] for frame in frames]))
print("ready", flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    for socket, frames in sockets:
        for frame in frames:
            socket.send_multipart(frame)
    time.sleep(0.02)
context.destroy(linger=0)
"""


def cold_frames(target: NativeNode, claimed: NativeNode) -> list[list[str]]:
    """One stale frame of each kind, from a member to another, as hexadecimal message parts."""
    frames = []
    for kind in COLD_KINDS:
        payload = (
            b"\x01" * 100 if kind in (FrameKind.PROMISE, FrameKind.FETCHED, FrameKind.SNAPSHOT_CHUNK) else b""
        )
        data = encode_frame(
            kind,
            sender=claimed.node_id,
            receiver=target.node_id,
            cluster=CLUSTER,
            incarnation=claimed.batcher.incarnation,
            ballot=claimed.node_id,
            detail=1,
            payload=payload,
        )
        frames.append([data[:72].hex(), payload.hex()] if payload else [data.hex()])
    return frames


def test_x1_commits_go_on_while_every_interpreter_is_blocked_and_cold_frames_arrive(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "tcp", heartbeat_ms=50, election_timeout_ms=1000) as cluster:
        leader = cluster.leader()
        follower = cluster.follower()
        targets = []
        for node in cluster.nodes.values():
            claimed = next(n for n in cluster.nodes.values() if n is not node and n is not leader)
            targets.append((node.transport.address, cold_frames(node, claimed)))
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(HOLD_S + 2)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sender.stdin is not None and sender.stdout is not None
        loads = [NativeLoad(node.reactor, 200_000, 256, pause_us=1000) for node in (leader, follower)]
        try:
            sender.stdin.write(json.dumps(targets) + "\n")
            sender.stdin.flush()
            assert sender.stdout.readline() == "ready\n"
            for load in loads:
                load.start()
                wait_for(lambda load=load: load.completed > 20, "commits before the hold")
            elections = [n.engine.counters()["elections"] for n in cluster.nodes.values()]
            before = {n.node_id: n.reactor.status()["received_by_kind"] for n in cluster.nodes.values()}

            started_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
            ctypes.PyDLL(None).usleep(HOLD_S * 1_000_000)  # PyDLL does not give the GIL up
            ended_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

            after = {n.node_id: n.reactor.status()["received_by_kind"] for n in cluster.nodes.values()}
            assert [n.engine.counters()["elections"] for n in cluster.nodes.values()] == elections
        finally:
            for load in loads:
                assert load.stop(DEADLINE_S)
            sender.wait(DEADLINE_S)
            sender.stdin.close()
            sender.stdout.close()
        assert ended_us - started_us >= HOLD_S * 1_000_000
        for load in loads:
            inside = [at for at in load.finished_us if started_us < at < ended_us]
            for second in range(HOLD_S):
                begin = started_us + second * 1_000_000
                assert any(begin <= at < begin + 1_000_000 for at in inside), f"no commit in second {second}"
            assert len(inside) > 100
        for node_id in cluster.members:
            for kind in COLD_KINDS:
                name = kind.name.lower()
                assert after[node_id].get(name, 0) - before[node_id].get(name, 0) > 5, (node_id, name)
        cluster.settle(sum(load.completed for load in loads))
