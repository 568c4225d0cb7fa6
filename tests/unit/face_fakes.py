"""A one-node log in memory, to test the public face: the real Batcher, a reactor that chooses at once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from paxos._core.batch import Batcher, Commands
from paxos.node import Node, Parts
from paxos.types import Config, Entry


@dataclass
class FakeItem:
    slot: int
    index: int
    count: int
    first_ticket: int
    commands: Any
    origin: int = 1
    incarnation: int = 1
    kind: int = 2


class FakeLog:
    def __init__(self) -> None:
        self.commands: list[Entry] = []

    unwritten_slots = 0

    def flush(self) -> None:
        pass

    def append(self, items: Any, *, flush: bool = True) -> None:
        for item in items:
            for offset in range(item.count if item.index else 0):
                self.commands.append(Entry(item.index + offset, item.slot, item.commands[offset]))

    def entries(self, start: int, stop: int) -> list[Entry]:
        return self.commands[start - 1 : stop - 1]


class FakeControl:
    deadline_us = None

    def on_frame(self, frame: bytes, now_us: int) -> list[Any]:
        return []

    def tick(self, now_us: int) -> list[Any]:
        return []


class FakeDesk:
    """Confirms every read at `mark`, unless that is None."""

    def __init__(self) -> None:
        self.mark: int | None = 0
        self.is_closed = False
        self.asked = 0
        self.changed = threading.Condition()

    def ask(self) -> int:
        self.asked += 1
        return self.asked

    def wait(self, number: int, timeout_s: float | None = None) -> int | None:
        with self.changed:
            self.changed.wait_for(lambda: self.mark is not None or self.is_closed, timeout_s)
            return None if self.is_closed else self.mark

    def confirm(self, mark: int | None) -> None:
        with self.changed:
            self.mark = mark
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()


class FakeReactor:
    """Chooses what is in the batcher, unless `held`."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.reads = FakeDesk()
        self.alive = False
        self.held = False
        self.fault: tuple[int, str] | None = None
        self.posted: list[Any] = []
        self.items: list[FakeItem] = []
        self.changed = threading.Condition()
        self.chosen_ticket = 0
        self.slot = 0
        self.index = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.alive = True
        self.thread.start()

    def _run(self) -> None:
        while self.alive:
            value = None if self.held else self.batcher.take_value()
            if value is None:
                time.sleep(0.0005)
                continue
            self.choose(Commands(value))

    def choose(self, commands: Any) -> None:
        with self.changed:
            self.slot += 1
            self.items.append(
                FakeItem(self.slot, self.index + 1, len(commands), commands.first_ticket, commands)
            )
            self.index += len(commands)
            self.chosen_ticket = commands.first_ticket + len(commands) - 1
            self.changed.notify_all()

    def stop(self, timeout_s: float = 5.0) -> bool:
        self.alive = False
        self.reads.close()
        if self.thread.is_alive():
            self.thread.join(5)
        with self.changed:
            self.changed.notify_all()
        return True

    def post(self, intent: Any) -> None:
        self.posted.append(intent)

    def take_cold(self, timeout_s: float) -> list[bytes] | None:
        with self.changed:
            self.changed.wait_for(lambda: not self.alive, timeout_s)
        return [] if self.alive else None

    def wait_unapplied(self, timeout_s: float) -> bool | None:
        with self.changed:
            self.changed.wait_for(lambda: self.items or not self.alive, timeout_s)
            return True if self.items else False if self.alive else None

    def take_chosen(self, timeout_s: float, limit: int) -> list[FakeItem] | None:
        with self.changed:
            taken, self.items = self.items[:limit], self.items[limit:]
            return taken if taken or self.alive else None

    def wait_chosen(self, ticket: int, timeout_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.chosen_ticket >= ticket or not self.alive, timeout_s)

    def status(self) -> dict[str, Any]:
        return {}


class FakeEngine:
    def glance(self) -> dict[str, Any]:
        return {
            "is_leader": True,
            "leader": 1,
            "promised": 1 << 16,
            "chosen_upto": 0,
            "is_candidate": False,
            "own_noop_slot": -1,
        }

    def answered(self) -> dict[int, dict[str, int]]:
        return {}

    def counters(self) -> dict[str, int]:
        return {}


def fake_node(machine: Any = None, config: Config | None = None) -> Node:
    """Return a node over fakes, not started."""
    config = config or Config()
    batcher = Batcher(
        1,
        1,
        batch_bytes_max=config.batch_bytes_max,
        command_bytes_max=config.command_bytes_max,
        pending_bytes_max=config.pending_bytes_max,
    )
    parts = Parts(
        node_id=1,
        cluster="paxos",
        cluster_id=1,
        incarnation=1,
        members={1: "inproc://1"},
        config=config,
        directory="nowhere",
        engine=FakeEngine(),
        batcher=batcher,
        reactor=FakeReactor(batcher),
        control=FakeControl(),
        log=FakeLog(),
        release=lambda clean: None,
    )
    return Node(parts, machine)
