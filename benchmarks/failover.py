"""How long nothing is committed after ``kill -9`` of the leader, as a client of another node sees it."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.cluster import REPLICAS, Cluster
from benchmarks.floor import FloorProbe, describe
from benchmarks.results import Row, filesystem_of, percentiles
from benchmarks.worker import wait_for

PERIOD_S = 0.001
BEFORE_KILL_S = 0.3


class FailoverBenchmark:
    """Kills the leader ``count`` times; the killed node is started again and catches up in between.

    The client is open loop: it submits one command of 16 B every millisecond, at one of the two nodes that are
    not killed. Counted is the time from the kill to the moment at which the first command is done that was
    submitted after the process was gone; what was under way before does not count.
    """

    def __init__(self, directory: Path, *, count: int, floor_count: int, console: Console) -> None:
        self._directory = directory
        self._count = count
        self._floor_count = floor_count
        self._console = console
        self.notes: list[str] = []

    def run(self) -> list[Row]:
        """Measure; return one row."""
        outages = array("Q")
        began = time.monotonic()
        with FloorProbe(self._directory) as probe, Cluster(self._directory, apply="check") as cluster:
            probe.slice(self._floor_count)
            for number in track(
                range(self._count), "kill -9", console=self._console, disable=not self._console.is_terminal
            ):
                outages.append(self._kill_once(cluster, number))
            last = cluster.wait_equal()
            probe.slice(self._floor_count)
        seconds = time.monotonic() - began
        self.notes.append(f"the three logs agree: {last['last_index']:,} commands, same checksum in order")
        self.notes.append(f"fdatasync, three writers    {describe(probe.floor.fdatasync_slices_us)}")
        self.notes.append(f"ZeroMQ tcp round trip       {describe(probe.floor.rtt_slices_us)}")
        self.notes.append("each, ms: " + ", ".join(f"{outage / 1e6:.0f}" for outage in outages))
        return [
            Row(
                name="failover",
                face="submit (kill -9 of the leader to the next commit)",
                command_bytes=16,
                outstanding=1,
                replicas=REPLICAS,
                durability=f"fdatasync before every answer, on each replica ({filesystem_of(self._directory)})",
                loop="open",
                count=len(outages),
                seconds=round(seconds, 3),
                ops_per_s=round(1e9 * len(outages) / sum(outages), 3),
                floor=dict(probe.floor.as_json()),
                **percentiles(outages),
            )
        ]

    def _kill_once(self, cluster: Cluster, number: int) -> int:
        """Return nanoseconds."""
        leader = cluster.leader()
        survivors = [node_id for node_id in cluster.nodes if node_id != leader]
        client = cluster.nodes[survivors[number % len(survivors)]]
        client.ask("pace", period_s=PERIOD_S)
        started = time.monotonic_ns()
        wait_for(lambda: client.ask("paced", moment_ns=started) != 0, "the client's first commit")
        time.sleep(BEFORE_KILL_S)
        killed = time.monotonic_ns()
        cluster.kill(leader)  # returns when the process is gone
        dead = time.monotonic_ns()
        done = 0
        deadline = time.monotonic() + 60
        while not done:
            done = client.ask("paced", moment_ns=dead)
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no commit within 60 s after node {leader} was killed: {cluster.statuses()}"
                )
            time.sleep(0.02)
        client.ask("unpace")
        cluster.start(leader)
        cluster.wait_equal()
        return int(done) - killed
