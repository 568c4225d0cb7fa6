"""Repair the log of a node that is stopped, from the members that run: :func:`repair`.

The node is opened as in production, but without a vote: it learns. What is damaged is fetched as chosen and written as
such, which is what a running node does with it, too; here nothing else happens, and one sees what became of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paxos.errors import ConfigError, StorageError
from paxos.node import Node
from paxos.opening import open_parts
from paxos.storage import inspection
from paxos.storage.directory import read_identity
from paxos.storage.quarantine import WAY_BACK, read_quarantine
from paxos.types import Config

QUIET_S = 0.5
"""The members agree on how much is chosen when nothing has changed for so long."""
POLL_S = 0.02

Fate = Literal["damaged", "fetched", "replaced", "not chosen yet"]


@dataclass(frozen=True, slots=True)
class RepairedSlot:
    """What became of one damaged slot."""

    slot: int
    fate: Fate
    """``fetched``: the value that had been written; ``replaced``: another value was chosen than the one accepted here;
    ``not chosen yet``: no member that was heard knows it to be chosen; ``damaged``: nothing was tried."""


def repair(
    directory: Path,
    *,
    addresses: Mapping[int, str] | None = None,
    timeout_s: float = 30.0,
    dry_run: bool = False,
) -> list[RepairedSlot]:
    """Fetch the values of damaged slots from the members that run, and write them, durably.

    Args:
        directory: of a node that is stopped.
        addresses: where the members are, all of them, this node included; ``None``: as the log says.
        timeout_s: how long to wait for members and values.
        dry_run: only say what is damaged.

    Raises:
        ConfigError: it is no data directory, or the members are not those of the log.
        StorageError: a node runs on it; it cannot be read; it is damaged in a way that no value can repair; the
            members remember more of it than it holds.
    """
    if (quarantine := read_quarantine(directory)) is not None:
        raise StorageError(f"the node is in quarantine: {quarantine.why}. {WAY_BACK}")
    report = inspection.verify(directory)
    for finding in report.findings:
        if finding.kind in ("damaged log", "damaged identity"):
            raise StorageError(
                f"{finding.text}: promises or votes may be lost, and no peer can give them back. Started with the "
                f"addresses of its members, the node goes into quarantine. {WAY_BACK}"
            )
    damaged = {f.slot: f.value_crc for f in report.findings if f.kind == "damaged value" and f.slot}
    if not damaged or dry_run:
        return [RepairedSlot(slot, "damaged") for slot in sorted(damaged)]
    identity = read_identity(directory)
    parts = open_parts(
        directory,
        node_id=identity.node_id,
        members=dict(addresses) if addresses else None,
        cluster=identity.cluster,
        bind=None,
        config=Config(),
        may_vote=False,
    )
    if len(parts.members) == 1:
        parts.release(True)
        raise ConfigError("this node is the only member of its log: nobody has a copy of what is damaged")
    node = Node(parts, None)
    node.start()
    try:
        _learn(node, max(damaged), timeout_s)
        seen = node.look()
    finally:
        node.close(5.0, hand_over=False)
    node.raise_if_failed()
    if seen["quarantine_reason"]:
        raise StorageError(f"the node is in quarantine from now on: {seen['quarantine']}. {WAY_BACK}")
    return _fates(directory, damaged)


def _learn(node: Node, upto: int, timeout_s: float) -> None:
    """Wait until slot ``upto`` is known, or nobody who is heard knows more than this node."""
    deadline = time.monotonic() + timeout_s
    quiet_since: float | None = None
    while time.monotonic() < deadline:
        node.check_fault()
        node.raise_if_failed()
        known = int(node.look()["chosen_upto"])
        if known >= upto:
            return
        heard = node.heard()
        if not heard or known < max(said["chosen_upto"] for said in heard.values()):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_S:
            return
        time.sleep(POLL_S)
    if not node.heard():
        raise StorageError("no member was heard: start the others, or give their addresses")


def _fates(directory: Path, damaged: Mapping[int, int]) -> list[RepairedSlot]:
    after = inspection.verify(directory)
    healed = {f.slot: f for f in after.findings if f.kind == "healed value"}
    fates: list[RepairedSlot] = []
    for slot, crc in sorted(damaged.items()):
        fate: Fate = "not chosen yet"
        if slot in healed:
            fate = "fetched" if healed[slot].value_crc == crc else "replaced"
        fates.append(RepairedSlot(slot, fate))
    return fates
