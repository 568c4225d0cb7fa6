"""Offline verify and dump: what they say, what they refuse, and that they change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from paxos._core import codec
from paxos._core.crc32c import checksum
from paxos._core.effects import RecordView
from paxos.errors import ConfigError, StorageError
from paxos.membership import first_incarnation
from paxos.storage import Store, read_identity
from paxos.storage.inspection import dump, records, verify
from paxos.types import Config
from tests.unit import wal_kit as kit

SMALL = Config(segment_bytes=4096)


def batch(
    slot: int, *commands: bytes, ticket: int, ballot: int = 65537, mark: int = 0, chosen: bool = False
) -> RecordView:
    value = codec.encode_batch(list(commands), origin=1, incarnation=1, first_ticket=ticket)
    kind = kit.KIND.RECORD_CHOSEN if chosen else kit.KIND.RECORD_ACCEPT
    return RecordView(int(kind), int(codec.ValueKind.BATCH), 0, slot, ballot, mark, checksum(value), 0, value)


def noop(slot: int) -> RecordView:
    return RecordView(
        int(kit.KIND.RECORD_ACCEPT), int(codec.ValueKind.NOOP), 0, slot, 65537, slot - 1, 0, 0, None
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Slots 1 to 6, chosen up to 5: a no-op, batches, one overruled at a higher ballot, one fetched, a copy."""
    path = tmp_path / "n1"
    with Store(path, node_id=1, config=SMALL) as store:
        store.recover(lambda record: None)
        store.begin()
        store.wal.append([kit.promise(65537), noop(1), batch(2, b"a", b"b", ticket=1, mark=1)])
        store.wal.append([batch(3, b"wrong", ticket=3), batch(3, b"c", ticket=3, ballot=131073)])
        store.wal.append(
            [batch(4, b"old", ticket=4, ballot=131073), batch(4, b"d", ticket=4, ballot=0, chosen=True)]
        )
        store.wal.append(
            [batch(5, b"c", ticket=3, ballot=131073), batch(6, b"e", ticket=5, ballot=131073, mark=5)]
        )
        store.wal.sync()
    return path


def snapshot(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()
    }


def test_a_clean_log(directory: Path) -> None:
    before = snapshot(directory)
    report = verify(directory)
    assert (report.status, report.exit_code, report.findings) == ("clean", 0, ())
    assert (report.node_id, report.cluster, report.segments) == (1, "paxos", 1)
    assert report.incarnation == first_incarnation(read_identity(directory).storage_bytes)
    assert (report.first_slot, report.last_slot, report.chosen_upto, report.promised) == (1, 6, 5, 65537)
    assert snapshot(directory) == before


def test_dump_shows_the_value_that_ranks_highest(directory: Path) -> None:
    before = snapshot(directory)
    slots = list(dump(directory))
    assert [(s.slot, s.kind, s.index, s.commands) for s in slots] == [
        (1, "noop", 0, ()),
        (2, "batch", 1, (b"a", b"b")),
        (3, "batch", 3, (b"c",)),
        (4, "batch", 4, (b"d",)),
        (5, "batch", 0, (b"c",)),  # proposed twice, applied once
    ]
    assert [s.ballot for s in slots] == [65537, 65537, 131073, None, 131073]
    everything = list(dump(directory, chosen_only=False))
    assert everything[:-1] == slots and (everything[-1].slot, everything[-1].chosen) == (6, False)
    assert [s.slot for s in dump(directory, from_slot=2, to_slot=3)] == [2, 3]
    assert [s.slot for s in dump(directory, from_index=3) if s.index] == [3, 4]
    assert [s.slot for s in dump(directory, from_index=2) if s.index] == [2, 3, 4]
    assert snapshot(directory) == before


def test_records_are_shown_as_they_were_written(directory: Path) -> None:
    kinds = [record.kind for record in records(directory)]
    assert kinds.count(kit.KIND.RECORD_PROMISE) == 1 and kinds.count(kit.KIND.RECORD_ACCEPT) == 7


