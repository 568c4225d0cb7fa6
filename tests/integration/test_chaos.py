"""Replicas come and go at random while clients append; every answered command is there, once, in order (G1, G3)."""

from __future__ import annotations

import importlib
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paxos

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_S = 60.0
CLIENTS = 3
STEPS = 14
COMMANDS_PER_STEP = 60


def toolkit() -> Any:
    """Return the examples' client and its exactly-once machine."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("toolkit")
    finally:
        sys.path.remove(str(EXAMPLES))


def appending_machine() -> Callable[[], Any]:
    """Return a class whose commands append one text to the list of their session."""
    kit = toolkit()

    class Appending(kit.ExactlyOnce):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, str]] = []

        def act(self, session: int, fields: list[str], index: int) -> Any:
            self.seen.append((session, fields[0]))
            return kit.Reply(ok=True, token=index)

    return Appending


class Clients:
    """Threads that append 0, 1, 2 ... each in a session of its own until told to stop."""

    def __init__(self, cluster: paxos.LocalCluster) -> None:
        self.cluster = cluster
        self.answered: dict[int, int] = {}
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            client = toolkit().Session(lambda: list(self.cluster), patience_s=WAIT_S, attempt_s=1.0)
            while not self._stop.is_set():
                done = self.answered.get(client.number, 0)
                assert client.call(str(done)).ok
                self.answered[client.number] = done + 1
        except BaseException as error:
            self.errors.append(error)

    def wait_for(self, more: int) -> None:
        """Wait until so many further commands were answered."""
        target = sum(dict(self.answered).values()) + more
        deadline = time.monotonic() + WAIT_S
        while sum(dict(self.answered).values()) < target:
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, [str(replica.status()) for replica in self.cluster]
            time.sleep(0.002)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)


@pytest.mark.parametrize(("size", "transport"), [(3, "tcp"), (5, "inproc")])
def test_g1_g3_nothing_is_lost_or_doubled_while_replicas_come_and_go(size: int, transport: str) -> None:
    luck = random.Random(size)
    spare = (size - 1) // 2
    with paxos.LocalCluster(size, state_machine=appending_machine(), transport=transport) as cluster:
        cluster.leader(WAIT_S)
        clients = Clients(cluster)
        try:
            for _ in range(STEPS):
                clients.wait_for(COMMANDS_PER_STEP)
                down = sorted(set(cluster.members) - set(cluster.replicas))
                if down and (len(down) == spare or luck.random() < 0.5):
                    cluster.restart(luck.choice(down))
                    continue
                leader = cluster.replicas[min(cluster.replicas)].leader
                victim = leader if leader in cluster.replicas and luck.random() < 0.6 else None
                victim = victim or luck.choice(sorted(cluster.replicas))
                (cluster.kill if luck.random() < 0.7 else cluster.stop)(victim)
            for node_id in sorted(set(cluster.members) - set(cluster.replicas)):
                cluster.restart(node_id)
            clients.wait_for(1)
        finally:
            clients.stop()
        assert not clients.errors, clients.errors
        last = max(replica.status().last_index for replica in cluster)
        cluster.wait_applied(last, WAIT_S)
        states = [replica.state_machine.seen for replica in cluster]
        assert all(state == states[0] for state in states)
        for session, count in clients.answered.items():
            assert [text for owner, text in states[0] if owner == session] == [str(at) for at in range(count)]
