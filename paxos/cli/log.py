"""``paxos log``: look at a data directory while its node is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def examine(directory: Path) -> tuple[int, dict[str, Any]]:
    """Check every checksum in a data directory; return the exit code of ``paxos log verify`` and the report."""
    return 3, {"error": "not written yet"}


@click.group(short_help="look at the log on disk, offline")
def log() -> None:
    """Look at the data directory of a node that is stopped. Nothing is written."""
