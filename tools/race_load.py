"""Work for ThreadSanitizer (``make tsan``): three nodes, every face, a kill, a restart, people looking on."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time

import paxos
from paxos import aio


class Count(paxos.StateMachine):
    """Counts what it applies."""

    def __init__(self) -> None:
        self.applied = 0

    def apply(self, command: bytes, context: paxos.ApplyContext) -> int:
        """Return how many commands were applied."""
        self.applied += 1
        return self.applied


def call(replica: paxos.Replica) -> None:
    """Propose one command after the other."""
    for _ in range(150):
        replica.propose(b"x" * 100, timeout=60)


def stream(replica: paxos.Replica) -> None:
    """Submit runs and single commands, and look at the node meanwhile."""
    for _ in range(10):
        run = replica.submit_many([b"a"] * 300)
        singles = [replica.submit(b"b") for _ in range(100)]
        replica.status()
        replica.inspect()
        run.result(60)
        for future in singles:
            future.result(60)


def follow(replica: paxos.Replica, stop: threading.Event) -> None:
    """Read along."""
    subscription = replica.subscribe()
    while not stop.is_set():
        subscription.get(timeout=0.05)


async def await_some() -> None:
    """Use the asyncio face of a one-node log."""
    with tempfile.TemporaryDirectory() as directory:
        async with aio.Replica(directory, state_machine=Count()) as replica:
            await asyncio.gather(*(replica.propose(b"c", timeout=60) for _ in range(300)))


def main() -> None:
    """Run the whole load once."""
    began = time.monotonic()
    with paxos.LocalCluster(3, state_machine=Count) as cluster:
        cluster.leader(60)
        stop = threading.Event()
        replicas = list(cluster)
        workers = [threading.Thread(target=work, args=(one,)) for one in replicas for work in (call, stream)]
        readers = [threading.Thread(target=follow, args=(one, stop)) for one in replicas]
        for thread in workers + readers:
            thread.start()
        for thread in workers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        killed = cluster.leader(60).node_id
        cluster.kill(killed)
        cluster.leader(60).propose(b"after", timeout=60)
        cluster.restart(killed)
        cluster.leader(60).submit_many([b"z"] * 1000).result(60)
        cluster.wait_applied(cluster.leader(60).status().last_index, 60)
        print(cluster.leader(60).status())
    asyncio.run(await_some())
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
