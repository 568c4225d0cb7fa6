"""Looking at the disk of a node that is stopped: :func:`verify` and :func:`dump`. Nothing is ever written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paxos._core import codec
from paxos._core.crc32c import checksum
from paxos._core.effects import RecordKind, RecordView
from paxos._core.log_reader import LogReader
from paxos.errors import ConfigError, RemoteProtocolError, StorageError
from paxos.storage.directory import LOCK_NAME, QUARANTINE_NAME, Identity, read_identity
from paxos.storage.quarantine import read_quarantine

RECORD_HEAD_BYTES = 72
_ACCEPT, _CHOSEN = int(RecordKind.RECORD_ACCEPT), int(RecordKind.RECORD_CHOSEN)
_GAP = 66  # wal_format.RECORD_GAP: the reader's own, where something may be missing
_BATCH = int(codec.ValueKind.BATCH)
_RANK_CHOSEN = 1 << 64  # above every ballot

Status = Literal["clean", "repairable", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it was written."""

    kind: Literal[
        "torn tail", "damaged value", "healed value", "damaged log", "damaged identity", "quarantine"
    ]
    text: str
    segment: int | None = None
    offset: int | None = None
    slot: int | None = None
    value_crc: int = 0
    """Of a value: what its checksum should be; of a healed one: what it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What :func:`verify` found.

    ``clean``: also if damaged values were written again elsewhere in the log since, or the node is in quarantine.

    ``repairable``: only a torn tail, which the next start cuts; nothing in it was ever acknowledged.
    ``damaged``: bytes that had been acknowledged are not what they were.
    """

    directory: str
    status: Status
    findings: tuple[Finding, ...]
    node_id: int | None
    cluster: str | None
    storage: str | None
    segments: int
    records: int
    first_slot: int
    """Lowest slot with a value; 0 if none."""
    last_slot: int
    """Highest slot with a value; not all of them are known to be chosen."""
    chosen_upto: int
    """As far as the log itself says; the node may have known more."""
    promised: int
    incarnation: int

    @property
    def exit_code(self) -> int:
        """0 clean, 1 repairable, 2 damaged."""
        return {"clean": 0, "repairable": 1, "damaged": 2}[self.status]


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpedSlot:
    """One slot, with the value that this node holds for it."""

    slot: int
    kind: Literal["noop", "batch", "configuration"]
    chosen: bool
    """False: accepted here, and not known here to be chosen; another value may be."""
    ballot: int | None
    """At which the value was accepted; ``None``: it was learned as chosen."""
    index: int
    """Of its first command; 0: it has none, is a duplicate, is not known to be chosen, or lies behind damage."""
    position: int
    length: int
    damaged: bool
    """The value on this disk is not what was written; ``commands`` and ``value`` are empty."""
    origin: int
    """Node id of the replica at which the commands were proposed; 0 if there are none."""
    commands: tuple[bytes, ...]
    value: bytes


