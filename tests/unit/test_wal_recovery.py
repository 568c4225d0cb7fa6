"""Bad bytes in the write-ahead log: what is a torn tail, what is damage, and that neither becomes a wrong record."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from paxos._core.effects import RecordView
from paxos.errors import StorageError
from paxos.storage.wal import WriteAheadLog
from tests.unit import wal_kit as kit


def synced_log(directory: Path, count: int, **options: object) -> WriteAheadLog:
    """Make a log of ``count`` slots, each synced on its own, so each record says that those before it are."""
    wal = kit.open_log(directory, create=True, **options)
    wal.append([kit.incarnation(1), kit.promise(65539)])
    wal.sync()
    for slot in range(1, count + 1):
        wal.append([kit.accept(slot, mark=slot - 1)])
        wal.sync()
    return wal


def content(records: Iterable[RecordView]) -> list[tuple[object, ...]]:
    return [(r.kind, r.slot, r.ballot, r.mark, r.value) for r in records if r.position & 0xFFFFFFFF]


def offsets(image: bytes, end: int) -> list[int]:
    """Return where the records of a segment begin, and where the last one ends."""
    found = [kit.SEGMENT_HEAD_BYTES]
    while found[-1] < end:
        found.append(found[-1] + kit.record_bytes(kit.head_of(image, found[-1])["length"]))
    return found


class Disk:
    """One small segment whose log was closed without a last mark, as a crash leaves it."""

    def __init__(
        self, directory: Path, build: Callable[[WriteAheadLog], None] | None = None, slots: int = 8
    ) -> None:
        self.directory = directory
        with synced_log(directory, slots) as wal:
            if build is not None:
                build(wal)
            self.records = content(wal.scan())
            self.end = int(wal.stats()["appended"]) & 0xFFFFFFFF
            [self.file] = kit.segments(directory)
            self.image = self.file.read_bytes()
        self.file.write_bytes(self.image)
        self.offsets = offsets(self.image, self.end)

    def scan(self, image: bytes | bytearray) -> list[RecordView]:
        self.file.write_bytes(image)
        with kit.open_log(self.directory) as wal:
            return wal.scan()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_f9_a_segment_cut_short_at_any_length_is_damage(disk: Disk) -> None:
    """A segment has its full size before its name: no crash makes it shorter."""
    for length in [*range(disk.end + 100), len(disk.image) - 1]:
        with pytest.raises(StorageError, match=r"segment|damage"):
            disk.scan(disk.image[:length])
        assert disk.file.read_bytes() == disk.image[:length], "damage is never repaired by truncation"


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_f9_a_write_that_stopped_at_any_byte_of_the_last_record_is_cut(disk: Disk, filler: bytes) -> None:
    last = disk.offsets[-2]
    for torn_at in range(last, last + kit.RECORD_HEAD_BYTES + len(b"value 8")):
        torn = disk.image[:torn_at] + filler * (disk.end - torn_at) + disk.image[disk.end :]
        assert content(disk.scan(torn)) == disk.records[:-1]


def test_f9_zeros_from_any_byte_on_leave_a_prefix(disk: Disk) -> None:
    """Without a valid record behind it, nothing tells lost zeros from a tail; a record is never made up."""
    for start in range(kit.SEGMENT_HEAD_BYTES, disk.end, 3):
        found = content(disk.scan(disk.image[:start] + bytes(len(disk.image) - start)))
        assert found == disk.records[: len(found)]


def test_f8_a_flipped_bit_anywhere_never_makes_a_wrong_record(disk: Disk) -> None:
    good = set(disk.records)
    synced = disk.offsets[-2]  # the newest record says that the log was durable up to its own beginning
    outcomes = {"refused": 0, "damaged": 0, "cut": 0, "same": 0}
    for position in range(disk.end):
        image = bytearray(disk.image)
        image[position] ^= 1 << position * 5 % 8
        try:
            records = disk.scan(image)
        except StorageError:
            outcomes["refused"] += 1
            assert position < synced
            assert disk.file.read_bytes() == image, "damage is never repaired by truncation"
            continue
        damaged = [r for r in records if r.is_damaged]
        found = content(r for r in records if not r.is_damaged)
        assert set(found) <= good
        if damaged:
            outcomes["damaged"] += 1
            assert len(damaged) == 1 and damaged[0].value is None and len(found) == len(good) - 1
            [slot] = {record[1] for record in good - set(found)}
            assert damaged[0].slot == slot and damaged[0].ballot == 65539
        elif len(found) < len(good):
            outcomes["cut"] += 1
            assert position >= synced, "a synced record was cut"
            assert found == disk.records[:-1]
        else:
            outcomes["same"] += 1
    assert all(outcomes.values()), outcomes


def test_f8_garbage_behind_the_end_is_cut(disk: Disk) -> None:
    image = bytearray(disk.image)
    image[disk.end :] = os.urandom(len(image) - disk.end)
    assert content(disk.scan(image)) == disk.records
    assert disk.file.read_bytes()[disk.end + 200 :].strip(b"\0") == b""


def test_h16_k2_rot_in_the_middle_is_never_truncated(disk: Disk) -> None:
    """h16: the record before the damaged one does not invalidate those behind it."""
    image = bytearray(disk.image)
    middle = disk.offsets[5]
    image[middle + kit.RECORD_HEAD_BYTES] ^= 0x40
    records = disk.scan(image)
    assert [r.slot for r in records if r.is_damaged] == [4]
    assert sorted(kit.accepted(records)) == [1, 2, 3, 5, 6, 7, 8]
    image[middle + 20] ^= 0x40
    with pytest.raises(StorageError, match="must not vote"):
        disk.scan(image)


def test_k4_a_damaged_segment_head_refuses(disk: Disk) -> None:
    image = bytearray(disk.image)
    image[40] ^= 1
    with pytest.raises(StorageError, match="head"):
        disk.scan(image)


def test_h18_k1_a_sync_group_that_was_persisted_out_of_order_is_cut(tmp_path: Path) -> None:
    """Ten records in one sync; power fails while it runs; any subset of them may be on the disk."""

    def build(wal: WriteAheadLog) -> None:
        wal.append([kit.accept(slot) for slot in range(9, 19)])

    disk = Disk(tmp_path, build)
    group = [(start, stop) for start, stop in zip(disk.offsets, disk.offsets[1:], strict=False)][-10:]
    kept_before = len(disk.records) - 10
    for mask in [*range(0, 1024, 37), 0b1111111110, 0b0111111111, 0b1010101010, 1023]:
        image = bytearray(disk.image)
        for number, (start, stop) in enumerate(group):
            if not mask >> number & 1:
                image[start:stop] = bytes(stop - start)
        survivors = 0
        while mask >> survivors & 1:
            survivors += 1
        assert content(disk.scan(image)) == disk.records[: kept_before + survivors]


def test_h18_a_value_missing_in_the_last_group_is_torn_not_damaged(tmp_path: Path) -> None:
    disk = Disk(tmp_path, lambda wal: wal.append([kit.accept(9), kit.accept(10)]) and None)
    image = bytearray(disk.image)
    image[disk.offsets[-3] + kit.RECORD_HEAD_BYTES] ^= 1
    records = disk.scan(image)
    assert not [r for r in records if r.is_damaged]
    assert sorted(kit.accepted(records)) == list(range(1, 9))


def test_a_mark_turns_the_same_bytes_into_damage(tmp_path: Path) -> None:
    def build(wal: WriteAheadLog) -> None:
        wal.append([kit.accept(9), kit.accept(10)])
        wal.sync()
        wal.mark_if_idle(1)
        wal.mark_if_idle(1 << 40)
        assert wal.stats()["marks"] == 1

    disk = Disk(tmp_path, build)
    image = bytearray(disk.image)
    image[disk.offsets[-4] + kit.RECORD_HEAD_BYTES] ^= 1
    assert [r.slot for r in disk.scan(image) if r.is_damaged] == [9]
    image[disk.offsets[-4] + 30] ^= 1
    with pytest.raises(StorageError):
        disk.scan(image)


def test_what_was_cut_never_comes_back(tmp_path: Path) -> None:
    """Records behind the cut are valid: new ones of the same size are written there, and the old must be gone."""
    disk = Disk(tmp_path, lambda wal: wal.append([kit.accept(slot) for slot in (9, 10, 11, 12)]) and None)
    image = bytearray(disk.image)
    image[disk.offsets[-5] + 8] ^= 1  # slot 9 is torn; 10, 11 and 12 behind it are whole
    disk.file.write_bytes(image)
    with kit.open_log(tmp_path) as wal:
        assert max(kit.accepted(wal.scan())) == 8
        assert disk.file.read_bytes()[disk.offsets[-5] :].strip(b"\0") == b"", (
            "the cut is not on the disk yet"
        )
        wal.append([kit.accept(9, b"other 9")])
        wal.sync()
        image = bytearray(disk.file.read_bytes())
    disk.file.write_bytes(image)
    with kit.open_log(tmp_path) as wal:
        found = kit.accepted(wal.scan())
        assert max(found) == 9 and found[9] == b"other 9"


def test_f9_a_lost_write_is_detected_by_the_chain(tmp_path: Path) -> None:
    """A stale record at its own place is valid by itself; its successor knows that it is not the right one."""
    disk = Disk(tmp_path)
    before, after = disk.offsets[5], disk.offsets[6]
    stale = bytearray(disk.image)
    struct.pack_into(
        "<Q", stale, before + 24, 1
    )  # another ballot, resealed: what an older write might have been
    kit.reseal(stale, before)
    image = disk.image[:before] + bytes(stale[before:after]) + disk.image[after:]
    with pytest.raises(StorageError):
        disk.scan(image)


def test_f9_misdirected_and_swapped_records_are_not_believed(disk: Disk) -> None:
    a, b, size = disk.offsets[3], disk.offsets[6], disk.offsets[4] - disk.offsets[3]
    image = bytearray(disk.image)
    image[a : a + size], image[b : b + size] = disk.image[b : b + size], disk.image[a : a + size]
    with pytest.raises(StorageError):
        disk.scan(image)
    image = bytearray(disk.image)
    image[b : b + size] = disk.image[a : a + size]
    with pytest.raises(StorageError):
        disk.scan(image)


def test_d10_a_huge_length_is_not_believed(disk: Disk) -> None:
    image = bytearray(disk.image)
    last = disk.offsets[-2]
    struct.pack_into("<I", image, last + 12, 0x7FFFFFFF)
    kit.reseal(image, last)
    assert content(disk.scan(image)) == disk.records[:-1]


@pytest.mark.parametrize("field", [40, 48], ids=["position", "generation"])
def test_d10_a_record_of_another_place_or_of_an_earlier_use_is_none(disk: Disk, field: int) -> None:
    """It is whole, and even follows the record before it; it was not written here, or not in this use of the file."""
    image = bytearray(disk.image)
    last = disk.offsets[-2]
    image[last + field] ^= 8
    kit.reseal(image, last)
    assert content(disk.scan(image)) == disk.records[:-1]


def test_bytes_that_an_application_made_up_are_no_records(tmp_path: Path) -> None:
    """A value that holds a whole valid log is still a value, torn or not."""
    source = Disk(tmp_path / "a" if (tmp_path / "a").mkdir() is None else tmp_path)
    forged = bytearray(source.image[source.offsets[0] : source.end])
    (tmp_path / "b").mkdir()
    disk = Disk(tmp_path / "b", lambda wal: wal.append([kit.accept(9, bytes(forged))]) and None)
    image = bytearray(disk.image)
    image[disk.offsets[-2] + 4] ^= 1
    assert content(disk.scan(image)) == disk.records[:-1]


def test_a_missing_segment_is_damage_unless_it_was_recycled(tmp_path: Path) -> None:
    with synced_log(tmp_path, 150) as wal:
        assert wal.stats()["segment"] >= 4
    files = kit.segments(tmp_path)
    for victim in (files[0], files[1]):
        hidden = victim.rename(victim.with_suffix(".away"))
        with kit.open_log(tmp_path) as wal, pytest.raises(StorageError, match="missing"):
            wal.scan()
        hidden.rename(victim)
    with kit.open_log(tmp_path) as wal:
        wal.scan()
        wal.recycle_below(3)
    with kit.open_log(tmp_path) as wal:
        wal.scan()
        assert wal.stats()["oldest_segment"] == 3


def test_d9_a_crash_between_the_record_and_the_removal_of_old_segments(tmp_path: Path) -> None:
    with synced_log(tmp_path, 150) as wal:
        old = {path: path.read_bytes() for path in kit.segments(tmp_path)[:2]}
        wal.recycle_below(3)
    for path, data in old.items():
        path.write_bytes(data)
    with kit.open_log(tmp_path) as wal:
        wal.scan()
        assert wal.stats()["oldest_segment"] == 3
    assert not any(path.exists() for path in old)


def test_d9_files_of_an_unfinished_segment_are_no_segments(tmp_path: Path) -> None:
    with synced_log(tmp_path, 5) as wal:
        expected = content(wal.scan())
    log = tmp_path / "log"
    (log / "ready-00000009.segment").write_bytes(
        kit.segments(tmp_path)[0].read_bytes()
    )  # head written, no name yet
    (log / "ready-0000000a.segment").write_bytes(bytes(100))
    with kit.open_log(tmp_path) as wal:
        assert content(wal.scan())[: len(expected)] == expected
        for slot in range(6, 100):
            wal.append([kit.accept(slot)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        assert sorted(kit.accepted(wal.scan())) == list(range(1, 100))


def test_f3_recovery_is_repeatable_wherever_it_stops(tmp_path: Path) -> None:
    """Scanning twice, closing without appending, scanning again: always the same records."""
    disk = Disk(tmp_path, lambda wal: wal.append([kit.accept(9)]) and None)
    image = bytearray(disk.image)
    image[disk.offsets[-2] + 9] ^= 1
    first = content(disk.scan(image))
    for _ in range(3):
        with kit.open_log(tmp_path) as wal:
            assert [record for record in content(wal.scan()) if record[0] != kit.KIND.RECORD_MARK] == first
