"""A cluster of engines and control planes in one list of frames: no IO, one virtual clock, nothing by chance.

The simulator looks for what nobody thought of. This kit is for the histories that somebody did think of: every
frame can be seen, kept back, dropped or repeated by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

from paxos._core import codec
from paxos.control import Control
from paxos.engine import Engine
from paxos.types import Config

CLUSTER = 7
STEP_US = 1000
PONG = struct.Struct("<QQQQQQQQIIQQ")
PING = struct.Struct("<QQQQIIQ")
HELLO = struct.Struct("<HHI16s")
KIND = codec.FrameKind


def storage_of(node: int, life: int = 0) -> bytes:
    """Return the storage UUID of ``node``; another ``life`` is another disk."""
    return bytes([node, life]) * 8


def frame(kind: int, sender: int, receiver: int, *, incarnation: int = 1, **fields: Any) -> bytes:
    """Return one frame as ``sender`` would send it."""
    return codec.encode_frame(
        kind, sender=sender, receiver=receiver, cluster=CLUSTER, incarnation=incarnation, **fields
    )


def hello(sender: int, receiver: int, *, incarnation: int = 1, life: int = 0, answer: bool = False) -> bytes:
    payload = HELLO.pack(1, 1, int(answer), storage_of(sender, life))
    return frame(KIND.HELLO, sender, receiver, incarnation=incarnation, payload=payload)


def pong(
    sender: int, receiver: int, *, round: int, asker: int = 1, promised: int = 0, leader: int = 0,
    stream: tuple[int, int, int] = (0, 0, 0), chosen: int = 0, flags: int = 8, read_round: int = 0,
    incarnation: int = 1, position: int = 0,
) -> bytes:  # fmt: skip
    payload = PONG.pack(round, asker, promised, leader, *stream, chosen, flags, 0, read_round, position)
    return frame(KIND.PONG, sender, receiver, incarnation=incarnation, payload=payload)


def ping(
    sender: int, receiver: int, *, round: int = 1, ballot: int = 0, chosen: int = 0, leads: bool = False,
    read_round: int = 0, incarnation: int = 1,
) -> bytes:  # fmt: skip
    payload = PING.pack(round, ballot, 0, chosen, int(leads), 0, read_round)
    return frame(KIND.PING, sender, receiver, incarnation=incarnation, payload=payload)


def batch(origin: int, first_ticket: int, *commands: bytes, incarnation: int = 1) -> bytes:
    return codec.encode_batch(
        list(commands), origin=origin, incarnation=incarnation, first_ticket=first_ticket
    )


class AppliedLog:
    """The chosen values of one node, as the control plane reads them."""

    def __init__(self) -> None:
        self.first_slot = 1
        self.values: list[tuple[int, int, bytes]] = []

    def read_slots(self, first_slot: int, last_slot: int, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        return [item for item in self.values if first_slot <= item[0] <= last_slot][:64]


class Node:
    """One engine with its control plane and its disk (a list of records, synced at once)."""

    def __init__(
        self, node_id: int, members: tuple[int, ...] = (1, 2, 3), config: Config | None = None, life: int = 0
    ) -> None:
        self.id, self.member_ids, self.life = node_id, members, life
        self.config = config or Config()
        self.disk: list[Any] = []
        self.incarnation = 0
        self.frozen_control = False
        self.start()

    def start(self) -> None:
        """Begin a new life on the same disk."""
        self.incarnation += 1
        self.engine = Engine(
            self.id, CLUSTER, self.incarnation, storage_of(self.id, self.life),
            dict.fromkeys(self.member_ids), self.config,
        )  # fmt: skip
        self.log = AppliedLog()
        self.applied: list[Any] = []
        self.intents: list[Any] = []
        self.next_ticket = 1
        self.control = Control(
            node_id=self.id, cluster=CLUSTER, incarnation=self.incarnation,
            members={node: f"inproc://{node}" for node in self.member_ids},
            proposer=self.engine.proposer_role, learner=self.engine.learner_role,
            log=self.log, config=self.config, random=Random(self.id * 1000 + self.incarnation),
        )  # fmt: skip
        for record in self.disk:
            self.engine.recover_record(record)
        self.engine.recovered()
        self.carry_out(0)

    def carry_out(self, now_us: int) -> list[tuple[int, bytes]]:
        """Do what the engine wants done, in the order of effects.pxd; return the frames."""
        ready = self.engine.effects
        frames = ready.take_send_now()
        for index, record in enumerate(ready.records):
            position = len(self.disk) + 1
            ready.set_position(index, position)
            self.disk.append(record._replace(position=position))
        self.engine.durable(now_us)
        frames += ready.take_send_after_sync() + ready.take_send_now()
        for chosen in ready.take_chosen():
            value = chosen.value or b""
            self.applied.append(chosen)
            self.log.values.append((chosen.slot, chosen.kind, value))
        for cold in ready.take_cold():
            if not self.frozen_control:
                self.intents += self.control.on_frame(cold, now_us)
        return frames

    def step(self, *frames: bytes, now_us: int = 0) -> list[dict[str, Any]]:
        """Take frames, sync, and return what left, decoded."""
        for data in frames:
            assert self.engine.step(data, now_us)
        return [codec.decode_frame(data) for _, data in self.carry_out(now_us)]

    def greet(self, *others: int) -> Node:
        """Hear the Hello of the others, so that their frames count."""
        self.step(*(hello(other, self.id) for other in others or self.member_ids if other != self.id))
        return self

    def propose(self, *commands: bytes) -> None:
        """Offer one own batch."""
        self.engine.offer_batch(batch(self.id, self.next_ticket, *commands, incarnation=self.incarnation))
        self.next_ticket += len(commands)

    @property
    def commands(self) -> list[bytes]:
        """Every command that was applied here, in order."""
        found: list[bytes] = []
        for item in self.applied:
            if item.index:
                found += codec.decode_batch(item.value)[3]
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "engine" not in self.__dict__:
            raise AttributeError(name)
        return self.engine.inspect()[name]


class Cluster:
    """Nodes and the frames between them; each frame takes one step of a millisecond."""

    def __init__(self, count: int = 3, config: Config | None = None) -> None:
        ids = tuple(range(1, count + 1))
        self.nodes = {node: Node(node, ids, config) for node in ids}
        self.down: set[int] = set()
        self.now_us = 1_000_000
        self.wire: list[tuple[int, bytes]] = []
        self.drop: Callable[[dict[str, Any]], bool] = lambda _: False
        self.sent: dict[int, int] = {}

    def __getitem__(self, node: int) -> Node:
        return self.nodes[node]

    def step(self) -> None:
        """Deliver what was sent, let time pass, carry everything out."""
        self.now_us += STEP_US
        arriving, self.wire = self.wire, []
        for receiver, data in arriving:
            fields = codec.decode_frame(data)
            if receiver in self.down or fields["sender"] in self.down or self.drop(fields):
                continue
            self.nodes[receiver].engine.step(data, self.now_us)
        for node in self.nodes.values():
            if node.id in self.down:
                continue
            for intent in node.intents:
                node.engine.act(intent)
            node.intents = []
            node.engine.tick(self.now_us)
            self.wire += node.carry_out(self.now_us)
            if not node.frozen_control:
                node.intents += node.control.tick(self.now_us)
            assert not node.engine.fault_code, node.engine.fault_text
        for _, data in self.wire:
            self.sent[data[3]] = self.sent.get(data[3], 0) + 1

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.step()

    def until(self, reached: Callable[[], Any], ms: int = 5000) -> None:
        """Run until ``reached``; at most ``ms`` of virtual time."""
        for _ in range(ms):
            if reached():
                return
            self.step()
        assert reached(), {node.id: node.engine.glance() for node in self.nodes.values()}

    def crash(self, node: int) -> None:
        self.down.add(node)

    def restart(self, node: int) -> None:
        self.nodes[node].start()
        self.down.discard(node)

    def cut(self, *pairs: tuple[int, int]) -> None:
        """Lose every frame between these pairs, both ways; no pairs: heal."""
        both = set(pairs) | {(b, a) for a, b in pairs}
        self.drop = lambda fields: (fields["sender"], fields["receiver"]) in both

    @property
    def leaders(self) -> list[int]:
        return [n.id for n in self.nodes.values() if n.id not in self.down and n.engine.is_leader]

    def lead(self) -> int:
        """Run until one node leads and its own no-op is chosen; return it."""

        def is_settled() -> bool:
            return any(
                self[node].engine.glance()["chosen_upto"] >= self[node].engine.glance()["own_noop_slot"] > 0
                for node in self.leaders
            )

        self.until(is_settled)
        return max(self.leaders, key=lambda node: self[node].engine.glance()["ballot"])

    def settle(self, *commands: bytes, ms: int = 5000) -> None:
        """Run until every node that is up has applied all these commands."""
        up = [node for node in self.nodes.values() if node.id not in self.down]
        self.until(lambda: all(set(commands) <= set(node.commands) for node in up), ms)
