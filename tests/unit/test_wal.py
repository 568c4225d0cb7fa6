"""The write-ahead log in good order: append, sync, scan, read, segments, recycling, refusals."""

from __future__ import annotations

import errno
import os
import struct
import threading
from pathlib import Path

import pytest

from paxos._core.crc32c import checksum
from paxos.errors import ConfigError, StorageError
from tests.unit import wal_kit as kit


def test_what_was_appended_is_scanned_in_order_and_read_by_position(tmp_path: Path) -> None:
    records = [kit.incarnation(1), kit.promise(65539)]
    records += [kit.accept(slot, os.urandom(slot * 7), mark=slot - 1) for slot in range(1, 40)]
    with kit.open_log(tmp_path, create=True) as wal:
        positions = wal.append(records)
        wal.sync()
        for record, position in zip(records, positions, strict=True):
            if record.value:
                assert wal.read(position, len(record.value), checksum(record.value)) == record.value
    with kit.open_log(tmp_path) as wal:
        scanned = [r for r in wal.scan() if r.position & 0xFFFFFFFF and r.kind != kit.KIND.RECORD_MARK]
        assert [(r.kind, r.slot, r.ballot, r.mark, r.value or b"") for r in scanned] == [
            (r.kind, r.slot, r.ballot, r.mark, r.value or b"") for r in records
        ]
        assert [r.position for r in scanned] == positions
        assert len(kit.segments(tmp_path)) > 1, "the test should cross segments"


