"""``paxos serve``: one replica of a log as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from paxos import validation
from paxos.cli.channel import SOCKET_NAME, ChannelServer
from paxos.errors import ConfigError, PaxosError

if TYPE_CHECKING:
    from paxos.replica import Replica

LOOK_EVERY_S = 0.25


def parse_members(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[int, str]:
    """Turn ``1=tcp://host:port`` and so on into a dictionary.

    >>> parse_members(None, None, ("1=tcp://a:1", "2=tcp://b:1"))
    {1: 'tcp://a:1', 2: 'tcp://b:1'}
    """
    members: dict[int, str] = {}
    for item in given:
        number, equals, address = item.partition("=")
        if not equals or not number.isdecimal() or not address:
            raise click.BadParameter(f"{item!r} is not ID=ADDRESS, like 1=tcp://10.0.0.1:7001")
        if int(number) in members:
            raise click.BadParameter(f"node {int(number)} is named twice")
        try:
            members[validation.check_node_id(int(number))] = validation.check_address(address)
        except ConfigError as error:
            raise click.BadParameter(str(error)) from error
    return members


def parse_bind(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Check the address to listen on."""
    try:
        return None if given is None else validation.check_bind(given)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@click.command(short_help="run one replica as a process")
@click.option(
    "--id", "node_id", type=click.IntRange(1, 65535), metavar="ID", help="This node's id, 1..65535."
)
@click.option(
    "--member",
    "members",
    multiple=True,
    callback=parse_members,
    metavar="ID=ADDRESS",
    help="A member and its address; repeat it for every member, this node included.",
)
@click.option(
    "--data",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="This node's data directory; made if it does not exist.",
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    callback=parse_bind,
    help="Where to listen, if it is not the own address: tcp://*:7001.",
)
@click.option(
    "--cluster", default="paxos", show_default=True, help="Name of the cluster, the same on every member."
)
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    help="Also stop when standard input ends: when the parent process is gone.",
)
def serve(
    node_id: int | None,
    members: dict[int, str],
    directory: Path,
    bind: str | None,
    cluster: str,
    until_stdin_closes: bool,
) -> None:
    """Run one replica of a log until it is told to stop.

    Prints one line when it is open,

    \b
        ready id=1 pid=4711 data=/var/lib/log

    and from then on answers `paxos status DATA` and the requests described in paxos.cli.channel (JSON lines on
    the Unix socket control.sock in the data directory). SIGTERM or Ctrl-C hands leadership over and closes.

    \b
    Three nodes (run each on its machine, with its own --id and --data):
      paxos serve --id 1 --data /var/lib/log --member 1=tcp://10.0.0.1:7001 \\
                  --member 2=tcp://10.0.0.2:7001 --member 3=tcp://10.0.0.3:7001
    One node, without network:
      paxos serve --data /tmp/log

    \b
    Exit codes:
      0  stopped because it was told to
      1  could not start (directory in use, of another node, damaged; address in use), or stopped by itself
      2  usage error
    """
    from paxos.replica import Replica

    if members and node_id is None:
        raise click.UsageError("--member needs --id: say which of the members this node is")
    if members and node_id not in members:
        raise click.UsageError(f"--id {node_id} is not among the members {sorted(members)}")
    if node_id is not None and not members:
        raise click.UsageError("--id needs --member: name every member, this node included")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _on_signal(stop, _number, _frame))
    if until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
    try:
        replica = Replica(directory, node_id=node_id, members=members or None, bind=bind, cluster=cluster)
    except (PaxosError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    sys.exit(_run(replica, directory, stop))


def _on_signal(stop: threading.Event, number: int, frame: FrameType | None) -> None:
    stop.set()


def _watch_stdin(stop: threading.Event) -> None:
    """Wait for the end of standard input, with a raw read: it must not hold a lock at interpreter exit."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    stop.set()


def _run(replica: Replica, directory: Path, stop: threading.Event) -> int:
    """Answer questions until told to stop; return the exit code."""
    channel = ChannelServer(replica, directory)
    fault: str | None = None
    try:
        where = directory.resolve()
        click.echo(f"ready id={replica.node_id} pid={os.getpid()} data={where}")
        sys.stdout.flush()
        while not stop.wait(LOOK_EVERY_S):
            status = replica.status()
            if status.role == "stopped":
                fault = status.fault or "the node has stopped"
                break
    finally:
        channel.close()
        replica.close()
    if fault is not None:
        click.echo(f"error: {fault}", err=True)
        return 1
    return 0


__all__ = ["SOCKET_NAME", "parse_members", "serve"]
