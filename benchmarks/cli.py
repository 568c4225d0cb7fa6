"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import functools
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from rich.console import Console

from benchmarks import micro
from benchmarks.commit import CASES, LARGE_CASES, CommitBenchmark
from benchmarks.failover import FailoverBenchmark
from benchmarks.floor import FloorProbe, describe
from benchmarks.results import Row, filesystem_of, make_console, print_conditions, table_of, write_json
from benchmarks.worker import WorkerFailed

IN_MEMORY = ("tmpfs", "ramfs")


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all commands share; the command gets ``directory``, made for this run."""

    @click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
        help="A directory on the disk to measure; a temporary directory is made in it and removed. "
        "Default: the system's temporary directory.",
    )
    @click.option(
        "--json",
        "json_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Also write the rows there.",
    )
    @functools.wraps(command)
    def wrapped(data: Path | None, json_path: Path | None, **arguments: Any) -> None:
        parent = Path(tempfile.gettempdir()) if data is None else data
        if filesystem_of(parent) in IN_MEMORY:
            raise click.UsageError(
                f"{parent} is in memory, where a sync costs nothing: name a directory on a disk with --data"
            )
        signal.signal(signal.SIGTERM, _leave)
        directory = Path(tempfile.mkdtemp(prefix="paxos-benchmark-", dir=parent))
        try:
            command(directory=directory, json_path=json_path, **arguments)
        except KeyboardInterrupt:
            click.echo("stopped; no process is left behind", err=True)
            sys.exit(130)
        except (WorkerFailed, TimeoutError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measure the replicated log against what this machine's disk and network can do.

    Every run takes its floor: one fdatasync with three concurrent writers plus one ZeroMQ round trip, before,
    between and after what is measured. Quote the ratio: microseconds of another minute may be another program's.

    \b
    Examples:
      python -m benchmarks commit                       every face, about a minute
      python -m benchmarks commit --case propose --rounds 10 --json commit.json
      python -m benchmarks failover --count 20
      python -m benchmarks micro
    """


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Slices of every case.")
@click.option("--seconds", type=float, default=0.7, show_default=True, help="Length of a slice.")
@click.option(
    "--floor-count",
    type=click.IntRange(10),
    default=400,
    show_default=True,
    help="Syncs in a slice of the floor.",
)
@click.option(
    "--case",
    "names",
    multiple=True,
    type=click.Choice([case.name for case in CASES + LARGE_CASES]),
    help="Only this one; may be repeated.",
)
@click.option("--large", is_flag=True, help="Also commands of 256 B in runs, of 4 KiB and of 64 KiB.")
@click.option(
    "--apply",
    type=click.Choice(["batch", "command"]),
    default="batch",
    show_default=True,
    help="The state machine of all three: apply_batch looks at every command, or one apply and result for each.",
)
@options
def commit(
    rounds: int,
    seconds: float,
    floor_count: int,
    names: tuple[str, ...],
    large: bool,
    apply: str,
    directory: Path,
    json_path: Path | None,
) -> None:
    """Commit latency and throughput of three processes, through every face.

    Starts three replicas on tcp loopback, each with its data directory, fsync on; the client runs inside the
    leader's process (or a follower's, where the row says so). The cases take turns in slices. Percentiles are of
    one command as its caller sees it; for submit_many, of one run of 1,000 commands.

    \b
    Exit codes: 0 measured, 1 a node failed or the replicas differ, 2 usage error, 130 Ctrl-C.
    """
    console = make_console()
    every = CASES + LARGE_CASES
    cases = tuple(case for case in every if case.name in names) if names else (every if large else CASES)
    benchmark = CommitBenchmark(
        directory,
        cases,
        rounds=rounds,
        seconds=seconds,
        floor_count=floor_count,
        apply=apply,
        console=console,
    )
    rows = benchmark.run()
    console.print(table_of("three processes, one machine", rows))
    finish(console, rows, benchmark.notes, json_path)


@main.command()
@click.option(
    "--count", type=click.IntRange(1), default=20, show_default=True, help="How many leaders to kill."
)
@click.option(
    "--floor-count",
    type=click.IntRange(10),
    default=400,
    show_default=True,
    help="Syncs in a slice of the floor.",
)
@options
def failover(count: int, floor_count: int, directory: Path, json_path: Path | None) -> None:
    """Time from kill -9 of the leader to the next commit that a client sees.

    The client submits a command every millisecond at one of the two other nodes; the first of those submitted
    after the kill ends the outage. The killed node is started again and catches up before the next round.

    \b
    Exit codes: 0 measured, 1 a node failed or the replicas differ, 2 usage error, 130 Ctrl-C.
    """
    console = make_console()
    benchmark = FailoverBenchmark(directory, count=count, floor_count=floor_count, console=console)
    rows = benchmark.run()
    console.print(table_of("kill -9 of the leader", rows, ratios=False))
    finish(console, rows, benchmark.notes, json_path)


@main.command(name="micro")
@click.option("--seconds", type=float, default=0.5, show_default=True, help="For every part.")
@options
def micro_command(seconds: float, directory: Path, json_path: Path | None) -> None:
    """The parts in one process: checksum, codec, batcher, write-ahead log."""
    console = make_console()
    rows = micro.run(directory, seconds)
    console.print(micro.table_of(rows))
    finish(console, rows, [], json_path)


@main.command()
@click.option("--count", type=click.IntRange(10), default=1000, show_default=True, help="Syncs in a slice.")
@click.option("--slices", type=click.IntRange(1), default=5, show_default=True)
@options
def floor(count: int, slices: int, directory: Path, json_path: Path | None) -> None:
    """Only the floor: how fast, and how steady, this machine is."""
    if json_path is not None:
        raise click.UsageError("the floor alone makes no rows; it is in those of the other commands")
    with FloorProbe(directory) as probe:
        for _ in range(slices):
            probe.slice(count)
    click.echo(f"fdatasync, three writers   {describe(probe.floor.fdatasync_slices_us)}")
    click.echo(f"ZeroMQ tcp round trip      {describe(probe.floor.rtt_slices_us)}")
    click.echo(f"both: the floor            {probe.floor.total_us:.0f} µs")
    click.echo(f"commit without a protocol  {describe(probe.floor.bare_slices_us)}")


def finish(console: Console, rows: Sequence[Row], notes: Sequence[str], json_path: Path | None) -> None:
    """Print what belongs to the figures, and write them."""
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    print_conditions(console, rows)
    if json_path is not None:
        write_json(json_path, rows)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Make SIGTERM run the same clean-up as Ctrl-C."""
    raise KeyboardInterrupt
