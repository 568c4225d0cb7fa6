"""A directory whose node must never vote again: why, kept beside the log in ``quarantine.json``.

A node whose memory may have lost promises or votes learns and serves what is chosen, and nothing else. That must
outlive restarts, also when the damage has been "repaired" meanwhile or the damaged file is gone. So it is written
twice: here, for people and for a log that is lost altogether, and into every segment of the log from then on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from paxos._core.crc32c import checksum
from paxos._core.effects import QuarantineReason
from paxos.errors import StorageError
from paxos.storage.directory import QUARANTINE_NAME, write_atomically

WAY_BACK = (
    "It learns and serves what is chosen, but never votes and takes no commands. Keep the directory for inspection "
    "(`paxos log verify`); the way back is to replace this member by a new node id with an empty directory"
)
"""What to do about a node in quarantine, for messages."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why a node never votes again with this directory."""

    reason: int
    """A ``QuarantineReason``."""
    why: str
    """In words."""


def read_quarantine(directory: Path) -> Quarantine | None:
    """Return why the node of ``directory`` is in quarantine, or ``None`` if no file says that it is.

    That the file exists is enough: one that cannot be read is no way out.
    """
    try:
        data = (directory / QUARANTINE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {directory / QUARANTINE_NAME}: {error.strerror}") from error
    try:
        fields = json.loads(data)
        stored = fields.pop("crc32c")
        found = Quarantine(reason=int(QuarantineReason(fields["reason"])), why=str(fields["why"]))
        if stored == checksum(_canonical(found)):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Quarantine(int(QuarantineReason.QUARANTINE_DAMAGED), f"{QUARANTINE_NAME} is damaged, too")


def write_quarantine(directory: Path, quarantine: Quarantine) -> None:
    """Say durably that the node of ``directory`` never votes again. What was said first stays.

    Raises:
        StorageError: it could not be written.
    """
    if (directory / QUARANTINE_NAME).exists():
        return
    fields = asdict(quarantine) | {"crc32c": checksum(_canonical(quarantine))}
    try:
        write_atomically(directory / QUARANTINE_NAME, json.dumps(fields, indent=1).encode() + b"\n")
    except OSError as error:
        raise StorageError(f"cannot write {directory / QUARANTINE_NAME}: {error.strerror}") from error


def _canonical(quarantine: Quarantine) -> bytes:
    return json.dumps(asdict(quarantine), sort_keys=True, separators=(",", ":")).encode()