def test_a_live_node_is_left_alone_unless_forced(directory: Path) -> None:
    with Store(directory, config=SMALL):
        for read in (verify, lambda path: list(dump(path)), lambda path: list(records(path))):
            with pytest.raises(StorageError, match="running node"):
                read(directory)
        assert verify(directory, force=True).status == "clean"
        assert len(list(dump(directory, force=True))) == 5
    assert verify(directory).status == "clean"


def test_a_torn_tail_is_repairable(directory: Path) -> None:
    [segment] = kit.segments(directory)
    image = bytearray(segment.read_bytes())
    end = kit.SEGMENT_HEAD_BYTES
    while kit.head_of(image, end)["position"]:
        end += kit.record_bytes(kit.head_of(image, end)["length"])
    image[end : end + 100] = b"\xaa" * 100
    segment.write_bytes(image)
    report = verify(directory)
    assert (report.status, report.exit_code) == ("repairable", 1)
    [finding] = report.findings
    assert finding.kind == "torn tail" and finding.offset == end
    assert segment.read_bytes() == image, "verify repairs nothing"
    with Store(directory, config=SMALL) as store:
        store.recover(lambda record: None)
    assert verify(directory).status == "clean"


def test_a_damaged_value_is_named_with_its_slot(directory: Path) -> None:
    [segment] = kit.segments(directory)
    image = bytearray(segment.read_bytes())
    place = next(record.position for record in records(directory) if record.value and b"a" in record.value)
    image[(place & 0xFFFFFFFF) + kit.RECORD_HEAD_BYTES + 3] ^= 1
    segment.write_bytes(image)
    report = verify(directory)
    assert (report.status, report.exit_code) == ("damaged", 2)
    assert [(f.kind, f.slot) for f in report.findings] == [("damaged value", 2)]
    slots = list(dump(directory))
    assert slots[1].damaged and slots[1].commands == ()
    assert [s.index for s in slots[1:]] == [0, 0, 0, 0], "no index behind a lost batch is known"


def test_a_damaged_header_is_found_and_reading_goes_on(directory: Path) -> None:
    [segment] = kit.segments(directory)
    image = bytearray(segment.read_bytes())
    place = next(record.position for record in records(directory) if record.slot == 3)
    image[(place & 0xFFFFFFFF) + 20] ^= 1
    segment.write_bytes(image)
    report = verify(directory)
    assert report.exit_code == 2 and report.last_slot == 6
    assert [(f.kind, f.offset) for f in report.findings] == [("damaged log", place & 0xFFFFFFFF)]


@pytest.mark.parametrize("victim", [0, 1, -1])
def test_a_missing_or_cut_segment_is_damage(tmp_path: Path, victim: int) -> None:
    with Store(tmp_path, node_id=1, config=SMALL) as store:
        store.recover(lambda record: None)
        store.begin()
        for slot in range(1, 200):
            store.wal.append([kit.accept(slot)])
        store.wal.sync()
    segment = kit.segments(tmp_path)[victim]
    image = segment.read_bytes()
    segment.write_bytes(image[:2000])
    assert verify(tmp_path).status == "damaged"
    segment.write_bytes(image[:100])
    assert verify(tmp_path).status == "damaged"
    segment.write_bytes(bytes(len(image)))
    assert verify(tmp_path).status == "damaged"
    if victim != -1:  # nothing else tells that there was a newest one
        segment.unlink()
        assert verify(tmp_path).status == "damaged"


def test_a_damaged_identity_is_damage(directory: Path) -> None:
    file = directory / "identity.json"
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    report = verify(directory)
    assert report.exit_code == 2 and report.findings[0].kind == "damaged identity" and report.last_slot == 6
    file.unlink()
    assert verify(directory).exit_code == 2


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises(ConfigError):
            verify(path)
        with pytest.raises(ConfigError):
            list(dump(path))
