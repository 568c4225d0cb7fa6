"""The chosen log and its catalogue: found by slot and by index, rebuilt when lost, never trusted when damaged."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from paxos._core import codec
from paxos._core.crc32c import checksum
from paxos._core.effects import ChosenView
from paxos.errors import InvariantViolation, StorageError
from paxos.storage import Catalogue, ChosenLog, MemoryLog, Store, cluster_id
from paxos.storage.catalogue import RUN_SLOTS_MAX, CatalogueDamaged
from paxos.storage.directory import Identity
from paxos.types import Config, Entry
from tests.unit import wal_kit as kit

NOOP, BATCH = int(codec.ValueKind.NOOP), int(codec.ValueKind.BATCH)
IDENTITY = Identity(
    node_id=1, cluster="c", cluster_id=cluster_id("c"), storage="00000000-0000-4000-8000-000000000001"
)


class Values:
    """Stands for the write-ahead log: values by position."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.end = 1 << 32 | 512

    def add(self, value: bytes) -> int:
        position, self.end = self.end, self.end + kit.record_bytes(len(value))
        self.data[position] = value
        return position

    def read(self, position: int, length: int, value_crc: int) -> bytes:
        value = self.data.get(position, b"")
        if len(value) != length or checksum(value) != value_crc:
            raise StorageError("damaged")
        return value


class History:
    """A random chosen history: batches, no-ops, duplicates, and the entries that a reader must see."""

    def __init__(self, seed: int, slots: int, *, in_memory: bool = False) -> None:
        chance = random.Random(seed)
        self.values = Values()
        self.items: list[ChosenView] = []
        self.entries: list[Entry] = []
        for slot in range(1, slots + 1):
            kind, count, index, value = NOOP, 0, 0, b""
            if chance.random() < 0.8:
                kind, count = BATCH, chance.randrange(1, 5)
                first = len(self.entries) + 1
                commands = [b"%d.%d" % (slot, n) for n in range(count)]
                value = codec.encode_batch(commands, origin=1, incarnation=1, first_ticket=first)
                if chance.random() < 0.9:  # else a duplicate: it holds commands, and none of them is applied
                    index = first
                    self.entries += [Entry(first + n, slot, command) for n, command in enumerate(commands)]
            position = self.values.add(value)
            self.items.append(
                ChosenView(
                    slot, kind, index, count, 1, 1, index, position, len(value), checksum(value) if value else 0,
                    value if in_memory else None,
                )
            )  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(tmp_path / "catalogue", IDENTITY)
    yield catalogue
    catalogue.close()


def check(log: ChosenLog | MemoryLog, history: History, upto: int) -> None:
    entries = [entry for entry in history.entries if entry.slot <= upto]
    assert (log.first_slot, log.last_slot, log.last_index) == (1, upto, len(entries))
    assert list(log.entries(1, 1 << 60)) == entries
    for index in {1, 2, len(entries) // 2, len(entries)} - {0}:
        assert log.read_index(index) == entries[index - 1]
        assert list(log.entries(index, index + 9)) == entries[index - 1 : index + 8]
    assert log.read_slots(1, 1 << 60, 1 << 60) == [
        (item.slot, item.kind, history.values.data[item.position]) for item in history.items[:upto]
    ]
    for index in (0, -1, len(entries) + 1):
        with pytest.raises(IndexError):
            log.read_index(index)


@pytest.mark.parametrize("seed", range(4))
def test_every_slot_and_index_is_found_wherever_it_was_flushed(catalogue: Catalogue, seed: int) -> None:
    history = History(seed, 400)
    chance = random.Random(seed)
    log = ChosenLog(history.values.read, catalogue)
    done = 0
    while done < len(history.items):
        step = chance.randrange(1, 40)
        log.append(history.items[done : done + step])
        done = min(done + step, len(history.items))
        if chance.random() < 0.5:
            log.flush()
        if chance.random() < 0.2:
            check(log, history, done)
    check(log, history, len(history.items))
    log.flush()
    assert log.unwritten_slots == 0
    check(ChosenLog(history.values.read, catalogue), history, len(history.items))


def test_runs_are_full_after_many_small_flushes(catalogue: Catalogue) -> None:
    history = History(5, 3 * RUN_SLOTS_MAX)
    log = ChosenLog(history.values.read, catalogue)
    for start in range(0, len(history.items), 50):
        log.append(history.items[start : start + 50])
        log.flush()
    found = catalogue.run_at_slot(RUN_SLOTS_MAX + 1)
    assert found is not None and found[0] == RUN_SLOTS_MAX + 1 and len(found[1]) == 32 * RUN_SLOTS_MAX
    check(log, history, len(history.items))


def test_the_memory_log_is_its_twin() -> None:
    for in_memory in (True, False):
        history = History(3, 200, in_memory=in_memory)
        log = MemoryLog(None if in_memory else history.values.read)
        log.append(history.items[:120])
        check(log, history, 120)
        log.append(history.items)
        log.flush()
        check(log, history, 200)


def test_read_slots_respects_its_limits(catalogue: Catalogue) -> None:
    history = History(1, 50)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items)
    assert [slot for slot, _, _ in log.read_slots(10, 12, 1 << 20)] == [10, 11, 12]
    assert len(log.read_slots(1, 50, 0)) >= 1
    for limit in range(0, 500, 50):
        slots = log.read_slots(1, 50, limit)
        assert len(slots) == 1 or sum(len(value) for _, _, value in slots) <= limit
    assert log.read_slots(51, 60, 100) == [] and log.read_slots(0, 0, 100) == []


