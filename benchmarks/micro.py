"""The parts without a cluster: nanoseconds to microseconds, on one CPU, in this process."""

from __future__ import annotations

import statistics
import time
from array import array
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from benchmarks import workloads
from benchmarks.floor_process import Disk
from benchmarks.results import Row, filesystem_of, percentiles, short
from benchmarks.workloads import Workload


def measure(workload: Workload, seconds: float) -> tuple[array[int], float]:
    """Return nanoseconds per operation of every call, and the seconds that all of them took."""
    act, clock = workload.act, time.perf_counter_ns
    took = array("Q")
    act()
    first = clock()
    end, ended = first + int(seconds * 1e9), first
    while ended < end:
        began = clock()
        act()
        ended = clock()
        took.append(ended - began)
    return took, (ended - first) / 1e9


def row_of(workload: Workload, seconds: float, fdatasync_us: float | None, where: str) -> Row:
    """Measure one workload."""
    took, elapsed = measure(workload, seconds)
    operations = len(took) * workload.operations
    return Row(
        name=workload.name,
        face="micro",
        command_bytes=workload.command_bytes,
        outstanding=workload.operations,
        replicas=1,
        durability=f"fdatasync ({where})" if fdatasync_us is not None else workload.durability,
        loop="closed",
        count=operations,
        seconds=round(elapsed, 3),
        ops_per_s=round(operations / elapsed, 1),
        floor={"fdatasync_us": fdatasync_us, "rtt_us": None},
        **percentiles(took),
    )


def run(directory: Path, seconds: float) -> list[Row]:
    """Measure every part for ``seconds``; percentiles are of one call, which does ``outstanding`` operations."""
    where = filesystem_of(directory)
    parts = workloads.checksums() + workloads.codec() + workloads.batcher()
    rows = [row_of(workload, seconds, None, where) for workload in parts]
    floor = Workload("floor", Disk(str(directory / "floor")).write, 1, 512)
    with workloads.wal(directory) as logs:
        for workload in logs:
            slices = [measure(floor, seconds / 2)[0]]
            row = row_of(workload, seconds, 0.0, where)
            slices.append(measure(floor, seconds / 2)[0])
            row.floor["fdatasync_us"] = round(statistics.mean(map(statistics.median, slices)) / 1000, 1)
            rows.append(row)
    return rows


def table_of(rows: list[Row]) -> Table:
    """Return the rows for people."""
    table = Table(title="the parts: one process, one thread", title_justify="left", box=SIMPLE)
    table.add_column("part")
    for heading in (
        "bytes",
        "per call",
        "ops/s",
        "MB/s",
        "p50 µs a call",
        "p90",
        "p99",
        "max",
        "p50/fdatasync",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        floor = row.floor_us
        times = [short(value) for value in (row.p50_us, row.p90_us, row.p99_us, row.max_us)]
        megabytes = row.ops_per_s * row.command_bytes / 1e6
        ratio = "–" if not floor else f"{row.p50_us / floor:.2f}"
        sizes = [str(row.command_bytes), str(row.outstanding)]
        table.add_row(row.name, *sizes, f"{row.ops_per_s:,.0f}", f"{megabytes:,.0f}", *times, ratio)
    return table
