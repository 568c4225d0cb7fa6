"""The rules under which LMDB keeps its word, each of them broken somewhere before (W4, W5, W7)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import pytest

from paxos._core import codec
from paxos.storage import Catalogue, cluster_id
from paxos.storage import catalogue as module
from paxos.storage.catalogue import Located, pack
from paxos.storage.directory import Identity

IDENTITY = Identity(
    node_id=1, cluster="c", cluster_id=cluster_id("c"), storage="00000000-0000-4000-8000-000000000001"
)
READER = """
    import sys, lmdb
    environment = lmdb.open(sys.argv[1], lib_version=0, max_dbs=8)
    transaction = environment.begin()
    transaction.get(b"x", db=environment.open_db(b"slots", txn=transaction))
    print("reading", flush=True)
    sys.stdin.read()
"""


def run_of(slot: int) -> tuple[int, bytes]:
    """Return a run of one slot."""
    return slot, pack(Located(slot << 8, slot, 8, 7, 1, int(codec.ValueKind.BATCH)))


def fill(catalogue: Catalogue, first: int, count: int) -> None:
    """Write runs one transaction at a time: every commit replaces pages."""
    for slot in range(first, first + count):
        catalogue.add_runs([run_of(slot)])


def pages(catalogue: Catalogue) -> int:
    return int(str(catalogue.stats()["last_page"]))


def test_w4_no_read_transaction_outlives_its_lookup(tmp_path: Path) -> None:
    """Pages that an open reader may need are never used again, so the file would grow with every commit."""
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    fill(catalogue, 1, 10)
    before = pages(catalogue)
    for slot in range(11, 400):
        fill(catalogue, slot, 1)
        assert catalogue.run_at_slot(slot) == run_of(slot)
        assert catalogue.run_at_index(slot) == run_of(slot)
    assert pages(catalogue) - before < 40  # 400 runs fill a few pages; 800 lookups pinned none
    readers = catalogue._env().readers()
    assert not re.search(r"^\s*\d+ \w+ [0-9]+$", readers, re.MULTILINE), readers
    catalogue.close()


def test_w4_the_slot_of_a_killed_reader_is_freed(tmp_path: Path) -> None:
    """A tool that looks inside and is killed leaves its mark; it is found and removed."""
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    fill(catalogue, 1, 10)
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), os.fspath(catalogue.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
        assert catalogue.stats()["stale_readers_freed"] == 0
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
    assert catalogue.stats()["stale_readers_freed"] == 1
    before = pages(catalogue)
    fill(catalogue, 11, 200)
    assert pages(catalogue) - before < 40
    catalogue.close()


def test_w5_commits_are_full_syncs_and_the_map_is_not_writable(tmp_path: Path) -> None:
    """With a writable map a full disk is a SIGBUS; without syncs a commit is no commit."""
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    flags = catalogue._env().flags()
    assert (flags["writemap"], flags["sync"], flags["metasync"], flags["map_async"]) == (
        False,
        True,
        True,
        False,
    )
    catalogue.close()


def test_w7_what_a_lookup_returns_is_a_copy(tmp_path: Path) -> None:
    """A buffer into the map shows other bytes after the next write, or none at all after the end."""
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    fill(catalogue, 1, 3)
    found = catalogue.run_at_slot(2)
    last = catalogue.last_run()
    assert found is not None and last is not None
    assert type(found[1]) is bytes and type(last[1]) is bytes
    fill(catalogue, 4, 100)
    catalogue.close()
    assert found == run_of(2) and last == run_of(3)


def test_w7_nothing_asks_for_buffers() -> None:
    for path in Path(module.__file__).parent.glob("*.py"):
        assert "buffers=True" not in path.read_text(), path.name


@pytest.mark.parametrize("lib_version", [0, 1])
@pytest.mark.parametrize("default", ["0", "1"])
def test_w9_each_engine_is_asked_for_by_name_and_the_other_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lib_version: int, default: str
) -> None:
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", default)
    catalogue = Catalogue(tmp_path / "c", IDENTITY, lib_version=lib_version)
    fill(catalogue, 1, 3)
    assert catalogue.stats()["lib_version"] == lib_version
    assert str(catalogue.stats()["lmdb"]).startswith(("0.9.", "1.")[lib_version])
    catalogue.close()
    same = Catalogue(tmp_path / "c", IDENTITY, lib_version=lib_version)
    assert same.rebuilt is None and same.last_run() == run_of(3)
    same.close()
    other = Catalogue(tmp_path / "c", IDENTITY, lib_version=1 - lib_version)
    assert other.rebuilt is not None and other.last_run() is None
    other.close()


def test_w1_a_second_catalogue_on_the_same_path_fails_cleanly(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "c", IDENTITY)
    fill(catalogue, 1, 3)
    with pytest.raises(lmdb.Error):
        lmdb.open(os.fspath(catalogue.path), lib_version=0)
    assert catalogue.last_run() == run_of(3)
    fill(catalogue, 4, 1)
    assert catalogue.last_run() == run_of(4)
    catalogue.close()
