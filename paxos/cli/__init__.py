"""The ``paxos`` command: a demonstration, a server, and tools to look at a node and its log."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import click

from paxos.cli.demo import demo
from paxos.cli.log import log
from paxos.cli.serve import serve
from paxos.cli.status import status

try:
    VERSION = version("cypaxos")
except PackageNotFoundError:  # run from a tree that was never installed
    VERSION = "0+unknown"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="paxos", message="%(prog)s (cypaxos) %(version)s")
def main() -> None:
    """A Multi-Paxos replicated log: the same commands, in the same order, on several machines.

    \b
    See it work:        paxos demo
    Run a node:         paxos serve --id 1 --member 1=tcp://10.0.0.1:7001 ... --data /var/lib/log
    Look at a node:     paxos status /var/lib/log
    Look at its disk:   paxos log verify /var/lib/log      (the node is stopped)

    Every command explains itself with --help. A usage error exits 2.
    """


main.add_command(demo)
main.add_command(serve)
main.add_command(status)
main.add_command(log)

__all__ = ["VERSION", "main"]
