"""The LMDB catalogue: where every chosen slot lies in the log, and which slot holds an index.

It is a cache: written lazily in batches, rebuilt from the segments whenever it cannot be trusted, never asked
about votes. Consecutive slots of one write form a *run*, one LMDB value of 32 bytes a slot, so ten million
slots are thousands of entries. LMDB 0.9 has no page checksums: every value carries a CRC-32C over its
database,
its key and itself, and what fails it is never used (W8).

Rules of LMDB that are kept here: one opener (the data directory's lock, W1); no use after fork (W2); the map
grows only while no reader of ours is inside (W3); read transactions last for one lookup (W4); no writemap,
full
syncs (W5); writes from one thread (W6); values are copied before a transaction ends (W7); the engine is named
explicitly and recorded (W9).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from paxos._core.crc32c import checksum
from paxos._core.failpoint import reach
from paxos.errors import InvariantViolation, StorageError
from paxos.storage.directory import FORMAT_VERSION, LMDB_LIB_VERSION, Identity

KIB = 1024
MIB = 1024 * KIB
MAP_BYTES_FIRST = 16 * MIB
REBUILD_NAME = "rebuild"
"""A file beside LMDB's that says: throw this away at the next start."""
RUN_SLOTS_MAX = 1024
"""Slots in one LMDB value."""

_KEY = struct.Struct(">Q")
_CRC = struct.Struct("<I")
_ITEM = struct.Struct("<QQIIII")
ITEM_BYTES = _ITEM.size


class Located(NamedTuple):
    """Where one chosen slot lies; ``first_index``: of its first command, or of the next one if it has none."""

    position: int
    first_index: int
    length: int
    value_crc: int
    command_count: int
    kind: int


class CatalogueDamaged(StorageError):
    """A value of the catalogue fails its checksum; it is rebuilt from the log at the next start."""


def pack(item: Located) -> bytes:
    """Return the 32 bytes that stand for one slot in a run."""
    return _ITEM.pack(*item)


def unpack(run: bytes | bytearray, offset: int) -> Located:
    """Return the slot that is ``offset`` slots into a run."""
    return Located._make(_ITEM.unpack_from(run, offset * ITEM_BYTES))


def run_length(run: bytes | bytearray) -> int:
    """Return the number of slots in a run."""
    return len(run) // ITEM_BYTES


