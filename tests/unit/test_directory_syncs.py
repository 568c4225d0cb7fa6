"""A file is only there after a power loss if its directory was synced (D9).

A descriptor that was opened with O_PATH names a directory as any other does: files are created, renamed and removed
under it. Only syncing it fails. So whoever goes on has not asked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paxos.errors import StorageError
from paxos.storage.directory import write_atomically
from paxos.storage.wal import WriteAheadLog
from tests.unit import wal_kit as kit


@contextmanager
def directory_that_cannot_be_synced(path: Path) -> Iterator[None]:
    """Put a descriptor that cannot be synced in the place of those that the log has of its directory."""
    descriptors = [
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{name}") == os.path.realpath(path)
        and stat.S_ISDIR(os.fstat(int(name)).st_mode)
    ]
    kept = [os.dup(descriptor) for descriptor in descriptors]
    named = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        for descriptor in descriptors:
            os.dup2(named, descriptor, inheritable=False)
        yield
    finally:
        for descriptor, before in zip(descriptors, kept, strict=True):
            os.dup2(before, descriptor, inheritable=False)
            os.close(before)
        os.close(named)


def fill_segment(wal: WriteAheadLog, first: int) -> int:
    """Append until the log is in its next segment; return the next slot."""
    segment = wal.append([kit.accept(first)])[0] >> 32
    for slot in range(first + 1, first + 100):
        if wal.append([kit.accept(slot, b"x" * 500)])[0] >> 32 > segment:
            return slot + 1
    raise AssertionError("the log stays in one segment")


def test_d9_a_segment_is_used_when_its_name_is_durable(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        slot = fill_segment(wal, 1)
        wal.sync()
        with (
            directory_that_cannot_be_synced(tmp_path / "log"),
            pytest.raises(StorageError, match="descriptor"),
        ):
            fill_segment(wal, slot)
        assert wal.is_poisoned


def test_d9_what_is_found_after_a_crash_has_a_durable_name(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        with (
            directory_that_cannot_be_synced(tmp_path / "log"),
            pytest.raises(StorageError, match="descriptor"),
        ):
            wal.scan()
        assert wal.is_poisoned


def test_d9_segments_are_given_up_durably(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        slot = 1
        for _ in range(3):
            slot = fill_segment(wal, slot)
        wal.sync()
        with (
            directory_that_cannot_be_synced(tmp_path / "log"),
            pytest.raises(StorageError, match="descriptor"),
        ):
            wal.recycle_below(2)


def test_d9_a_file_gets_its_name_when_its_bytes_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, then the name, then the directory."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("directory" if is_directory else "bytes")
        fsync(descriptor)

    def renamed(*names: str) -> None:
        steps.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "rename", renamed)
    write_atomically(tmp_path / "identity", b"who")
    assert steps == ["bytes", "name", "directory"]
    assert (tmp_path / "identity").read_bytes() == b"who"
