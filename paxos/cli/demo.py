"""``paxos demo``: a real file over three real processes, the leader killed half-way, and the proof afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from paxos.cli.appending import Appender, Reading, digest_of
from paxos.cli.channel import NodeGone
from paxos.cli.processes import NodeFailed, NodeProcess, ThreeNodes
from paxos.errors import PaxosError
from paxos.storage import inspection

CATCH_UP_TIMEOUT_S = 60.0


def default_file() -> Path:
    """Return a text of some size that every Python ships: the topics of its own help."""
    for module in ("pydoc_data.topics", "_pydecimal", "typing"):
        found = importlib.util.find_spec(module)
        if found is not None and found.origin is not None and found.origin.endswith(".py"):
            return Path(found.origin)
    raise click.UsageError("this Python ships no text to replicate; name a FILE")


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a file without their line feeds, whatever bytes they hold."""
    lines = path.read_bytes().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise click.UsageError(f"{path} is empty: name a file with at least one line")
    return lines


@dataclass(slots=True)
class Result:
    """What the demonstration found; ``failures`` is empty if everything is as promised."""

    file: str
    lines: int
    replicas: int = 3
    seconds: float = 0.0
    commit_p50_ms: float = 0.0
    commit_p99_ms: float = 0.0
    commit_max_ms: float = 0.0
    without_leader_ms: float = 0.0
    in_flight_when_killed: int = 0
    in_flight_found_in_log: int = 0
    commands_per_log: int = 0
    void_commands: int = 0
    failures: list[str] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


