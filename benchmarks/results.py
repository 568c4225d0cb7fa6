"""What every benchmark ends with: rows with the same fields, as a table for people and as JSON for tools."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import lmdb
import zmq
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import paxos
from paxos._core import crc32c


@dataclass(kw_only=True, slots=True)
class Row:
    """One line of a result. Times are microseconds; the names are those of the JSON."""

    name: str
    face: str
    command_bytes: int
    outstanding: int
    replicas: int
    durability: str
    loop: str
    """``closed``: a command is handed over when another is done; ``open``: at a fixed rate."""
    count: int
    seconds: float
    ops_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    floor: dict[str, float | None]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    @property
    def floor_us(self) -> float | None:
        """The sum of the floor's parts, if there are any."""
        parts = [part for part in self.floor.values() if part is not None]
        return sum(parts) if parts else None


class Percentiles(TypedDict):
    """The percentile fields of a row, in microseconds."""

    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


def percentiles(latencies_ns: Sequence[int]) -> Percentiles:
    """Return the percentile fields of a row: smallest values that the share of the samples does not exceed.

    >>> percentiles([4000, 1000, 3000, 2000])["p50_us"]
    2.0
    """
    ordered = sorted(latencies_ns)
    if not ordered:
        raise ValueError("nothing was measured: measure for longer")

    def at(share: float) -> float:
        rank = max(0, math.ceil(share * len(ordered)) - 1)
        return round(ordered[rank] / 1000, 3)

    return Percentiles(p50_us=at(0.5), p90_us=at(0.9), p99_us=at(0.99), p999_us=at(0.999), max_us=at(1.0))


def versions() -> dict[str, str]:
    """Return the versions of everything that matters for a figure."""
    return {
        "cypaxos": paxos.__version__,
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "lmdb": str(lmdb.__version__),
        "crc32c": crc32c.implementation(),
    }


def machine() -> dict[str, Any]:
    """Return what the figures were taken on: nothing that names the machine or its owner."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"cpu": model, "cpus": os.cpu_count() or 1, "kernel": platform.release()}


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that holds ``path``, or ``unknown``."""
    best, kind = "", "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    wanted = str(path.resolve())
    for line in lines:
        _device, mount, found, *_ = line.split()
        if (wanted == mount or wanted.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write a list of objects, one per row."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def table_of(title: str, rows: Sequence[Row], *, ratios: bool = True) -> Table:
    """Return the rows for people."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("face", overflow="fold")
    headings = ["bytes", "outst.", "ops/s", "p50 µs", "p90", "p99", "p99.9", "max"]
    for heading in [*headings, "p50/floor", "p99/floor"] if ratios else headings:
        table.add_column(heading, justify="right")
    for row in rows:
        floor = row.floor_us
        shares = [f"{value / floor:.2f}" if floor else "–" for value in (row.p50_us, row.p99_us)]
        times = [short(value) for value in (row.p50_us, row.p90_us, row.p99_us, row.p999_us, row.max_us)]
        table.add_row(
            row.face,
            str(row.command_bytes),
            f"{row.outstanding:,}" if row.outstanding else "open",
            f"{row.ops_per_s:,.0f}",
            *times,
            *(shares if ratios else ()),
        )
    return table


def short(value_us: float) -> str:
    """Return a duration in microseconds with as many digits as it deserves.

    >>> short(0.123), short(345.6), short(12345.6)
    ('0.12', '346', '12,346')
    """
    return f"{value_us:.2f}" if value_us < 10 else f"{value_us:,.0f}"


def make_console() -> Console:
    """Return a console that does not squeeze the tables when it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def print_conditions(console: Console, rows: Sequence[Row]) -> None:
    """Print what the figures depend on."""
    row = rows[0]
    about = row.machine
    text = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(
        f"replicas: {row.replicas}, {row.durability}; {about['cpu']}, {about['cpus']} CPUs, kernel {about['kernel']}; "
        f"load {load}\n{text}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