def refuse_if_live(directory: str | os.PathLike[str]) -> None:
    """Raise ``StorageError`` if a running node holds the directory. Takes no lock that outlives the call."""
    try:
        descriptor = os.open(Path(directory) / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        raise StorageError(
            f"a running node holds {os.fspath(directory)!r}: what is read now may be half written. Stop "
            "it first, or force it and take a torn tail for what it is"
        ) from None
    finally:
        os.close(descriptor)


def verify(directory: str | os.PathLike[str], *, force: bool = False) -> Report:
    """Check every checksum of the log and the identity in a data directory.

    The catalogue is not looked at: it is a cache, and rebuilt from the log whenever it cannot be trusted.

    Args:
        directory: of a node that is stopped.
        force: read it even if a node is running on it.

    Raises:
        ConfigError: it is not a data directory.
        StorageError: a running node holds it, or it cannot be read.
    """
    path = Path(directory)
    if not path.is_dir():
        raise ConfigError(f"{os.fspath(directory)!r} is not a directory")
    if not force:
        refuse_if_live(path)
    findings: list[Finding] = []
    identity = _identity(path, findings)
    first_slot = last_slot = 0
    damaged_values: dict[int, RecordView] = {}
    reader = _reader(path, identity, keep_going=True)
    for records in _steps(reader, path):
        for record in records:
            if record.kind in (_ACCEPT, _CHOSEN) and not record.is_damaged:
                healed = damaged_values.pop(record.slot, None)
                if healed is not None:
                    findings.append(_healed(record))
            if record.kind in (_ACCEPT, _CHOSEN):
                first_slot = record.slot if not first_slot else min(first_slot, record.slot)
                last_slot = max(last_slot, record.slot)
            if record.is_damaged:
                damaged_values[record.slot] = record
    results = reader.results()
    findings += [_damaged(record) for _, record in sorted(damaged_values.items())]
    findings += _findings_of(reader)
    if results["quarantine"] or (path / QUARANTINE_NAME).exists():
        why = read_quarantine(path)
        findings.append(
            Finding(kind="quarantine", text=why.why if why else "the log says that it never votes again")
        )
    kinds = {finding.kind for finding in findings} - {"healed value", "quarantine"}
    damaged = bool(kinds - {"torn tail"})
    return Report(
        directory=os.fspath(directory),
        status="damaged" if damaged else "repairable" if kinds else "clean",
        findings=tuple(findings),
        node_id=identity.node_id if identity else None,
        cluster=identity.cluster if identity else None,
        storage=identity.storage if identity else None,
        segments=_number(results["newest_segment"]) - _number(results["oldest_segment"]) + 1
        if results["newest_segment"]
        else 0,
        records=_number(results["records"]),
        first_slot=first_slot,
        last_slot=last_slot,
        chosen_upto=_number(results["chosen_upto"]),
        promised=_number(results["promised"]),
        incarnation=_number(results["incarnation"]),
    )


def _damaged(record: RecordView) -> Finding:
    return Finding(
        kind="damaged value",
        text=f"the value of slot {record.slot} fails its checksum; its header is good",
        segment=record.position >> 32,
        offset=record.position & 0xFFFFFFFF,
        slot=record.slot,
        value_crc=record.value_crc,
    )


def _healed(record: RecordView) -> Finding:
    return Finding(
        kind="healed value",
        text=f"a value of slot {record.slot} is damaged, and was written again here",
        segment=record.position >> 32,
        offset=record.position & 0xFFFFFFFF,
        slot=record.slot,
        value_crc=record.value_crc,
    )


def records(directory: str | os.PathLike[str], *, force: bool = False) -> Iterator[RecordView]:
    """Yield every valid record of the log as it was written, oldest first: promises, values, marks.

    Goes on behind damage; see :func:`verify` for what was skipped.
    """
    path = Path(directory)
    if not force:
        refuse_if_live(path)
    identity = read_identity(path)
    for step in _steps(_reader(path, identity, keep_going=True), path):
        yield from (record for record in step if record.kind != _GAP)


def dump(
    directory: str | os.PathLike[str],
    *,
    from_slot: int = 1,
    to_slot: int | None = None,
    from_index: int = 1,
    chosen_only: bool = True,
    force: bool = False,
) -> Iterator[DumpedSlot]:
    """Yield the slots of the log in order, with the value that ranks highest for each.

    Args:
        directory: of a node that is stopped.
        from_slot, to_slot: first and last slot wanted; ``None``: to the end.
        from_index: leave out batches whose commands all lie below this index.
        chosen_only: stop at the first slot that this node does not know to be chosen.
        force: read it even if a node is running on it.

    Raises:
        ConfigError: it is not a data directory.
        StorageError: a running node holds it, or it cannot be read.
    """
    path = Path(directory)
    if not force:
        refuse_if_live(path)
    identity = read_identity(path)
    reader = _reader(path, identity, keep_going=True)
    places: dict[int, tuple[int, RecordView]] = {}
    for step in _steps(reader, path):
        for record in step:
            _rank(places, record)
    chosen_upto = _number(reader.results()["chosen_upto"])
    tickets: dict[tuple[int, int], int] = {}
    next_index = 1
    for slot in sorted(places):
        if (chosen_only and slot > chosen_upto) or (to_slot is not None and slot > to_slot):
            return
        dumped = _dumped(path, places[slot], slot <= chosen_upto, next_index, tickets)
        if dumped.damaged and dumped.chosen:
            next_index = 0  # how many commands it held is lost: no index behind it is known
        elif dumped.index:
            next_index = dumped.index + len(dumped.commands)
        if slot >= from_slot and not (dumped.index and next_index <= from_index):
            yield dumped


def _rank(places: dict[int, tuple[int, RecordView]], record: RecordView) -> None:
    """Keep the record that ranks highest for its slot: chosen above every ballot, the later one of equals.

    A damaged record keeps its rank: no older record of the slot is used instead of it.
    """
    if record.kind not in (_ACCEPT, _CHOSEN):
        return
    rank = _RANK_CHOSEN if record.kind == _CHOSEN else record.ballot
    known = places.get(record.slot)
    if known is None or rank >= known[0]:
        # The value is read again when it is shown: a log is larger than memory.
        places[record.slot] = (rank, record._replace(value=None))


def _dumped(
    path: Path,
    place: tuple[int, RecordView],
    chosen: bool,
    next_index: int,
    tickets: dict[tuple[int, int], int],
) -> DumpedSlot:
    rank, record = place
    value = _value(path, record)
    commands: tuple[bytes, ...] = ()
    origin = index = 0
    damaged = value is None
    if value is not None and record.value_kind == _BATCH:
        try:
            origin, incarnation, first_ticket, found = codec.decode_batch(value)
        except RemoteProtocolError:
            damaged = True
        else:
            commands = tuple(bytes(command) for command in found)
            last = tickets.get((origin, incarnation), 0)
            if chosen and first_ticket == last + 1:  # a batch that was proposed twice is applied once
                tickets[origin, incarnation] = last + len(commands)
                index = next_index
    return DumpedSlot(
        slot=record.slot,
        kind=_kind_name(record.value_kind),
        chosen=chosen,
        ballot=None if rank == _RANK_CHOSEN else record.ballot,
        index=index,
        position=record.position,
        length=record.length,
        damaged=damaged,
        origin=origin,
        commands=commands,
        value=value or b"",
    )


def _kind_name(value_kind: int) -> Literal["noop", "batch", "configuration"]:
    if value_kind == _BATCH:
        return "batch"
    return "configuration" if value_kind == int(codec.ValueKind.CONFIGURATION) else "noop"


def _value(path: Path, record: RecordView) -> bytes | None:
    """Return the value at a record's position, or ``None`` if it is not what was written."""
    if not record.length:
        return b""
    with open(path / "log" / f"{record.position >> 32:016x}.segment", "rb") as file:
        file.seek((record.position & 0xFFFFFFFF) + RECORD_HEAD_BYTES)
        value = file.read(record.length)
    return value if len(value) == record.length and checksum(value) == record.value_crc else None


def _identity(path: Path, findings: list[Finding]) -> Identity | None:
    try:
        return read_identity(path)
    except StorageError as error:
        findings.append(Finding(kind="damaged identity", text=str(error)))
        return None
    except ConfigError:
        if not (path / "log").is_dir():
            raise
        findings.append(Finding(kind="damaged identity", text=f"{path / 'identity.json'} is missing"))
        return None


def _reader(path: Path, identity: Identity | None, *, keep_going: bool) -> LogReader:
    log = path / "log"
    if not log.is_dir():
        if identity is not None and not identity.complete:
            raise ConfigError(f"{path} is a data directory that no node has used yet")
        raise StorageError(f"{log} is missing: the log of this node is gone")
    if identity is None:
        return LogReader(log, keep_going=keep_going)
    return LogReader(
        log,
        node_id=identity.node_id,
        cluster=identity.cluster_id,
        storage=identity.storage_bytes,
        keep_going=keep_going,
    )


def _steps(reader: LogReader, path: Path) -> Iterator[list[RecordView]]:
    try:
        yield from reader
    except OSError as error:
        raise StorageError(f"cannot read the log in {path}: {error}") from error


def _findings_of(reader: LogReader) -> list[Finding]:
    results = reader.results()
    findings = []
    if reader.damage is not None:
        position = _number(results["damage_position"])
        count = _number(results["damaged_headers"])
        findings.append(
            Finding(
                kind="damaged log",
                text=reader.damage + (f", and {count - 1} more" if count > 1 else ""),
                segment=position >> 32,
                offset=position & 0xFFFFFFFF,
            )
        )
    if not results["newest_segment"]:
        findings.append(Finding(kind="damaged log", text="there is no segment"))
    if results["torn"]:
        end, written_end = _number(results["end"]), _number(results["written_end"])
        findings.append(
            Finding(
                kind="torn tail",
                text=f"{written_end - (end & 0xFFFFFFFF)} bytes behind the end were never acknowledged; "
                "the next start cuts them",
                segment=end >> 32,
                offset=end & 0xFFFFFFFF,
            )
        )
    return findings


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
