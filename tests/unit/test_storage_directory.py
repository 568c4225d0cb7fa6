"""The data directory: one owner at a time, and every mix-up refused with what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos._core.crc32c import checksum
from paxos._core.effects import RecordView
from paxos.errors import ConfigError, PaxosError, StorageError
from paxos.membership import first_incarnation
from paxos.storage import DataDirectory, Store, cluster_id, read_identity
from paxos.storage.directory import Identity
from paxos.types import Config
from tests.unit import wal_kit as kit

SMALL = Config(segment_bytes=4096)


def make(path: Path, *, slots: int = 3) -> Identity:
    with Store(path, node_id=2, cluster="shop", config=SMALL) as store:
        store.recover(lambda record: None)
        store.begin()
        store.wal.append([kit.accept(slot) for slot in range(1, slots + 1)])
        return store.identity


def reopen(path: Path, **options: object) -> list[RecordView]:
    records: list[RecordView] = []
    with Store(path, config=SMALL, **options) as store:  # type: ignore[arg-type]
        store.recover(records.append)
        store.begin()
    return records


def test_a_directory_remembers_who_it_is(tmp_path: Path) -> None:
    identity = make(tmp_path / "n2")
    assert (identity.node_id, identity.cluster, identity.cluster_id) == (2, "shop", cluster_id("shop"))
    assert read_identity(tmp_path / "n2").storage == identity.storage
    records = reopen(tmp_path / "n2")
    assert sorted(kit.accepted(records)) == [1, 2, 3]
    assert make(tmp_path / "other").storage != identity.storage


def test_p3_the_incarnation_grows_at_every_start_that_began(tmp_path: Path) -> None:
    for start in range(5):
        store = Store(tmp_path, node_id=1, config=SMALL)
        first = first_incarnation(store.identity.storage_bytes)
        assert store.incarnation == first + start
        store.recover(lambda record: None)
        store.begin()
        store.close()
    with Store(tmp_path, config=SMALL) as store:  # one that never began
        assert store.incarnation == first + 5
        store.recover(lambda record: None)
    with Store(tmp_path, config=SMALL) as store:
        assert store.incarnation == first + 5


def test_s1_a_wiped_directory_does_not_repeat_the_incarnations_of_the_old_one(tmp_path: Path) -> None:
    """Peers that verified (node 1, incarnation k) would take frames from an empty disk for those of the bound one."""
    numbers = set()
    for name in ("old", "new"):
        store = Store(tmp_path / name, node_id=1, config=SMALL)
        numbers.add(store.incarnation)
        store.recover(lambda record: None)
        store.close()
    assert len(numbers) == 2


def test_w1_a_second_opener_is_refused_in_this_process_and_in_another(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = "import sys; from paxos.storage import Store; Store(sys.argv[1])"
    with Store(tmp_path, node_id=1, config=SMALL):
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}.*stop the other"):
            Store(tmp_path, config=SMALL)
        result = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode != 0 and f"in use by process {os.getpid()}" in result.stderr
    Store(tmp_path, config=SMALL).close()


def test_w2_a_forked_child_is_refused_and_does_not_keep_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    store = Store(tmp_path, node_id=1, config=SMALL)
    store.recover(lambda record: None)
    child = os.fork()
    if child == 0:
        outcome = b"used"
        try:
            store.begin()
        except StorageError as error:
            outcome = str(error).encode()
        os.write(writing, outcome)
        os.close(writing)
        os.read(reading, 1)  # until the parent lets go
        os._exit(0)
    os.close(writing)
    try:
        with os.fdopen(os.dup(reading), "rb") as pipe:
            assert b"forked child" in pipe.read()
        store.close()
        Store(tmp_path, config=SMALL).close()  # while the child lives
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"node_id": 3}, "belongs to node 2, not to node 3"),
        ({"cluster": "bank"}, "belongs to cluster 'shop', not to 'bank'"),
        ({"node_id": 70000}, "must be 1..65535"),
    ],
)
def test_another_node_or_cluster_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        reopen(tmp_path, **options)
    assert sorted(kit.accepted(reopen(tmp_path))) == [1, 2, 3], "a refusal changes nothing"


def edit(path: Path, **changes: object) -> None:
    file = path / "identity.json"
    fields = json.loads(file.read_text())
    del fields["crc32c"]
    fields.update(changes)
    fields["crc32c"] = checksum(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    file.write_text(json.dumps(fields))


def remove_log(path: Path) -> None:
    for file in (path / "log").iterdir():
        file.unlink()


def cut_identity(path: Path) -> None:
    (path / "identity.json").write_bytes((path / "identity.json").read_bytes()[:-20])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: edit(path, format_version=2), "newer version"),
        (lambda path: edit(path, format_version=0), "converts it"),
        (lambda path: edit(path, cluster_id=1), "another node, cluster or storage"),
        (lambda path: edit(path, cluster_id=0), "damaged.*Replace it"),
        (cut_identity, "damaged.*Replace it"),
        (lambda path: (path / "identity.json").write_bytes(b""), "damaged.*Replace it"),
        (lambda path: (path / "identity.json").write_bytes(b"[1]"), "damaged.*Replace it"),
        (lambda path: (path / "identity.json").unlink(), "is missing, though there is a log"),
        (remove_log, "the log of .* is gone"),
    ],
)
def test_k4_s1_a_damaged_or_emptied_directory_does_not_start(
    tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    make(tmp_path)
    break_it(tmp_path)
    with pytest.raises(StorageError, match=message):
        reopen(tmp_path)


def test_f8_a_flipped_bit_anywhere_in_the_identity_is_noticed(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "identity.json"
    good = file.read_bytes()
    expected = read_identity(tmp_path)
    refused = 0
    for position in range(len(good)):
        file.write_bytes(
            good[:position] + bytes([good[position] ^ 1 << position * 5 % 8]) + good[position + 1 :]
        )
        try:
            assert read_identity(tmp_path) == expected  # white space may change
        except StorageError:
            refused += 1
    assert refused > len(good) // 2


def test_s3_segments_of_another_storage_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    for file in kit.segments(tmp_path / "a"):
        (tmp_path / "b" / "log" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(StorageError, match="another node, cluster or storage"):
        reopen(tmp_path / "b")


def test_a_crash_while_the_directory_is_made_is_no_damage(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "n", node_id=1).close()  # the identity is there, the log is not
    assert not read_identity(tmp_path / "n").complete
    reopen(tmp_path / "n")
    assert read_identity(tmp_path / "n").complete
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "identity.json.new").write_bytes(b"half")
    reopen(tmp_path / "m")


def test_other_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not a directory"):
        Store(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"holds other files \(thesis.tex\)"):
        Store(tmp_path / "used")
    with pytest.raises(ConfigError, match="no data directory"):
        Store(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(PaxosError):
        Store("/proc/1/nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o555)
    with pytest.raises(StorageError, match="cannot write"):
        Store(tmp_path / "ro")
