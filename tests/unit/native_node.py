"""One node for tests of the reactor: the production parts, put together by hand over loopback or inproc."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from paxos._core.batch import Batcher
from paxos._core.codec import ValueKind
from paxos._core.effects import RecordKind, RecordView
from paxos._core.reactor import Reactor
from paxos._core.wal_face import WalFace as Wal
from paxos.control import Control
from paxos.engine import Engine
from paxos.transport import ZmqTransport
from paxos.types import Config

DEADLINE_S = 60.0
CLUSTER = 77


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    deadline = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s} s for {what}"
        time.sleep(0.001)
    return result


def now_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class NativeNode:
    """Engine, log, batcher, links and reactor of one node, with a control thread and an apply thread."""

    def __init__(
        self, directory: Path, node_id: int, transport: ZmqTransport, members: Sequence[int], config: Config
    ) -> None:
        self.node_id = node_id
        self.transport = transport
        self.applied: list[tuple[int, bytes]] = []
        self.values: dict[int, tuple[int, bytes]] = {}
        self.apply_gate = threading.Event()
        self.apply_gate.set()
        self.control_gate = threading.Event()
        self.control_gate.set()
        storage = bytes([node_id]) * 16
        is_new = not directory.exists()
        self.wal = Wal(
            directory,
            node_id=node_id,
            cluster=CLUSTER,
            storage=storage,
            segment_bytes=config.segment_bytes,
            create=is_new,
        )
        records = [] if is_new else list(self.wal.replay())
        if is_new:
            self.wal.scan_views()
        incarnation = 1 + max((r.slot for r in records if r.kind == RecordKind.RECORD_INCARNATION), default=0)
        self.wal.append_views(
            [RecordView(RecordKind.RECORD_INCARNATION, 0, 0, incarnation, 0, 0, 0, 0, None)]
        )
        self.wal.sync_now()
        self.engine = Engine(node_id, CLUSTER, incarnation, storage, dict.fromkeys(members), config)
        for record in records:
            self.engine.recover_record(record)
        self.engine.recovered()
        self.batcher = Batcher(
            node_id,
            incarnation,
            batch_bytes_max=config.batch_bytes_max,
            command_bytes_max=config.command_bytes_max,
            pending_bytes_max=config.pending_bytes_max,
        )
        self.reactor = Reactor(
            self.engine,
            self.wal,
            self.batcher,
            transport.links,
            spin_us=config.spin_us,
            unapplied_bytes_max=config.unapplied_bytes_max,
        )
        self.control = Control(
            node_id=node_id,
            cluster=CLUSTER,
            incarnation=incarnation,
            members=dict.fromkeys(members, ""),
            proposer=self.engine.proposer_role,
            learner=self.engine.learner_role,
            log=self,
            config=config,
            random=Random(node_id),
        )
        self.threads = [
            threading.Thread(target=self._control, name=f"control-{node_id}", daemon=True),
            threading.Thread(target=self._apply, name=f"apply-{node_id}", daemon=True),
        ]

    first_slot = 1

    def read_slots(self, first_slot: int, last_slot: int, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        found = []
        for slot in range(first_slot, last_slot + 1):
            if slot not in self.values or limit_bytes < 0:
                break
            kind, value = self.values[slot]
            limit_bytes -= len(value)
            found.append((slot, kind, value))
        return found

    def start(self) -> None:
        self.reactor.start()
        for thread in self.threads:
            thread.start()

    def _control(self) -> None:
        while True:
            deadline_us = self.control.deadline_us
            wait_us = 100_000 if deadline_us is None else min(max(deadline_us - now_us(), 0), 100_000)
            frames = self.reactor.take_cold(wait_us / 1e6)
            if frames is None:
                return
            self.control_gate.wait()
            for frame in frames:
                for intent in self.control.on_frame(frame, now_us()):
                    self.reactor.post(intent)
            for intent in self.control.tick(now_us()):
                self.reactor.post(intent)

    def _apply(self) -> None:
        while True:
            self.apply_gate.wait()
            items = self.reactor.take_chosen(0.1)
            if items is None:
                return
            for item in items:
                self.values[item.slot] = (item.kind, item.value)
                if item.kind == ValueKind.BATCH and item.index:
                    self.applied += [(item.index + i, c) for i, c in enumerate(item.commands)]

    @property
    def leads(self) -> bool:
        return self.reactor.status()["role"] == "leader"

    def stop(self) -> None:
        self.apply_gate.set()
        self.control_gate.set()
        assert self.reactor.stop(30.0)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(30.0)
                assert not thread.is_alive()
        self.transport.close()
        self.wal.close()


class NativeCluster:
    """Several nodes in this process."""

    def __init__(self, directory: Path, count: int = 3, scheme: str = "tcp", **options: Any) -> None:
        self.directory = directory
        self.config = Config(**{"segment_bytes": 1 << 22, **options})
        self.members = list(range(1, count + 1))
        binds = {
            i: "tcp://127.0.0.1:0" if scheme == "tcp" else f"{scheme}://{directory}/socket{i}"
            for i in self.members
        }
        transports = {i: self._transport(bind) for i, bind in binds.items()}
        self.addresses = {i: transport.address for i, transport in transports.items()}
        self.nodes = {i: self._node(i, transports[i]) for i in self.members}

    def _transport(self, bind: str) -> ZmqTransport:
        return ZmqTransport(bind, value_bytes_max=self.config.command_bytes_max + 64)

    def _node(self, node_id: int, transport: ZmqTransport) -> NativeNode:
        for peer, address in self.addresses.items():
            if peer != node_id:
                transport.connect(peer, address)
        return NativeNode(self.directory / f"n{node_id}", node_id, transport, self.members, self.config)

    def start(self) -> NativeCluster:
        for node in self.nodes.values():
            node.start()
        return self

    def restart(self, node_id: int) -> NativeNode:
        """Start a node again that was stopped, from its own log."""
        self.nodes[node_id] = self._node(node_id, self._transport(self.addresses[node_id]))
        self.nodes[node_id].start()
        return self.nodes[node_id]

    def leader(self) -> NativeNode:
        def find() -> NativeNode | None:
            return next((n for n in self.nodes.values() if n.reactor.alive and n.leads), None)

        found: NativeNode = wait_for(find, "a leader")
        return found

    def follower(self) -> NativeNode:
        leader = self.leader()
        return next(node for node in self.nodes.values() if node is not leader and node.reactor.alive)

    def settle(self, commands: int, last: bytes | None = None) -> list[bytes]:
        """Wait until every running node has applied ``commands`` (and the ``last``, where their number is
        not known); return them, equal everywhere."""
        running = [node for node in self.nodes.values() if node.reactor.alive]

        def is_done(node: NativeNode) -> bool:
            return len(node.applied) >= commands and last in (None, node.applied[-1][1])

        for node in running:
            wait_for(lambda node=node: is_done(node), f"node {node.node_id} to apply {commands}")
        first = running[0].applied
        for node in running:
            assert node.applied == first
            assert [index for index, _ in node.applied] == list(range(1, len(node.applied) + 1))
        return [command for _, command in first]

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()

    def __enter__(self) -> NativeCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
