"""``paxos status``: ask a running node how it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from paxos.cli.channel import ChannelClient
from paxos.errors import PaxosError


@click.command(short_help="ask a running node how it is")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--inspect", is_flag=True, help="Everything that the node's parts say about themselves, as JSON."
)
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for the answer.")
def status(directory: Path, as_json: bool, inspect: bool, timeout: float) -> None:
    """Show the role, the leader, and how far the log has come at the node that `paxos serve` runs on DIRECTORY.

    \b
    Examples:
      paxos status /var/lib/log
      paxos status /var/lib/log --json | jq .status.role

    \b
    Exit codes:
      0  the node answered
      1  no node runs on this directory, or it does not answer
      2  usage error
    """
    op = "inspect" if inspect else "status"
    try:
        client = ChannelClient(directory, timeout)
        try:
            answer = client.ask(op)
        finally:
            client.close()
    except PaxosError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if as_json or inspect:
        click.echo(json.dumps({op: answer[op]}, indent=2))
    else:
        Console().print(table_of(answer["status"]))


def table_of(fields: dict[str, Any]) -> Table:
    """Return the status of a node as a table for people."""
    table = Table(title=f"node {fields['node_id']}", show_header=False, title_justify="left")
    for name, value in fields.items():
        if name == "ballot":
            table.add_row(name, f"round {value >> 16} of node {value & 0xFFFF}" if value else "none yet")
        elif name != "peers" and value is not None:
            table.add_row(name.replace("_", " "), str(value))
    for peer in fields.get("peers") or []:
        heard = "heard" if peer.get("heard") else "not heard"
        leads = ", leads" if peer.get("leads") else ""
        seen = f"{heard}{leads}, chosen up to {peer.get('chosen_upto')}"
        table.add_row(f"peer {peer['node_id']}", f"{peer.get('address')}: {seen}")
    return table
