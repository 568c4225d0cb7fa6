"""Linearizable reads on real disks and sockets: on every member, while leaders die, and how they end."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import paxos
from paxos.errors import Closed, OutcomeUnknown, ReadTimeout

WAIT_S = 60.0


class Total(paxos.StateMachine):
    """A sum in two halves that are equal between two commands."""

    def __init__(self) -> None:
        self.left = self.right = 0

    def apply(self, command: bytes, context: paxos.ApplyContext) -> int:
        self.left += int(command)
        time.sleep(0)
        self.right += int(command)
        return self.right


def both(machine: Total) -> tuple[int, int]:
    return machine.left, machine.right


def test_a_node_alone_reads_what_it_wrote_over_restarts(tmp_path: Path) -> None:
    for start in range(3):
        with paxos.Replica(tmp_path / "data", state_machine=Total()) as replica:
            assert replica.read(both, timeout=WAIT_S) == (start, start)
            replica.propose(b"1", WAIT_S)
            assert replica.read(both, timeout=WAIT_S) == (start + 1, start + 1)
            assert replica.read(timeout=WAIT_S) == start + 1


def test_every_member_reads_what_any_member_wrote() -> None:
    with paxos.LocalCluster(3, state_machine=Total) as cluster:
        written = 0
        for _round in range(20):
            for writer in cluster:
                writer.propose(b"1", WAIT_S)
                written += 1
                assert [reader.read(both, timeout=WAIT_S) for reader in cluster] == [(written, written)] * 3


def test_r1_reads_are_never_older_than_what_was_acknowledged_while_leaders_die() -> None:
    """Writers and readers on all members; a read must see every write that had ended before it began."""
    acknowledged = 0
    lock = threading.Lock()
    over = threading.Event()
    reads = [0, 0, 0]
    stale: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    with paxos.LocalCluster(3, state_machine=Total, transport="tcp") as cluster:

        def write() -> None:
            nonlocal acknowledged
            while not over.is_set():
                try:
                    cluster[2].propose(b"1", 1.0)
                except OutcomeUnknown:
                    continue
                with lock:
                    acknowledged += 1

        def read(at: int) -> None:
            last = 0
            while not over.is_set():
                with lock:
                    floor = max(acknowledged, last)
                try:
                    left, right = cluster[at + 1].read(both, timeout=1.0)
                except (ReadTimeout, Closed):
                    continue
                reads[at] += 1
                last = left
                if left != right or left < floor:
                    stale.append((left, floor))

        def guarded(target: Any, *arguments: Any) -> None:
            try:
                target(*arguments)
            except BaseException as error:
                failures.append(error)

        cluster.leader(timeout=WAIT_S)
        threads = [threading.Thread(target=guarded, args=(write,))]
        threads += [threading.Thread(target=guarded, args=(read, at)) for at in (0, 1, 2)]
        for thread in threads:
            thread.start()
        try:
            for heir in (2, 1, 2, 1):
                before = list(reads)
                leader = cluster.leader(timeout=WAIT_S)
                if leader.node_id != heir:
                    leader.transfer_leadership(heir, timeout=5.0)
                deadline = time.monotonic() + WAIT_S
                while any(now < then + 20 for now, then in zip(reads, before, strict=True)):
                    assert time.monotonic() < deadline and not failures, (reads, failures)
                    time.sleep(0.01)
        finally:
            over.set()
            for thread in threads:
                thread.join(WAIT_S)
    assert not failures and not stale
    assert acknowledged and min(reads) >= 80


def test_a_minority_reads_nothing_and_says_why() -> None:
    with paxos.LocalCluster(3, state_machine=Total) as cluster:
        cluster.leader(timeout=WAIT_S).propose(b"1", WAIT_S)
        cluster.kill(1)
        cluster.kill(2)
        with pytest.raises(ReadTimeout, match="no quorum confirmed the read within 0.4 s.*not heard: 1"):
            cluster[3].read(both, timeout=0.4)
        cluster.restart(1)
        assert cluster[3].read(both, timeout=WAIT_S) == (1, 1)


def test_close_ends_reads_that_wait() -> None:
    with paxos.LocalCluster(3, state_machine=Total) as cluster:
        cluster.leader(timeout=WAIT_S).propose(b"1", WAIT_S)
        cluster.kill(1)
        cluster.kill(2)
        errors: list[BaseException] = []

        def read() -> None:
            try:
                cluster[3].read(both)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        replica = cluster[3]
        deadline = time.monotonic() + WAIT_S
        while replica.inspect()["counters"]["read_rounds"] == 0 and replica.leader is not None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        replica.close(timeout=1.0)
        for thread in threads:
            thread.join(WAIT_S)
        assert len(errors) == 4 and all(isinstance(error, Closed) for error in errors)
        with pytest.raises(Closed):
            replica.read(both, timeout=1.0)


def test_the_asyncio_face_reads(tmp_path: Path) -> None:
    async def main() -> None:
        async with paxos.aio.Replica(tmp_path / "data", state_machine=Total()) as replica:
            for expected in range(1, 20):
                await replica.propose(b"1", timeout=WAIT_S)
                assert await replica.read(both, timeout=WAIT_S) == (expected, expected)
            found = await asyncio.gather(*(replica.read(both, timeout=WAIT_S) for _ in range(200)))
            assert found == [(19, 19)] * 200
            assert await replica.read(timeout=WAIT_S) == 19
            waiting = asyncio.ensure_future(replica.read(lambda _machine: time.sleep(0.2), timeout=WAIT_S))
            await asyncio.sleep(0)
            assert await replica.read(both, timeout=WAIT_S) == (19, 19)
            await waiting

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() <= before