def test_y2_items_must_follow_each_other(catalogue: Catalogue) -> None:
    history = History(1, 10)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items[:4])
    log.append(history.items[:4])  # again, as after a restart: passed over
    assert log.last_slot == 4
    with pytest.raises(InvariantViolation, match="slot 6 follows slot 4"):
        log.append(history.items[5:])
    with pytest.raises(InvariantViolation, match="index"):
        log.append([history.items[4]._replace(index=99, count=1)])


def test_k5_a_damaged_value_is_not_passed_on_and_stops_catch_up_before_it(catalogue: Catalogue) -> None:
    history = History(2, 20)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items)
    victim = next(item for item in history.items[5:] if item.length)
    history.values.data[victim.position] = bytes(victim.length)
    assert [slot for slot, _, _ in log.read_slots(1, 20, 1 << 20)] == list(range(1, victim.slot))
    with pytest.raises(StorageError):
        log.read_slots(victim.slot, 20, 1 << 20)


def test_s4_a_log_that_is_shorter_than_the_catalogue_is_refused(catalogue: Catalogue) -> None:
    history = History(2, 20)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items)
    log.flush()
    ChosenLog(history.values.read, catalogue, log_end=history.values.end)
    with pytest.raises(StorageError, match="older copy"):
        ChosenLog(history.values.read, catalogue, log_end=1 << 32 | 600)


def test_w3_the_map_grows_while_others_read(tmp_path: Path) -> None:
    history = History(7, 6000)
    catalogue = Catalogue(tmp_path / "c", IDENTITY, map_bytes=64 * 1024)
    log = ChosenLog(history.values.read, catalogue)
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                if log.last_index:
                    index = random.randrange(log.last_index) + 1
                    assert log.read_index(index) == history.entries[index - 1]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, len(history.items), 300):
            log.append(history.items[start : start + 300])
            log.flush()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert catalogue.stats()["map_bytes"] > 64 * 1024  # type: ignore[operator]
    check(log, history, 6000)
    catalogue.close()


def test_w6_one_thread_writes(catalogue: Catalogue) -> None:
    history = History(1, 20)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items[:10])
    log.flush()
    log.append(history.items[10:])
    caught: list[BaseException] = []

    def flush() -> None:
        try:
            log.flush()
        except InvariantViolation as error:
            caught.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_w2_no_use_after_fork(catalogue: Catalogue) -> None:
    child = os.fork()
    if child == 0:
        try:
            catalogue.last_run()
        except StorageError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_w1_the_same_environment_is_not_opened_twice(catalogue: Catalogue) -> None:
    catalogue.add_runs([])
    with pytest.raises(lmdb.Error):
        lmdb.open(os.fspath(catalogue.path), lib_version=0)


@pytest.mark.parametrize("default", ["0", "1"])
def test_w9_the_engine_is_ours_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", default)
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    assert str(catalogue.stats()["lmdb"]).startswith("0.9.")
    catalogue.close()


