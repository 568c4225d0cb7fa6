"""Everything that one node keeps on disk, opened in the right order: :class:`Store`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from paxos._core.effects import QuarantineReason, RecordKind, RecordView
from paxos._core.failpoint import reach
from paxos._core.log_reader import LogReader
from paxos.errors import StorageError
from paxos.membership import first_incarnation
from paxos.storage.catalogue import Catalogue
from paxos.storage.directory import DataDirectory, Identity
from paxos.storage.log import ChosenLog
from paxos.storage.quarantine import Quarantine, read_quarantine, write_quarantine
from paxos.storage.wal import WriteAheadLog
from paxos.types import Config


class Store:
    """The locked data directory of a node with its write-ahead log, catalogue and chosen log.

    A start goes: ``store = Store(path, ...)``; build the engine with ``store.incarnation``; replay the log
    into it
    (``store.recover(engine.recover)``, or natively through ``store.wal``); ``store.begin()``; only then send.

    Args:
        path, node_id, cluster, first_cluster_id: see :class:`paxos.storage.directory.DataDirectory`.
        config: for the sizes and periods of the log.
        may_observe: there are other members to learn from, so what may have lost promises is opened for a node in
            quarantine where possible, instead of being refused.

    Attributes:
        identity: who the directory belongs to.
        wal: the write-ahead log; not scanned yet unless it is new.
        log: the chosen log; ``None`` before :meth:`recover` or :meth:`open_log`.
        incarnation: of this start; durable after :meth:`begin`.
        quarantine: why this node must never vote; ``None`` if it may.

    Raises:
        ConfigError, StorageError: with what to do; nothing was changed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        node_id: int | None = None,
        cluster: str | None = None,
        first_cluster_id: int | None = None,
        config: Config | None = None,
        create: bool = True,
        may_observe: bool = False,
    ) -> None:
        self._config = config or Config()
        self._wal: WriteAheadLog | None = None
        self._catalogue: Catalogue | None = None
        self._log: ChosenLog | None = None
        self.directory = DataDirectory(
            path,
            node_id=node_id,
            cluster=cluster,
            first_cluster_id=first_cluster_id,
            create=create,
            may_observe=may_observe,
        )
        try:
            self.identity: Identity = self.directory.identity
            self.quarantine = self._read_quarantine()
            self._wal = self._open_wal(create=self.directory.is_new or self._log_is_lost())
            self.directory.mark_complete()
            last = self._last_incarnation()
            self.incarnation = last + 1 if last else first_incarnation(self.identity.storage_bytes)
            self._catalogue = Catalogue(self.directory.path / "catalogue", self.identity)
        except OSError as error:
            self.close()
            raise StorageError(f"cannot open the storage in {self.directory.path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _read_quarantine(self) -> Quarantine | None:
        path = self.directory.path
        found = read_quarantine(path)
        if self.directory.distrust is not None:
            found = found or Quarantine(*self.directory.distrust)
            write_quarantine(path, found)
            if self.directory.distrust[0] == int(QuarantineReason.QUARANTINE_IDENTITY):
                self.directory.restore_identity()
        return found

    def _log_is_lost(self) -> bool:
        return not any((self.directory.path / "log").glob("[0-9a-f]*.segment"))

    def _open_wal(self, *, create: bool = False) -> WriteAheadLog:
        return WriteAheadLog(
            self.directory.path,
            node_id=self.identity.node_id,
            cluster=self.identity.cluster_id,
            storage=self.identity.storage_bytes,
            segment_bytes=self._config.segment_bytes,
            idle_mark_ms=self._config.idle_mark_ms,
            create=create,
            through_damage=self.quarantine is not None,
        )

    def _last_incarnation(self) -> int:
        """Return the number of the last start that the log tells of, and notice if it tells of a quarantine."""
        try:
            state = self.wal.last_state()
        except StorageError:  # the newest segment is damaged: the others may know
            reader = LogReader(self.directory.path / "log", keep_going=True)
            for _ in reader:
                pass
            state = reader.results()
        if state["quarantine"] and self.quarantine is None:
            self.distrust(Quarantine(int(state["quarantine"]), "its log says so"))
            write_quarantine(self.directory.path, self.quarantine or Quarantine(1, ""))
        return int(state["incarnation"] or 0)

    def distrust(self, quarantine: Quarantine) -> None:
        """Open the log anew, for reading on behind damage; nothing is written. :meth:`seal` makes it durable."""
        self.quarantine = quarantine
        if self._wal is not None:
            self._wal.close(mark=False)
        self._wal = self._open_wal()

    def seal(self) -> None:
        """Make the quarantine durable, beside the log and in it. Call it when the log has been scanned.

        Raises:
            StorageError: it could not be written; the node must not go on.
        """
        if self.quarantine is None:
            return
        write_quarantine(self.directory.path, self.quarantine)
        self.wal.begin_behind(self.quarantine.reason, self.catalogue.log_end() >> 32)
        self.catalogue.discard(f"quarantine: {self.quarantine.why}")

    @property
    def is_rolled_back(self) -> bool:
        """True if the catalogue knows of values behind the end of the log: it was cut, or restored from a copy."""
        return self.catalogue.log_end() > int(self.wal.stats()["appended"])

    @property
    def wal(self) -> WriteAheadLog:
        """The write-ahead log. Raises ``StorageError`` when closed."""
        if self._wal is None:
            raise StorageError(f"{self.directory.path} is closed")
        return self._wal

    @property
    def catalogue(self) -> Catalogue:
        """The LMDB catalogue. Raises ``StorageError`` when closed."""
        if self._catalogue is None:
            raise StorageError(f"{self.directory.path} is closed")
        return self._catalogue

    @property
    def log(self) -> ChosenLog:
        """The chosen log. Raises ``StorageError`` before the write-ahead log was scanned."""
        if self._log is None:
            raise StorageError(f"the log of {self.directory.path} has not been recovered yet")
        return self._log

    def recover(self, consumer: Callable[[RecordView], Any]) -> None:
        """Replay the write-ahead log into ``consumer``, oldest record first, and open the chosen log.

        Raises:
            StorageError: the log is damaged in a way that may hide promises.
        """
        for record in self.wal.replay():
            consumer(record)
        self.open_log()

    def open_log(self) -> ChosenLog:
        """Open the chosen log after the write-ahead log was scanned (natively, or by :meth:`recover`)."""
        if self.wal.damaged_values:
            self.catalogue.discard("values in the log are damaged: they are written again elsewhere")
        end = self.wal.stats()["appended"]
        self._log = ChosenLog(self.wal.read_value, self.catalogue, log_end=int(end))
        return self._log

    def begin(self) -> None:
        """Make the incarnation durable. Nothing may be sent before."""
        self.directory.check_process()
        reach("incarnation.before", StorageError)
        self.wal.append(
            [RecordView(int(RecordKind.RECORD_INCARNATION), 0, 0, self.incarnation, 0, 0, 0, 0, None)]
        )
        self.wal.sync()
        reach("incarnation.after")

    def close(self, *, clean: bool = True) -> None:
        """Close everything; the lock goes last. Safe to call twice. The reactor must have stopped.

        Args:
            clean: false leaves the end of the log as a crash would.

        Raises:
            StorageError: the last sync of the log failed.
        """
        try:
            if self._catalogue is not None:
                self._catalogue.close()
            if self._wal is not None:
                self._wal.close(mark=clean)
        finally:
            self._wal = self._catalogue = self._log = None
            self.directory.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
