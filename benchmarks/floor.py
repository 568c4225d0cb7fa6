"""The floor of a commit: what the disk and the network take when nothing else is done.

A commit needs one sync and one round trip, one after the other. Both are measured with as little code as
possible, unpinned, in processes of their own:

* *fdatasync*: three processes, each with its zero-filled file, write 512 B and ``fdatasync`` back to back, at the
  same time (three replicas share this machine's disk in the benchmark, so its floor does too);
* *round trip*: two of these processes exchange 256 B over ZeroMQ on tcp loopback, one DEALER to ROUTER connection
  for each direction. libzmq is called through cffi: no pyzmq objects per message. The GIL is released around each
  call and contended by nobody; all of Python costs about 1 µs in a round trip.

Their sum is *the floor*. Beside it stands the *bare commit*: one process sends to the two others, everybody syncs,
and the first answer ends the round. It is no bound, but tells what the scheduler makes of the same steps in one
program: a round trip of two processes that share a CPU takes a quarter of one that crosses CPUs.
"""

from __future__ import annotations

import statistics
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.worker import Worker

PROCESSES = 3


@dataclass(slots=True)
class Floor:
    """Medians of the slices taken in one run, in microseconds."""

    fdatasync_slices_us: list[float] = field(default_factory=list)
    rtt_slices_us: list[float] = field(default_factory=list)
    bare_slices_us: list[float] = field(default_factory=list)

    @property
    def fdatasync_us(self) -> float:
        """p50 of write + ``fdatasync`` of 512 B with three writers."""
        return statistics.median(self.fdatasync_slices_us)

    @property
    def rtt_us(self) -> float:
        """p50 of a ZeroMQ tcp round trip."""
        return statistics.median(self.rtt_slices_us)

    @property
    def bare_us(self) -> float:
        """p50 of a commit without any protocol."""
        return statistics.median(self.bare_slices_us)

    @property
    def total_us(self) -> float:
        """The floor: one sync and one round trip."""
        return self.fdatasync_us + self.rtt_us

    def as_json(self) -> dict[str, float]:
        """Return the two parts, rounded."""
        return {"fdatasync_us": round(self.fdatasync_us, 1), "rtt_us": round(self.rtt_us, 1)}


class FloorProbe:
    """The three processes; take a :meth:`slice` before, between and after what is measured."""

    def __init__(self, directory: Path) -> None:
        self.floor = Floor()
        self._workers: list[Worker] = []
        try:
            for number in range(PROCESSES):
                self._workers.append(Worker("benchmarks.floor_process", str(directory / f"floor-{number}")))
            first, *others = self._workers
            for other in others:
                first.ask("connect", port=other.ask("port"))
                other.ask("connect", port=first.ask("port"))
        except BaseException:
            self.close()
            raise

    def slice(self, count: int) -> None:
        """Measure each part ``count`` times; add the medians to :attr:`floor`."""
        first, second, third = self._workers
        syncs = array("Q")
        for worker in self._workers:
            worker.begin("sync", count=count)
        for worker in self._workers:
            syncs.extend(worker.finish())
        second.begin("echo", count=count)
        trips = first.ask("ping", count=count)
        second.finish()
        for worker in (second, third):
            worker.begin("vote", count=count)
        bare = first.ask("commit", count=count)
        for worker in (second, third):
            worker.finish()
        self.floor.fdatasync_slices_us.append(statistics.median(syncs) / 1000)
        self.floor.rtt_slices_us.append(statistics.median(trips) / 1000)
        self.floor.bare_slices_us.append(statistics.median(bare) / 1000)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> FloorProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe(slices_us: list[float]) -> str:
    """Return a median with its range: how much the machine moved while it was measured.

    >>> describe([200.0, 250.0, 230.0])
    '230 µs (before 200, after 230; 200 to 250 in 3 slices)'
    """
    return (
        f"{statistics.median(slices_us):.0f} µs (before {slices_us[0]:.0f}, after {slices_us[-1]:.0f}; "
        f"{min(slices_us):.0f} to {max(slices_us):.0f} in {len(slices_us)} slices)"
    )