def test_w9_a_file_of_the_other_engine_is_replaced(tmp_path: Path) -> None:
    with (
        lmdb.open(os.fspath(tmp_path / "c"), lib_version=1, max_dbs=8) as other,
        other.begin(write=True) as write,
    ):
        write.put(b"a", b"b")
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    assert catalogue.rebuilt is not None and catalogue.last_run() is None
    catalogue.close()


def test_a_catalogue_of_another_node_is_thrown_away(tmp_path: Path) -> None:
    history = History(1, 20)
    first = Catalogue(tmp_path / "c", IDENTITY)
    log = ChosenLog(history.values.read, first)
    log.append(history.items)
    log.flush()
    first.close()
    again = Catalogue(tmp_path / "c", IDENTITY)
    assert again.rebuilt is None and again.last_run() is not None
    again.close()
    other = Identity(
        node_id=2, cluster="c", cluster_id=cluster_id("c"), storage="00000000-0000-4000-8000-000000000002"
    )
    catalogue = Catalogue(tmp_path / "c", other)
    assert catalogue.rebuilt is not None and "another node" in catalogue.rebuilt
    assert catalogue.last_run() is None
    catalogue.close()


def test_w8_a_value_under_another_key_or_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    history = History(1, RUN_SLOTS_MAX + 60)
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    log = ChosenLog(history.values.read, catalogue)
    log.append(history.items)
    log.flush()
    catalogue.close()
    with lmdb.open(os.fspath(tmp_path / "c"), lib_version=0, max_dbs=8) as raw:
        slots = raw.open_db(b"slots")
        with raw.begin(write=True, db=slots) as write:
            good = write.get((1).to_bytes(8, "big"))
            assert good is not None
            write.put((500).to_bytes(8, "big"), good)  # misdirected
            write.put((1).to_bytes(8, "big"), good[:70] + bytes([good[70] ^ 4]) + good[71:])
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    assert catalogue.rebuilt is None
    for slot in (5, 600):
        with pytest.raises(CatalogueDamaged, match="it is rebuilt"):
            catalogue.run_at_slot(slot)
    assert catalogue.run_at_slot(RUN_SLOTS_MAX + 2) is not None
    catalogue.close()
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    assert catalogue.rebuilt is not None and catalogue.last_run() is None
    catalogue.close()


def test_a_lost_catalogue_is_rebuilt_from_the_log(tmp_path: Path) -> None:
    """The write-ahead log holds everything: replayed and chosen again, the same slots lie in the same places."""
    config = Config(segment_bytes=4096)
    commands = [b"command %d" % n for n in range(1, 101)]

    def chosen(records: list[kit.RecordView]) -> list[ChosenView]:
        return [
            ChosenView(
                r.slot, BATCH, r.slot, 1, 1, 1, r.slot, r.position, len(r.value or b""), r.value_crc, None
            )
            for r in records
            if r.kind == kit.KIND.RECORD_ACCEPT
        ]  # fmt: skip

    with Store(tmp_path, node_id=1, config=config) as store:
        store.recover(lambda record: None)
        store.begin()
        for slot, command in enumerate(commands, 1):
            value = codec.encode_batch([command], origin=1, incarnation=1, first_ticket=slot)
            store.wal.append([kit.accept(slot, value)])
        store.wal.sync()
        store.log.append(chosen(store.wal.scan()))
        store.log.flush()
    for name in ("data.mdb", "lock.mdb"):
        (tmp_path / "catalogue" / name).unlink()
    for _ in range(2):
        with Store(tmp_path, config=config) as store:
            records: list[kit.RecordView] = []
            store.recover(records.append)
            store.log.append(chosen(records))
            store.log.flush()
            assert [entry.command for entry in store.log.entries(1, 1000)] == commands


def test_r6_readers_never_see_a_half_flushed_log(catalogue: Catalogue) -> None:
    history = History(11, 3000)
    log = ChosenLog(history.values.read, catalogue)
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        chance = random.Random(1)
        try:
            while not done.is_set():
                last = log.last_slot
                if last:
                    slot = chance.randrange(last) + 1
                    [(got, _, value)] = log.read_slots(slot, slot, 1 << 20)
                    assert got == slot and value == history.values.data[history.items[slot - 1].position]
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for start in range(0, len(history.items), 37):
            log.append(history.items[start : start + 37])
            if start % 5 == 0:
                log.flush()
    finally:
        done.set()
        thread.join()
    assert not failures