class Demonstration:
    """The story: append, kill half-way, go on, restart, compare."""

    def __init__(
        self, lines: Sequence[bytes], directory: Path, window: int, console: Console, result: Result
    ) -> None:
        self._lines = lines
        self._directory = directory
        self._window = window
        self._console = console
        self.result = result
        self._cluster = ThreeNodes(directory)
        self._killed: NodeProcess | None = None
        self._killed_at = 0.0
        self._attached_at_kill = 0
        self._restarted = False
        self._kill_line = max(1, len(lines) // 2)
        self._restart_line = max(self._kill_line, 3 * len(lines) // 4)

    def run(self) -> None:
        """Play it to the end; leave no process behind, whatever happens."""
        with self._cluster:
            self._cluster.start()
            leader = self._cluster.leader()
            pids = ", ".join(f"{node.node_id} (pid {node.pid})" for node in self._cluster.nodes)
            self._say(f"nodes {pids} run; node {leader.node_id} leads")
            self._append()
            self._wait_until_equal()
            self._compare_logs()
            self._stop_all()
        self._verify_disks()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _append(self) -> None:
        began = time.monotonic()
        with self._progress() as (progress, task):

            def advanced(count: int) -> None:
                progress.update(task, completed=count)
                self._act(count)

            self._appender = Appender(self._lines, self._window, self._candidates, advanced)
            self._appender.run()
        self._restart()
        tally = self._appender.tally
        self.result.seconds = round(time.monotonic() - began, 3)
        milliseconds = [1000 * seconds for seconds in tally.latencies_s] or [0.0]
        self.result.commit_p50_ms = round(percentile(milliseconds, 0.5), 3)
        self.result.commit_p99_ms = round(percentile(milliseconds, 0.99), 3)
        self.result.commit_max_ms = round(max(milliseconds), 3)
        self.result.in_flight_when_killed = tally.unknown
        self.result.in_flight_found_in_log = tally.unknown_found

    @contextlib.contextmanager
    def _progress(self) -> Iterator[tuple[Progress, TaskID]]:
        columns = (TextColumn("replicating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield progress, progress.add_task("lines", total=len(self._lines))

    def _candidates(self) -> list[NodeProcess]:
        """Return the running nodes; a leader first, so that the one that is killed is the one in use."""
        running = self._cluster.running
        if self._killed is None:
            leader = self._cluster.leader()
            running.sort(key=lambda node: node is not leader)
        return [node for node in running if node is not self._killed]

    def _act(self, count: int) -> None:
        """Do what is due now that ``count`` lines are committed."""
        if self._killed is None and count >= self._kill_line:
            self._kill_leader(count)
        elif self._killed is not None:
            if (
                not self.result.without_leader_ms
                and self._appender.tally.attachments > self._attached_at_kill
            ):
                outage = self._appender.tally.last_attach_at - self._killed_at
                self.result.without_leader_ms = round(1000 * outage, 1)
                using = self._appender.using
                self._say(
                    f"commits go on after {1000 * outage:.0f} ms, through node {using and using.node_id}"
                )
            if not self._restarted and count >= self._restart_line:
                self._restart()

    def _kill_leader(self, count: int) -> None:
        node = self._cluster.leader()
        self._attached_at_kill = self._appender.tally.attachments
        self._killed = node
        self._killed_at = time.monotonic()
        node.kill()
        self._appender.move_on()
        self._say(f"after {count} lines: kill -9 of node {node.node_id}, the leader, with commands in flight")

    def _restart(self) -> None:
        """Start the killed node again, on what its disk holds; it catches up while the others go on."""
        if self._restarted or self._killed is None:
            return
        self._restarted = True
        self._killed.start()
        self._say(f"node {self._killed.node_id} is started again")

    def _wait_until_equal(self) -> None:
        """Wait until every node has applied as many commands as any."""
        if self._killed is not None:
            self._killed.wait_ready()
        deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
        seen: dict[int, object] = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(NodeGone):
                seen = {node.node_id: node.status()["last_index"] for node in self._cluster.nodes}
                if len(set(seen.values())) == 1:
                    self._say(f"all three have applied {next(iter(seen.values()))} commands")
                    return
            time.sleep(0.05)
        self.result.failures.append(f"the nodes have not caught up after {CATCH_UP_TIMEOUT_S:g} s: {seen}")

    def _compare_logs(self) -> None:
        """Read the log of every node and compare: with each other, and with the file."""
        readings = {}
        for node in self._cluster.nodes:
            reading = readings[node.node_id] = Reading()
            client = node.connect()
            try:
                reading.read(command for _, command in client.read())
            finally:
                client.close()
        expected = digest_of(self._lines)
        for node_id, reading in readings.items():
            if reading.text.hexdigest() != expected or reading.lines != len(self._lines):
                self._fail(
                    f"the log of node {node_id} is not the file: {reading.lines} lines of {len(self._lines)}"
                )
        if len({reading.raw.hexdigest() for reading in readings.values()}) != 1:
            self._fail("the logs are not identical")
        self.result.commands_per_log = max(reading.commands for reading in readings.values())
        self.result.void_commands = max(reading.void for reading in readings.values())

    def _stop_all(self) -> None:
        for node in self._cluster.nodes:
            code = node.stop()
            if code != 0:
                self._fail(f"node {node.node_id} ended with exit code {code}. {node.last_words()}")

    def _verify_disks(self) -> None:
        """Check every checksum on the three disks, offline."""
        for node in self._cluster.nodes:
            report = inspection.verify(node.directory)
            if report.status != "clean":
                what = "; ".join(finding.text for finding in report.findings)
                self._fail(f"the disk of node {node.node_id} is {report.status}: {what}")

    def _fail(self, text: str) -> None:
        self.result.failures.append(text)


def table_of(result: Result) -> Table:
    """Return the result as a table for people."""
    table = Table(title="three processes, fsync on", show_header=False, title_justify="left")
    table.add_row("lines committed", f"{result.lines:,}")
    table.add_row("commands in each log", f"{result.commands_per_log:,} (with the client's attach commands)")
    table.add_row("commit latency p50 / p99 / max", _latencies(result))
    table.add_row("time without a leader", f"{result.without_leader_ms:.0f} ms (kill -9 to the next commit)")
    settled = f"{result.in_flight_when_killed}, {result.in_flight_found_in_log} of them were committed"
    table.add_row("in flight when it was killed", settled)
    table.add_row("appended twice, or lost", "0" if not result.failures else "see below")
    table.add_row("void commands", str(result.void_commands))
    table.add_row("time", f"{result.seconds:.1f} s")
    return table


def _latencies(result: Result) -> str:
    return f"{result.commit_p50_ms:.2f} / {result.commit_p99_ms:.2f} / {result.commit_max_ms:.0f} ms"


@click.command(short_help="replicate a file over three processes and kill the leader")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--window", type=click.IntRange(1, 2048), default=32, show_default=True, help="Commands in flight."
)
@click.option("--keep", is_flag=True, help="Keep the three data directories, and say where they are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output at the end.")
def demo(file: Path | None, window: int, keep: bool, as_json: bool) -> None:
    """Replicate every line of FILE over three real processes, and kill the leader half-way.

    Starts three replicas on this machine, each with its own data directory and TCP socket; appends FILE line by
    line (default: a text that comes with Python); kills the leader with SIGKILL while commands are in flight;
    goes on through another node; starts the killed one again. At the end it reads the three logs and checks that
    they are identical, equal to FILE, with nothing twice, and that every checksum on the three disks is right.

    \b
    Examples:
      paxos demo
      paxos demo /usr/share/dict/words --window 256
      paxos demo notes.txt --keep

    \b
    Exit codes:
      0    the three logs are identical and equal to the file
      1    they are not, or a node failed; the message says what was seen
      2    usage error
      130  stopped with Ctrl-C; no process is left behind
    """
    path = default_file() if file is None else file
    lines = read_lines(path)
    console = Console(stderr=as_json)
    result = Result(file=str(path), lines=len(lines))
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell may have told a background job to ignore Ctrl-C
        signal.signal(number, _leave)
    directory = Path(tempfile.mkdtemp(prefix="paxos-demo-"))
    console.print(f"{path}: {len(lines)} lines", highlight=False, markup=False)
    try:
        Demonstration(lines, directory, window, console, result).run()
    except KeyboardInterrupt:
        console.print("stopped; no process is left behind")
        sys.exit(130)
    except (PaxosError, OSError) as error:
        result.failures.append(f"{type(error).__name__}: {error}")
    finally:
        if keep:
            console.print(
                f"the data directories are in {directory}", highlight=False, markup=False, soft_wrap=True
            )
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    _conclude(console, result)


def _conclude(console: Console, result: Result) -> None:
    """Print the verdict; exit 1 if anything differs."""
    if result.seconds:
        console.print(table_of(result))
    if result.failures:
        for failure in result.failures:
            console.print(
                f"FAILED: {failure}", style="bold red", highlight=False, markup=False, soft_wrap=True
            )
        sys.exit(1)
    console.print(
        "the three logs are identical, equal to the file, and hold nothing twice", style="bold green"
    )


def _leave(number: int, frame: object) -> NoReturn:
    """Make SIGTERM run the same clean-up as Ctrl-C."""
    raise KeyboardInterrupt


__all__ = ["Demonstration", "NodeFailed", "Result", "demo"]
