"""Each sync and write of the log fails once: one attempt, then nothing more; a full disk loses nothing [D7, D8]."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from paxos import failpoints
from paxos.errors import StorageError
from paxos.storage.catalogue import Catalogue, Located, pack
from paxos.storage.directory import DataDirectory, Identity
from paxos.storage.wal import WriteAheadLog
from tests.unit import wal_kit as kit

VALUE = bytes(300)
POISON = ["wal.append.before", "wal.append.after", "wal.sync.before", "wal.sync.after", "segment.begin", "segment.head",
          "segment.rename", "segment.directory"]  # fmt: skip


def fill(wal: WriteAheadLog, slots: range) -> int:
    """Append and sync until an error; return the last slot that was synced."""
    done = 0
    for slot in slots:
        wal.append([kit.accept(slot, VALUE)])
        wal.sync()
        done = slot
    return done


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("place", POISON)
def test_d8_a_write_or_sync_that_fails_is_never_tried_again(tmp_path: Path, place: str, error: str) -> None:
    """Also with ENOSPC: a sync that reports it may have thrown pages away, so only a *refusal before* is harmless."""
    wal = kit.open_log(tmp_path, create=True)
    last = fill(wal, range(1, 4))
    synced = wal.stats()["syncs"]
    with failpoints.armed(place, f"error({error})*1"), pytest.raises(StorageError):
        fill(wal, range(4, 100))
    assert failpoints.specifications() == {}
    assert wal.is_poisoned
    last = int(wal.stats()["records"])
    for _ in range(3):
        with pytest.raises(StorageError, match="restart the node"):
            wal.append([kit.accept(1000)])
        with pytest.raises(StorageError):
            wal.sync()
    begun = wal.stats()
    assert (begun["records"], begun["poisoned"]) == (last, True) and int(begun["syncs"]) >= int(synced)
    wal.close()
    with kit.open_log(tmp_path) as again:
        found = kit.accepted(again.scan())
        assert sorted(found) == list(range(1, len(found) + 1)) and len(found) >= 3
        again.append([kit.accept(len(found) + 1)])
        again.sync()


@pytest.mark.parametrize("place", ["segment.create", "segment.allocate", "segment.sync"])
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_d7_a_full_disk_refuses_keeps_its_reserve_and_resumes(tmp_path: Path, place: str, error: str) -> None:
    wal = kit.open_log(tmp_path, create=True)
    fill(wal, range(1, 3))
    with failpoints.armed(place, f"error({error})"):
        with pytest.raises(StorageError, match="no space") as refused:
            fill(wal, range(3, 10_000))
        assert "nothing was written" in str(refused.value)
        assert not wal.is_poisoned and wal.is_space_low
        before = wal.stats()["appended"]
        with pytest.raises(StorageError, match="no space"):
            wal.append([kit.accept(10_000, VALUE)])
        assert wal.stats()["appended"] == before
        last = max(kit.accepted(wal.scan()))
    fill(wal, range(last + 1, last + 40))
    wal.close()
    with kit.open_log(tmp_path) as again:
        assert sorted(kit.accepted(again.scan())) == list(range(1, last + 40))


@pytest.mark.parametrize("place", ["wal.tail.before", "wal.tail.written"])
def test_d8_a_start_that_cannot_make_its_end_durable_is_none(tmp_path: Path, place: str) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        fill(wal, range(1, 5))
    with kit.open_log(tmp_path) as wal:
        with failpoints.armed(place, "error(EIO)*1"), pytest.raises(StorageError):
            wal.scan()
        with pytest.raises(StorageError):
            wal.append([kit.accept(5)])
    with kit.open_log(tmp_path) as wal:
        assert sorted(kit.accepted(wal.scan())) == [1, 2, 3, 4]


@pytest.mark.parametrize("place", ["identity.write", "identity.rename", "identity.directory"])
def test_d9_an_identity_that_cannot_be_written_starts_nothing(tmp_path: Path, place: str) -> None:
    path = tmp_path / "node"
    with failpoints.armed(place, "error(EIO)*1"), pytest.raises(StorageError):
        DataDirectory(path, node_id=3, cluster="c")
    with DataDirectory(path, node_id=3, cluster="c") as directory:
        assert directory.identity.node_id == 3 and directory.is_new


def test_w_a_catalogue_that_cannot_be_written_does_not_poison_the_log(tmp_path: Path) -> None:
    identity = Identity(node_id=1, cluster="c", cluster_id=7, storage="0" * 32)
    with kit.open_log(tmp_path, create=True) as wal:
        catalogue = Catalogue(tmp_path / "catalogue", identity)
        run = pack(Located(1, 1, 5, 0, 1, 2))
        armed = failpoints.armed("catalogue.commit.before", "error(EIO)*1")
        with armed, pytest.raises(StorageError, match="the log goes on"):
            catalogue.add_runs([(1, run)])
        assert fill(wal, range(1, 10)) == 9 and not wal.is_poisoned
        catalogue.add_runs([(1, run)])
        assert catalogue.last_run() == (1, run)
        catalogue.close()


def test_errors_have_the_names_that_the_tests_use() -> None:
    assert {errno.ENOSPC, errno.EDQUOT, errno.EIO} == {28, 122, 5}
