"""A replica in a process of its own, with the client inside it: what ``cluster.py`` starts three times."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from typing import Any

import paxos
from benchmarks.cluster import CLUSTER_NAME
from benchmarks.faces import Client, Sample
from benchmarks.worker import answer
from paxos import aio
from paxos._core import crc32c


class Machine(paxos.StateMachine):
    """Looks at every command in order; keeps their number and a checksum over all of them."""

    def __init__(self) -> None:
        self.commands = 0
        self.bytes = 0

    def apply_batch(self, commands: Sequence[bytes], context: paxos.ApplyContext) -> None:
        size = 0
        for command in commands:
            size += len(command)
        self.bytes += size
        self.commands += len(commands)

    def digest(self) -> int:
        """Return something that differs if the replicas have applied different things."""
        return self.bytes


class CheckingMachine(Machine):
    """Also keeps a checksum over the commands and their order."""

    def __init__(self) -> None:
        super().__init__()
        self.crc = 0

    def apply_batch(self, commands: Sequence[bytes], context: paxos.ApplyContext) -> None:
        for command in commands:
            self.crc = crc32c.checksum(command, self.crc)
        self.commands += len(commands)

    def digest(self) -> int:
        """Return the checksum."""
        return self.crc


class OneByOneMachine(paxos.StateMachine):
    """One Python call and one result for every command."""

    def __init__(self) -> None:
        self.commands = 0
        self.bytes = 0

    def apply(self, command: bytes, context: paxos.ApplyContext) -> int:
        self.commands += 1
        self.bytes += len(command)
        return self.commands

    def digest(self) -> int:
        """Return something that differs if the replicas have applied different things."""
        return self.bytes


MACHINES = {"batch": Machine, "check": CheckingMachine, "command": OneByOneMachine}


class Pacer:
    """An open-loop client: hands one command over every ``period_s`` whatever becomes of the others."""

    def __init__(self, replica: paxos.Replica, period_s: float) -> None:
        self._replica = replica
        self._period_s = period_s
        self._stop = threading.Event()
        self.submitted_ns = array("Q")
        self.done_ns = array("Q")
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name="pacer")
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            number = len(self.submitted_ns)
            self.submitted_ns.append(time.monotonic_ns())
            self.done_ns.append(0)
            try:
                future = self._replica.submit(number.to_bytes(16, "little"))
            except paxos.Busy:
                self.refused += 1
            else:
                future.add_done_callback(functools.partial(self._note, number))
            due += self._period_s
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _note(self, number: int, future: Any) -> None:
        if future.exception() is None:
            self.done_ns[number] = time.monotonic_ns()

    def commits_since(self, moment_ns: int) -> int:
        """Return when the first command was done that was submitted after ``moment_ns``; 0 if none was yet."""
        submitted, done = self.submitted_ns, self.done_ns
        found = 0
        for number in range(len(submitted) - 1, -1, -1):
            if submitted[number] <= moment_ns:
                break
            if done[number] and (not found or done[number] < found):
                found = done[number]
        return found

    def stop(self) -> None:
        """Stop submitting."""
        self._stop.set()
        self._thread.join()


class Node:
    """Answers the parent's requests."""

    def __init__(self, options: argparse.Namespace) -> None:
        members = dict(enumerate(options.member, start=1))
        self._machine: Any = MACHINES[options.apply]()
        self._loop = asyncio.new_event_loop()
        self._aio = aio.Replica(
            options.data,
            node_id=options.id,
            members=members,
            state_machine=self._machine,
            cluster=CLUSTER_NAME,
        )
        self._loop.run_until_complete(self._aio.open())
        self._replica = self._aio.sync
        self._client = Client(self._loop, self._aio)
        self._pacer: Pacer | None = None

    def status(self) -> dict[str, Any]:
        """Return what the parent wants to know about this node."""
        status = self._replica.status()
        if status.fault is not None:
            raise RuntimeError(f"the node has stopped: {status.fault}")
        return {
            "role": status.role,
            "leader": status.leader,
            "ballot": status.ballot,
            "last_index": status.last_index,
            "commands": self._machine.commands,
            "digest": self._machine.digest(),
            "pid": os.getpid(),
        }

    def transfer(self, to: int) -> bool:
        """Hand leadership over, if this node has it."""
        return self._replica.transfer_leadership(to)

    def inspect(self) -> dict[str, Any]:
        """Return everything that the replica tells."""
        return self._replica.inspect()

    def run(self, face: str, command_bytes: int, outstanding: int, seconds: float) -> Sample:
        """Run one face."""
        return self._client.run(face, command_bytes, outstanding, seconds)

    def pace(self, period_s: float) -> None:
        """Begin to submit at a fixed rate."""
        self._pacer = Pacer(self._replica, period_s)

    def paced(self, moment_ns: int) -> int:
        """Return when the first command submitted after ``moment_ns`` was done; 0: not yet."""
        assert self._pacer is not None
        return self._pacer.commits_since(moment_ns)

    def unpace(self) -> int:
        """Stop submitting; return the number of commands that were refused."""
        assert self._pacer is not None
        pacer, self._pacer = self._pacer, None
        pacer.stop()
        return pacer.refused

    def close(self) -> None:
        """Close the replica."""
        self._replica.close()
        self._loop.close()


def main() -> None:
    """Open the replica and serve until the parent closes the pipe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("fileno", type=int)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--apply", choices=sorted(MACHINES), default="batch")
    parser.add_argument("--member", action="append", required=True)
    options = parser.parse_args()
    node = Node(options)
    try:
        names = ("status", "transfer", "inspect", "run", "pace", "paced", "unpace")
        answer(options.fileno, {name: getattr(node, name) for name in names})
    finally:
        node.close()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