class Catalogue:
    """The catalogue in ``directory``, a path that only this object uses.

    Args:
        directory: created if missing. What is found there and does not belong to ``identity``, or to another
            LMDB engine or format, is thrown away (``rebuilt`` says why): everything in it can be rebuilt.
        identity: of the data directory; a copy is kept inside for tools that open only the catalogue.
        map_bytes: first size of LMDB's map; doubles when it is full.
        lib_version: LMDB engine, 0 (0.9) or 1 (1.0).

    Raises:
        StorageError: LMDB cannot be opened at all.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Identity,
        *,
        map_bytes: int = MAP_BYTES_FIRST,
        lib_version: int = LMDB_LIB_VERSION,
    ) -> None:
        self.path = Path(directory)
        self._identity = identity
        self._lib_version = lib_version
        self._map_bytes = map_bytes
        self._pid = os.getpid()
        self._writer: int | None = None
        self._gate = threading.Lock()  # held while one of our readers is inside, and while the map grows
        self.rebuilt: str | None = None
        try:
            self._open()
            damaged = (self.path / REBUILD_NAME).exists()
            problem = "an entry failed its checksum" if damaged else self._check()
        except (lmdb.Error, StorageError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            self._start_over(problem)

    # --- opening ---

    def _open(self) -> None:
        reach("catalogue.open", lmdb.Error)
        self.path.mkdir(mode=0o750, exist_ok=True)
        self._environment: lmdb.Environment | None = lmdb.open(
            os.fspath(self.path),
            map_size=self._map_bytes,
            max_dbs=8,
            mode=0o640,
            sync=True,
            metasync=True,
            writemap=False,
            lib_version=self._lib_version,
        )
        self._meta = self._environment.open_db(b"meta")
        self._slots = self._environment.open_db(b"slots")
        self._indexes = self._environment.open_db(b"indexes")
        self._configurations = self._environment.open_db(b"configurations")

    def _check(self) -> str | None:
        """Return why the content cannot be used, or ``None``."""
        stored = self._get(self._meta, b"meta", b"identity")
        wanted = self._identity_bytes()
        last = self.last_run()
        if stored is None:
            if last is not None:
                return "it has no identity"
            self._write({(b"meta", b"identity"): wanted})
            return None
        return None if stored == wanted else "it belongs to another node, cluster, storage, engine or format"

    def _identity_bytes(self) -> bytes:
        return json.dumps(
            {
                "node_id": self._identity.node_id,
                "cluster": self._identity.cluster,
                "cluster_id": self._identity.cluster_id,
                "storage": self._identity.storage,
                "format_version": FORMAT_VERSION,
                "lmdb_lib_version": self._lib_version,
            },
            sort_keys=True,
        ).encode()

    def _start_over(self, problem: str) -> None:
        self.close()
        self.rebuilt = problem
        try:
            shutil.rmtree(self.path, ignore_errors=True)
            self._open()
            problem_again = self._check()
        except (lmdb.Error, OSError) as error:
            raise StorageError(
                f"cannot open the catalogue {self.path}: {error}. It is only a cache: stop the node, "
                "delete that directory, and start again"
            ) from error
        if problem_again is not None:
            raise StorageError(f"cannot make a fresh catalogue in {self.path}: {problem_again}")

    def close(self) -> None:
        """Close LMDB. Safe to call twice; does nothing in a forked child."""
        environment = getattr(self, "_environment", None)
        self._environment = None
        if environment is not None and os.getpid() == self._pid:
            with self._gate:
                environment.close()

    def _env(self) -> lmdb.Environment:
        if os.getpid() != self._pid:
            raise StorageError(
                f"{self.path} was opened by process {self._pid}; LMDB must not be used after a fork"
            )
        if self._environment is None:
            raise StorageError(f"{self.path} is closed")
        return self._environment

    # --- one value ---

    @staticmethod
    def _seal(database: bytes, key: bytes, value: bytes) -> bytes:
        return value + _CRC.pack(checksum(value, checksum(database + b"\0" + key)))

    def _unseal(self, database: bytes, key: bytes, sealed: bytes) -> bytes:
        value = sealed[: -_CRC.size]
        if len(sealed) < _CRC.size or self._seal(database, key, value) != sealed:
            raise self._damaged(f"has an entry ({database.decode()}, {key.hex()}) that fails its checksum")
        return value

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what LMDB says of pages that make no sense into an error that names the way out (W8)."""
        try:
            yield
        except lmdb.Error as error:
            raise self._damaged(f"cannot be read ({error})") from error

    def _damaged(self, what: str) -> CatalogueDamaged:
        with contextlib.suppress(OSError):
            (self.path / REBUILD_NAME).touch()
        return CatalogueDamaged(
            f"the catalogue {self.path} {what}. The log itself is not affected: restart the node, and it is rebuilt"
        )

    def _get_raw(self, database: lmdb._Database, key: bytes) -> bytes | None:
        with self._reading(), self._gate, self._env().begin(db=database) as transaction:
            reach("catalogue.read", lmdb.Error)
            value: bytes | None = transaction.get(key)
            return value

    def _get(self, database: lmdb._Database, name: bytes, key: bytes) -> bytes | None:
        sealed = self._get_raw(database, key)
        return None if sealed is None else self._unseal(name, key, sealed)

    def _floor(self, database: lmdb._Database, name: bytes, number: int) -> tuple[int, bytes] | None:
        """Return the entry with the highest key that is at most ``number``."""
        key = _KEY.pack(number)
        environment = self._env()
        with (
            self._reading(),
            self._gate,
            environment.begin(db=database) as transaction,
            transaction.cursor() as cursor,
        ):
            reach("catalogue.read", lmdb.Error)
            found = (cursor.set_range(key) and (cursor.key() == key or cursor.prev())) or (
                cursor.key() == b"" and cursor.last()
            )
            if not found:
                return None
            stored, sealed = bytes(cursor.key()), bytes(cursor.value())
        if len(stored) != _KEY.size:
            raise self._damaged(f"has a key of {len(stored)} bytes")
        return int(_KEY.unpack(stored)[0]), self._unseal(name, stored, sealed)

    def _write(self, entries: dict[tuple[bytes, bytes], bytes]) -> None:
        """Put all entries, durably, in one transaction; the map grows as often as it must."""
        databases = {
            b"meta": self._meta,
            b"slots": self._slots,
            b"indexes": self._indexes,
            b"configurations": self._configurations,
        }
        while True:
            try:
                with self._env().begin(write=True) as transaction:
                    reach("catalogue.commit.before", lmdb.Error)
                    for (name, key), value in entries.items():
                        transaction.put(key, self._seal(name, key, value), db=databases[name])
                reach("catalogue.commit.after")
                return
            except lmdb.MapFullError:
                with self._gate:
                    self._map_bytes = 2 * max(self._map_bytes, int(self._env().info()["map_size"]))
                    self._env().set_mapsize(self._map_bytes)
            except lmdb.Error as error:
                raise StorageError(
                    f"cannot write the catalogue {self.path}: {error}. It is only a cache; the log goes on"
                ) from error

    # --- slots and indexes ---

    def add_runs(self, runs: list[tuple[int, bytes]]) -> None:
        """Write runs of consecutive slots, each ``(first slot, packed items)``, in one durable transaction.

        Always called from one thread, in slot order.
        """
        me = threading.get_ident()
        if self._writer is None:
            self._writer = me
        if self._writer != me:
            raise InvariantViolation(f"W6: the catalogue {self.path} is written by two threads")
        entries: dict[tuple[bytes, bytes], bytes] = {}
        for first_slot, run in runs:
            entries[b"slots", _KEY.pack(first_slot)] = run
            first, last = unpack(run, 0), unpack(run, run_length(run) - 1)
            if last.first_index + last.command_count > first.first_index:  # it has commands
                entries[b"indexes", _KEY.pack(first.first_index)] = _KEY.pack(first_slot)
        self._write(entries)

    def last_run(self) -> tuple[int, bytes] | None:
        """Return the run with the highest slots."""
        return self._floor(self._slots, b"slots", (1 << 64) - 1)

    def log_end(self) -> int:
        """Return a position that the log must reach beyond: of the last values that lie here; 0 if nothing does."""
        try:
            last = self.last_run()
        except CatalogueDamaged:
            return 0
        if last is None:
            return 0
        run = last[1]
        return max(unpack(run, at).position for at in range(run_length(run))) + 1

    def discard(self, why: str) -> None:
        """Begin anew: everything is rebuilt from the log."""
        self._start_over(why)

    def run_at_slot(self, slot: int) -> tuple[int, bytes] | None:
        """Return the run that may hold ``slot``."""
        return self._floor(self._slots, b"slots", slot)

    def run_at_index(self, index: int) -> tuple[int, bytes] | None:
        """Return the run that may hold the command with this index."""
        found = self._floor(self._indexes, b"indexes", index)
        if found is None:
            return None
        [slot] = _KEY.unpack(found[1])
        run = self._get(self._slots, b"slots", _KEY.pack(slot))
        return None if run is None else (slot, run)

    def first_slot(self) -> int:
        """Return the lowest slot, or 0 if there is none."""
        environment = self._env()
        with (
            self._reading(),
            self._gate,
            environment.begin(db=self._slots) as transaction,
            transaction.cursor() as cursor,
        ):
            if not cursor.first():
                return 0
            key, sealed = bytes(cursor.key()), bytes(cursor.value())
        self._unseal(b"slots", key, sealed)
        return int(_KEY.unpack(key)[0])

    # --- configurations ---

    def add_configuration(self, slot: int, value: bytes) -> None:
        """Keep the configuration that was chosen in ``slot``. From the same thread as :meth:`add_runs`."""
        self._write({(b"configurations", _KEY.pack(slot)): value})

    def configuration_at(self, slot: int) -> tuple[int, bytes] | None:
        """Return ``(slot, value)`` of the newest configuration at or below ``slot``."""
        return self._floor(self._configurations, b"configurations", slot)

    def stats(self) -> dict[str, object]:
        """Return sizes and what LMDB says about itself."""
        environment = self._env()
        with self._gate:
            information = environment.info()
            readers = environment.reader_check()
        return {
            "map_bytes": information["map_size"],
            "last_page": information["last_pgno"],
            "lmdb": ".".join(map(str, lmdb.version(lib_version=self._lib_version))),
            "lib_version": self._lib_version,
            "stale_readers_freed": readers,
            "rebuilt": self.rebuilt,
        }