def test_one_append_is_one_write_and_empty_values_take_no_room(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        first, second = wal.append([kit.accept(1, b""), kit.accept(2, b"x")])
        assert second - first == kit.RECORD_HEAD_BYTES
        wal.sync()
        assert wal.stats()["appends"] == 1 and wal.stats()["syncs"] == 1
        assert wal.append([]) == []
        wal.sync()
        assert wal.stats()["syncs"] == 1, "a sync with nothing to do costs nothing"


def test_more_records_than_one_pwritev_takes(tmp_path: Path) -> None:
    records = [kit.accept(slot) for slot in range(1, 2000)]
    with kit.open_log(tmp_path, create=True, segment_bytes=1 << 20) as wal:
        wal.append(records)
        wal.sync()
        assert kit.accepted(wal.scan()) == {r.slot: r.value for r in records}


def test_a_record_larger_than_a_segment_gets_a_segment_of_its_own_size(tmp_path: Path) -> None:
    huge = os.urandom(100_000)
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1), kit.accept(2, huge), kit.accept(3)])
        wal.sync()
        wal.append([kit.accept(4)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        assert kit.accepted(wal.scan()) == {1: b"value 1", 2: huge, 3: b"value 3", 4: b"value 4"}


def test_the_next_incarnation_is_known_before_the_log_is_scanned(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        assert wal.last_state()["incarnation"] == 0
        wal.append([kit.incarnation(7)])
        for slot in range(1, 200):
            wal.append([kit.accept(slot)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        assert wal.last_state()["incarnation"] == 7
        wal.scan()


def test_h7_promises_are_repeated_in_every_segment_head_and_mark(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.incarnation(4), kit.promise(9 << 16 | 3), kit.trim(2)])
        for slot in range(3, 300):
            wal.append([kit.accept(slot, mark=slot - 2)])
            wal.sync()
    with kit.open_log(tmp_path) as wal:
        records = wal.scan()
        marks = [r for r in records if r.kind == kit.KIND.RECORD_MARK]
        assert len(marks) >= len(kit.segments(tmp_path))
        assert {(m.ballot, m.slot) for m in marks} == {(9 << 16 | 3, 2)}
        assert marks[-1].mark == 297
        assert [r.slot for r in records if r.kind == kit.KIND.RECORD_INCARNATION].count(4) == len(
            kit.segments(tmp_path)
        )


def test_an_idle_log_writes_one_mark(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True, idle_mark_ms=50) as wal:
        wal.append([kit.accept(1)])
        assert wal.mark_if_idle(1_000_000) == 0, "nothing was synced yet"
        wal.sync()
        assert wal.mark_if_idle(1_000_000) == 1_050_000
        wal.append([kit.accept(2)])
        wal.sync()
        assert wal.mark_if_idle(1_049_999) == 1_099_999, "no longer idle: it waits again"
        assert wal.mark_if_idle(1_099_998) == 1_099_999 and wal.stats()["marks"] == 0
        assert wal.mark_if_idle(1_099_999) == 0
        assert wal.mark_if_idle(9_000_000) == 0
        assert wal.stats()["marks"] == 1, "one, not one a period"
        assert wal.stats()["synced"] == wal.stats()["appended"]


def test_a_clean_shutdown_writes_a_mark(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1, mark=1)])
    with kit.open_log(tmp_path) as wal:
        assert wal.scan()[-1].kind == kit.KIND.RECORD_MARK
        appended = wal.stats()["appended"]
    with kit.open_log(tmp_path) as wal:
        wal.scan()
        assert wal.stats()["appended"] == appended, "nothing new: no new mark"


def test_old_segments_are_recycled_and_their_records_never_come_back(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        for slot in range(1, 400):
            wal.append([kit.accept(slot, b"old %d" % slot)])
        wal.sync()
        files = {path.stat().st_ino for path in kit.segments(tmp_path)}
        wal.append([kit.trim(399)])
        wal.sync()
        newest = int(wal.stats()["segment"])
        position = next(r.position for r in wal.scan() if r.value == b"old 1")
        wal.recycle_below(newest)
        assert wal.stats()["oldest_segment"] == newest and wal.stats()["ready_files"] == 2
        with pytest.raises(StorageError):
            wal.read(position, 5, checksum(b"old 1"))
        for slot in range(400, 420):
            wal.append([kit.accept(slot, b"new %d" % slot)])
            wal.sync()
        assert files & {path.stat().st_ino for path in kit.segments(tmp_path)}, "no file was used again"
        expected = kit.accepted(wal.scan())
    for _ in range(2):
        with kit.open_log(tmp_path) as wal:
            records = wal.scan()
            assert kit.accepted(records) == expected
            assert not any(slot < 300 for slot in kit.accepted(records))
            assert max(r.slot for r in records if r.kind == kit.KIND.RECORD_MARK) == 399, (
                "trimmed is remembered"
            )


def test_a_recycled_segment_recovers_wherever_its_last_record_is_torn(tmp_path: Path) -> None:
    """The bytes behind the end are old records: none of them is ever read."""
    with kit.open_log(tmp_path, create=True) as wal:
        for slot in range(1, 200):
            wal.append([kit.accept(slot)])
        wal.sync()
        wal.recycle_below(int(wal.stats()["segment"]))
        while not struct.unpack_from("<QII", kit.segments(tmp_path)[-1].read_bytes())[2] & 1:
            wal.append([kit.accept(1000, b"filler")])
        for slot in range(2000, 2006):
            wal.append([kit.accept(slot)])
            wal.sync()
        expected = wal.scan()
        newest = kit.segments(tmp_path)[-1]
        image = newest.read_bytes()
        end = int(wal.stats()["appended"]) & 0xFFFFFFFF
    assert image[end:].strip(b"\0"), "old records should show through behind the end"
    assert expected[-1].slot == 2005
    last = expected[-1].position & 0xFFFFFFFF
    stop = last + kit.RECORD_HEAD_BYTES + len(b"value 2005")  # no checksum covers the padding
    for torn_at in range(last, stop):
        newest.write_bytes(
            image[:torn_at] + bytes(byte ^ 0xA5 for byte in image[torn_at:stop]) + image[stop:]
        )
        with kit.open_log(tmp_path) as wal:
            assert wal.scan() == expected[:-1]
            assert wal.scan() == expected[:-1]


def test_x5_readers_on_other_threads_while_the_log_grows(tmp_path: Path) -> None:
    values = [os.urandom(50 + slot) for slot in range(300)]
    with kit.open_log(tmp_path, create=True) as wal:
        places: list[tuple[int, bytes]] = []
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    for position, value in places[-40:]:
                        assert wal.read(position, len(value), checksum(value)) == value
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for slot, value in enumerate(values, 1):
            [position] = wal.append([kit.accept(slot, value)])
            places.append((position, value))
            if slot % 10 == 0:
                wal.sync()
        done.set()
        for thread in threads:
            thread.join()
        assert not failures


def test_p1_an_existing_log_takes_nothing_before_it_was_scanned(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
    with kit.open_log(tmp_path) as wal:
        with pytest.raises(StorageError, match="Invalid argument"):
            wal.append([kit.accept(2)])
        wal.scan()
        wal.append([kit.accept(2)])


def test_d8_fsync_is_never_retried(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        wal.sync()
        synced = wal.stats()["synced"]
        wal.append([kit.accept(2)])
        wal.inject_failure("sync", errno.EIO)
        with pytest.raises(StorageError, match="restart the node"):
            wal.sync()
        wal.inject_failure("sync", 0)
        assert wal.is_poisoned
        for _ in range(2):
            with pytest.raises(StorageError):
                wal.sync()
            with pytest.raises(StorageError):
                wal.append([kit.accept(3)])
        with pytest.raises(StorageError):
            wal.mark_if_idle(10**12)
        assert wal.stats()["synced"] == synced, "durable must not move after a failed sync"
    with kit.open_log(tmp_path) as wal:
        assert 1 in kit.accepted(wal.scan()) and 3 not in kit.accepted(wal.scan())


def test_d1_a_sync_asks_the_disk(tmp_path: Path) -> None:
    """A pipe in the place of the segment cannot be synced: whoever reports success has not asked."""
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        [segment] = kit.segments(tmp_path)
        [descriptor] = [
            int(name)
            for name in os.listdir("/proc/self/fd")
            if os.path.realpath(f"/proc/self/fd/{name}") == os.path.realpath(segment)
        ]
        ends = os.pipe()
        os.dup2(ends[1], descriptor, inheritable=False)
        for end in ends:
            os.close(end)
        with pytest.raises(StorageError, match="Invalid argument"):
            wal.sync()
        assert wal.is_poisoned


def test_d5_a_failed_write_poisons_the_log(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        wal.sync()
        wal.inject_failure("write", errno.EIO)
        with pytest.raises(StorageError):
            wal.append([kit.accept(2)])
        wal.inject_failure("write", 0)
        with pytest.raises(StorageError):
            wal.append([kit.accept(3)])
        assert wal.is_poisoned
    with kit.open_log(tmp_path) as wal:
        assert list(kit.accepted(wal.scan())) == [1]


def test_d7_a_full_disk_refuses_and_goes_on_when_there_is_space_again(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        slot = 0
        wal.inject_failure("space", errno.ENOSPC)
        with pytest.raises(StorageError, match="no space left"):
            while True:
                wal.append([kit.accept(slot + 1)])
                slot += 1
                if wal.is_space_low:
                    assert not wal.is_poisoned
        assert wal.is_space_low and not wal.is_poisoned
        wal.sync()
        assert sorted(kit.accepted(wal.scan())) == list(range(1, slot + 1)), "a refused append writes nothing"
        assert len(kit.segments(tmp_path)) >= 2, "the reserve became a segment"
        wal.inject_failure("space", 0)
        for _ in range(100):
            slot += 1
            wal.append([kit.accept(slot)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        assert sorted(kit.accepted(wal.scan())) == list(range(1, slot + 1))
        assert wal.stats()["has_reserve"] or not wal.is_space_low


def test_d7_a_drain_over_several_segments_is_refused_as_a_whole(tmp_path: Path) -> None:
    drain = [kit.accept(slot, os.urandom(3000)) for slot in range(2, 40)]
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        wal.sync()
        wal.inject_failure("space", errno.ENOSPC)
        for _ in range(3):
            with pytest.raises(StorageError, match="no space left"):
                wal.append(drain)
        assert not wal.is_poisoned
        assert list(kit.accepted(wal.scan())) == [1]
        wal.inject_failure("space", 0)
        wal.append(drain)
        wal.sync()
        assert kit.accepted(wal.scan()) == {1: b"value 1"} | {r.slot: r.value for r in drain}


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no log"):
        kit.open_log(tmp_path)
    with pytest.raises(ConfigError):
        kit.open_log(tmp_path, create=True, segment_bytes=100)
    with pytest.raises(ConfigError):
        kit.open_log(tmp_path, create=True, storage=b"short")
    with pytest.raises(ConfigError):
        kit.open_log(tmp_path, create=True, node_id=0)


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    wal = kit.open_log(tmp_path, create=True)
    wal.close()
    wal.close()
    with pytest.raises(StorageError):
        wal.append([kit.accept(1)])
    with pytest.raises(StorageError):
        wal.sync()
    with pytest.raises(StorageError):
        wal.scan()
    with pytest.raises(StorageError):
        wal.read(1 << 32 | 512, 1, 0)


@pytest.mark.parametrize("field", ["node_id", "cluster", "storage"])
def test_s3_a_log_of_someone_else_is_not_read(tmp_path: Path, field: str) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
    other = {"node_id": 4, "cluster": 1, "storage": bytes(16)}
    with (
        kit.open_log(tmp_path, **{field: other[field]}) as wal,
        pytest.raises(StorageError, match="another node"),
    ):
        wal.scan()


def test_a_read_at_a_wrong_place_is_never_answered(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        [position] = wal.append([kit.accept(1, b"abcdefgh" * 20)])
        good = checksum(b"abcdefgh" * 20)
        for where, length, crc in [
            (position + 8, 160, good),
            (position, 152, good),
            (position, 160, good ^ 1),
            (position + (1 << 32), 160, good),
            (0, 160, good),
            (position + (1 << 20), 160, good),
        ]:
            with pytest.raises(StorageError):
                wal.read(where, length, crc)
