"""Open a data directory and build what a node is made of."""

from __future__ import annotations

from pathlib import Path

from paxos.node import Parts
from paxos.types import Config


def open_parts(
    directory: Path,
    *,
    node_id: int | None,
    members: dict[int, str] | None,
    cluster: str,
    bind: str | None,
    config: Config,
) -> Parts:
    """Open the directory, recover the log, build everything that a node is made of; start nothing."""
    raise NotImplementedError
